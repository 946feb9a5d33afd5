"""From KEY=VALUE on the command line to a provider's own fields."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError

from graftkit.errors import RecipeError
from graftkit.interfaces.config import ProviderConfig
from graftkit.recipe.document import Document, parse_value
from graftkit.recipe.load import as_recipe_error
from graftkit.redact import without_secret_assignment

__all__ = ["bind_options", "read_assignment"]


def read_assignment(assignment: str, flag: str) -> tuple[str, Any]:
    """Returns the key and the value of "key=value", the value as YAML writes it.

    Args:
        assignment: What the user typed.
        flag: What stands before it, for errors.

    Raises:
        RecipeError: It has another form.
    """
    key, equals, text = assignment.partition("=")
    where = f"{flag} {without_secret_assignment(assignment)}"
    if not equals or not key.strip():
        raise RecipeError("the form is KEY=VALUE", where=where)
    return key.strip(), parse_value(text, where)


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
    document = Document(dict(read_assignment(assignment, flag) for assignment in assignments), flag)
    try:
        return model.model_validate(document.data)
    except ValidationError as error:
        raise as_recipe_error(error, model, document) from None
