"""Fills in, where a recipe is silent, what the preset of its adapter says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from pydantic import ValidationError

from graftkit.errors import PluginError
from graftkit.host.records import RegisteredProvider
from graftkit.recipe.document import Document
from graftkit.recipe.load import as_recipe_error
from graftkit.recipe.schema.recipe import ALTERNATIVES, Recipe

__all__ = ["Preset"]

_SETTLED = ("model", "adapter", "proof", "plugins")
"""Keys that have been read when an adapter's preset is, or that a recipe must say itself."""


class Preset:
    """The preset of an adapter.

    Args:
        registered: The adapter and its plugin.
        sections: What it says, by section of the recipe.

    Raises:
        PluginError: It names a section that no preset can fill.
    """

    def __init__(self, registered: RegisteredProvider, sections: Mapping[str, Any]) -> None:
        self._where = f"{registered.plugin.label}, preset of '{registered.provider.name}'"
        self._sections = sections
        fillable = [name for name in Recipe.model_fields if name not in _SETTLED]
        for section in sections:
            if section not in fillable:
                raise PluginError(
                    f"a preset can't fill the section '{section}' of a recipe",
                    where=self._where,
                    hint=f"These it can: {', '.join(fillable)}.",
                )

    def fill(self, recipe: Recipe, document: Document) -> tuple[Recipe, Document]:
        """Returns the recipe with what it was silent on, and where each key of it was said.

        A section is filled key by key; one that names a provider, and a list, as a whole.

        Raises:
            PluginError: The recipe does not hold with what the preset says.
        """
        data = recipe.model_dump(exclude_unset=True)
        origins = dict(document.origins)
        for path, value in self._silent(data):
            at = data if len(path) == 1 else data[path[0]]
            at[path[-1]] = value
            origins[path] = self._place(path[0])
        filled = replace(document, data=data, origins=origins)
        try:
            return Recipe.model_validate(data), filled
        except ValidationError as error:
            told = as_recipe_error(error, Recipe, filled)
            sections = {str(problem["loc"][0]) for problem in error.errors() if problem["loc"]} or self._sections
            hint = told.hint or "Say it in the recipe itself: a preset fills in only what that is silent on."
            raise PluginError(told.message, where=self._place(*sections), hint=hint) from None

    def _silent(self, data: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], Any]]:
        """Yields what the preset says and the recipe does not: whole sections, and keys of those that it begins."""
        for section, value in self._sections.items():
            said = data.get(section)
            if said is None:
                yield (section,), dict(value) if isinstance(value, Mapping) else value
            elif isinstance(said, dict) and isinstance(value, Mapping) and "use" not in said:
                spoken = {key for key, found in said.items() if found is not None}
                spoken |= {key for keys in ALTERNATIVES.values() if keys & spoken for key in keys}
                yield from (((section, key), found) for key, found in value.items() if key not in spoken)

    def _place(self, *sections: str) -> str:
        return f"{self._where}: {' and '.join(sorted(sections))}"

    def blames(self, where: str) -> bool:
        """Tells whether an error's place is in the preset."""
        return where.startswith(f"{self._where}: ")
