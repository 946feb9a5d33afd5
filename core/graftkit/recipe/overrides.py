"""Puts `--set key=value` into a document."""

from __future__ import annotations

from typing import Any

from graftkit.errors import RecipeError
from graftkit.recipe.document import Document, KeyPath, parse_value
from graftkit.redact import without_secret_assignment

__all__ = ["apply_overrides"]

_SHORT_FORMS = {"model": "path", "adapter": "use", "quantizer": "use"}
"""Sections that may be one word, and the field that this word stands for."""


def apply_overrides(document: Document, assignments: list[str]) -> None:
    """Changes the document's data.

    Args:
        document: What the file holds.
        assignments: Each "section.key=value", the value as YAML writes it.

    Raises:
        RecipeError: An assignment has another form, or its key lies below something that is no section.
    """
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        where = f"--set {without_secret_assignment(assignment)}"
        if not equals or not key.strip():
            raise RecipeError("the form is KEY=VALUE", where=where, hint="For example: --set training.epochs=3")
        path: KeyPath = tuple(part.strip() for part in key.split("."))
        _assign(document, path, parse_value(text, where), where)
        document.origins = {k: v for k, v in document.origins.items() if k[: len(path)] != path}
        document.origins[path] = where


def _assign(document: Document, path: KeyPath, value: Any, where: str) -> None:
    section = document.data
    for depth, part in enumerate(path[:-1]):
        name = str(part)
        inner = section.get(name)
        if depth == 0 and isinstance(inner, str) and name in _SHORT_FORMS:
            inner = {_SHORT_FORMS[name]: inner}
        if inner is None:
            inner = {}
            document.origins[path[: depth + 1]] = where
        if not isinstance(inner, dict):
            raise RecipeError(f"'{name}' is no section", where=where)
        section[name] = inner
        section = inner
    section[str(path[-1])] = value
