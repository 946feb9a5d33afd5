"""A provider that a recipe chose, and its own fields."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from graftkit.articles import with_article
from graftkit.errors import GraftkitError, PluginError, RecipeError
from graftkit.host.guard import brief, guarded, is_stop
from graftkit.host.records import RegisteredProvider
from graftkit.host.results import kind_named
from graftkit.host.time_limit import time_limit
from graftkit.interfaces.config import ProviderConfig
from graftkit.recipe.document import Document, KeyPath
from graftkit.recipe.load import as_recipe_error

__all__ = ["Choice", "judge"]

_SECONDS = 60.0
"""After how long a check of fields that has not come back is named on standard error."""


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
    registered: RegisteredProvider,
    model: type[ProviderConfig],
    options: Mapping[str, Any],
    document: Document,
    path: KeyPath,
    beside: Collection[str] = (),
) -> ProviderConfig:
    """Judges a provider's own fields; a `RecipePath` among them starts at the recipe's folder.

    Args:
        registered: The provider and its plugin.
        model: The provider's config model.
        options: What the recipe says.
        document: Where.
        path: The section's keys.
        beside: Keys of that section that another model judges.

    Raises:
        RecipeError: A field that the provider does not know, a value that it refuses, or one that no manifest brings
            back as it was, such as NaN in a field of any type.
        PluginError: The config model fails, or makes what is no config, or none that a manifest can keep.
    """

    def folder_of(field: str) -> Path:
        said_in_file = Path(document.file).is_file() and not document.where((*path, field)).startswith("--")
        return Path(document.file).absolute().parent if said_in_file else Path.cwd()

    label, what = registered.plugin.label, f"the fields of its {registered.kind} '{registered.provider.name}'"
    limit = time_limit(label, f"the check of {what}", _SECONDS, "It goes on: stop it with Ctrl-C if it hangs.")
    try:
        with limit, guarded(registered.plugin, f"the check of {what}"):
            found: object = model.model_validate(deepcopy(dict(options)), context=folder_of)
            if isinstance(found, ProviderConfig):
                _check_kept(options, path, document)
                json.dumps(found.model_dump(mode="json"))
                return found
    except ValidationError as error:
        raise as_recipe_error(error, model, document, path, beside) from None
    except GraftkitError:
        raise
    except BaseException as error:
        if is_stop(error):
            raise
        raise PluginError(f"the check of {what} raised {brief(error)}", where=label) from error
    raise PluginError(f"the check of {what} gave {kind_named(found)}, not a {model.__name__}", where=label)


def _check_kept(value: Any, path: KeyPath, document: Document) -> None:
    """Makes sure that JSON brings back what a recipe says: whoever loads the export makes the provider with that."""
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        for key, inner in value.items():
            _check_kept(inner, (*path, key), document)
    elif isinstance(value, list | tuple):
        for number, inner in enumerate(value):
            _check_kept(inner, (*path, number), document)
    elif not (value is None or isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value))):
        kind = "a number" if isinstance(value, float) else with_article(type(value).__name__)
        raise RecipeError(f"{'.'.join(map(str, path))}: {kind} that no manifest can keep", where=document.where(path))
