"""The sections of a recipe that choose a provider, as the table of kinds and the schema describe them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args, get_origin

from pydantic import BaseModel

from graftkit.interfaces.kinds import KINDS, Kind, Section

__all__ = ["chosen_by_name", "chosen_by_reference", "is_listed", "model_of"]


def chosen_by_name() -> Iterator[tuple[Kind, Section]]:
    """Yields every section that names a provider, with the kind of provider."""
    for kind, spec in KINDS.items():
        yield from ((kind, section) for section in spec.sections if section.short_form != "path")


def chosen_by_reference() -> Iterator[Section]:
    """Yields every section that names a reference, whose provider is found by asking each of its kind."""
    for spec in KINDS.values():
        yield from (section for section in spec.sections if section.short_form == "path")


def model_of(recipe: type[BaseModel], path: tuple[str, ...]) -> type[BaseModel]:
    """Returns the schema of a section; of a list, that of an entry.

    Args:
        recipe: The schema of recipes.
        path: The section's keys.

    Raises:
        KeyError: The schema has no such section.
    """
    found = recipe
    for key in path:
        found = next(_models_in(found.model_fields[key].annotation))
    return found


def is_listed(recipe: type[BaseModel], path: tuple[str, ...]) -> bool:
    """Tells whether a recipe may choose several providers in a section: it is a list, or lies in the entries of one."""
    above = (model_of(recipe, path[:depth]) if depth else recipe for depth in range(len(path)))
    return any(_has_list(model.model_fields[key].annotation) for model, key in zip(above, path, strict=True))


def _has_list(annotation: Any) -> bool:
    return get_origin(annotation) is list or any(map(_has_list, get_args(annotation)))


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)
