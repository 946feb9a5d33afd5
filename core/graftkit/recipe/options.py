"""From KEY=VALUE on the command line to a provider's own fields."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import ValidationError

from graftkit.interfaces.config import ProviderConfig
from graftkit.recipe.assignment import read_assignments
from graftkit.recipe.document import Document
from graftkit.recipe.load import as_recipe_error

__all__ = ["bind_options"]


def bind_options(model: type[ProviderConfig], assignments: Sequence[str], flag: str = "--option") -> ProviderConfig:
    """Reads and judges a provider's fields.

    Args:
        model: The provider's fields.
        assignments: Each "key=value", the value as YAML writes it.
        flag: What the user typed before them, for errors.

    Raises:
        RecipeError: An assignment of another form, a field that the provider does not know, or a value that it
            refuses.
    """
    document = Document(read_assignments(assignments, flag), flag)
    try:
        return model.model_validate(document.data)
    except ValidationError as error:
        raise as_recipe_error(error, model, document) from None
