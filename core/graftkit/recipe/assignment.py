"""What a user types as KEY=VALUE on the command line."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from graftkit.errors import RecipeError
from graftkit.recipe.document import parse_value
from graftkit.redact import without_secret_assignment

__all__ = ["Assignment", "read_assignment", "read_assignments"]


@dataclass(frozen=True, slots=True)
class Assignment:
    """A key and its value.

    Attributes:
        key: The key.
        value: The value, as YAML writes it.
        where: What was typed, for errors; secrets left out.
    """

    key: str
    value: Any
    where: str


def read_assignment(assignment: str, flag: str, hint: str = "") -> Assignment:
    """Reads "key=value".

    Args:
        assignment: What the user typed.
        flag: What stands before it, for errors.
        hint: What an error says to do about another form.

    Raises:
        RecipeError: It has another form, or its value is no YAML.
    """
    key, equals, text = assignment.partition("=")
    where = f"{flag} {without_secret_assignment(assignment)}"
    if not equals or not key.strip():
        raise RecipeError("the form is KEY=VALUE", where=where, hint=hint)
    return Assignment(key.strip(), parse_value(text, where), where)


def read_assignments(assignments: Iterable[str], flag: str) -> dict[str, Any]:
    """Reads several, of which the last with a key counts.

    Args:
        assignments: What the user typed.
        flag: What stands before each, for errors.

    Raises:
        RecipeError: As for `read_assignment`.
    """
    read = (read_assignment(assignment, flag) for assignment in assignments)
    return {found.key: found.value for found in read}
