"""A provider that a recipe chose, and its own fields."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from graftkit.host.records import RegisteredProvider
from graftkit.interfaces.config import ProviderConfig
from graftkit.recipe.document import Document, KeyPath
from graftkit.recipe.load import as_recipe_error

__all__ = ["Choice", "judge"]


@dataclass(frozen=True, slots=True)
class Choice:
    """A provider that a recipe chose, and its own fields.

    Attributes:
        use: What the recipe calls it.
        registered: The provider and its plugin.
        config: Its fields, judged.
    """

    use: str
    registered: RegisteredProvider
    config: ProviderConfig

    def facts(self) -> dict[str, Any]:
        """Returns what the name resolved to, as JSON."""
        return self.registered.facts(self.config.model_dump(mode="json"))


def judge(
    model: type[ProviderConfig],
    options: Mapping[str, Any],
    document: Document,
    path: KeyPath,
    beside: Collection[str] = (),
) -> ProviderConfig:
    """Judges a provider's own fields; a `RecipePath` among them starts at the recipe's folder.

    Args:
        model: The provider's config model.
        options: What the recipe says.
        document: Where.
        path: The section's keys.
        beside: Keys of that section that another model judges.

    Raises:
        RecipeError: A field that the provider does not know, or a value that it refuses.
    """

    def folder_of(field: str) -> Path:
        said_in_file = Path(document.file).is_file() and not document.where((*path, field)).startswith("--")
        return Path(document.file).absolute().parent if said_in_file else Path.cwd()

    try:
        return model.model_validate(dict(options), context=folder_of)
    except ValidationError as error:
        raise as_recipe_error(error, model, document, path, beside) from None
