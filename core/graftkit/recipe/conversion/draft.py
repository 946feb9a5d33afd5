"""A recipe that is being made of another program's settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeGuard

from graftkit.errors import RecipeError

__all__ = ["Draft", "Program", "is_count", "is_number", "program_of", "split_at_commas"]

Program = Literal["Axolotl", "LLaMA-Factory", "TRL"]


def _says_nothing(value: object) -> bool:
    """Returns whether a key might as well not be there; a number always says something."""
    return value is None or value is False or value in ("", "none", "no") or value == [] or value == {}


def is_count(value: object) -> bool:
    """Returns whether a value is a whole number above zero."""
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def is_number(value: object) -> TypeGuard[int | float]:
    """Returns whether a value is a number."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def split_at_commas(text: str) -> list[str]:
    """Returns the parts of a list that is written as one text.

    Example:
        >>> split_at_commas("q_proj , v_proj")
        ['q_proj', 'v_proj']
    """
    return [part.strip() for part in text.split(",")]


@dataclass(slots=True)
class Draft:
    """A recipe that is being made of another program's settings.

    Attributes:
        program: Whose they are.
        settings: Those that have not been taken yet.
        recipe: The recipe so far.
        told: As in `Conversion`.
        left: As in `Conversion`.
        examples_per_step: As in `Conversion`.
        an_epoch: As in `Conversion`.
    """

    program: Program
    settings: dict[str, Any]
    recipe: dict[str, Any] = field(default_factory=dict)
    told: list[str] = field(default_factory=list)
    left: dict[str, str] = field(default_factory=dict)
    examples_per_step: int | None = None
    an_epoch: dict[str, tuple[str, int]] = field(default_factory=dict)
    _spelt: dict[str, str] = field(default_factory=dict)

    def take(self, *names: str) -> Any:
        """Takes keys of one meaning out of the settings; returns what the first says that says something, or None.

        Another that says something else is named among those that are left.
        """
        found = {name: self.settings.pop(name) for name in names if name in self.settings}
        said = {name: value for name, value in found.items() if not _says_nothing(value)}
        first = next(iter(said), None)
        if first is None:
            return None
        self._spelt |= dict.fromkeys(names, first)
        self.left |= {name: f"{first} says something else" for name, value in said.items() if value != said[first]}
        return said[first]

    def is_off(self, *names: str) -> bool:
        """Returns whether one of some keys, each on where nothing is said, is off; `take` takes it for unsaid."""
        return any(self.settings.get(name) is False for name in names)

    def spelt(self, name: str) -> str:
        """Returns as the file spells it a key that has been taken."""
        return self._spelt.get(name, name)

    def count(self, *names: str) -> int | None:
        """Takes keys of one meaning that count something; returns the first that says something, or None.

        Raises:
            RecipeError: It is no whole number from 1 to a billion.
        """
        value = self.take(*names)
        if value is None:
            return None
        if not is_count(value) or value > 10**9:
            raise RecipeError(f"{self._spelt[names[0]]} is no whole number from 1 to a billion")
        return int(value)

    def put(self, path: str, value: Any) -> None:
        """Says a key of the recipe, its sections separated by dots."""
        *sections, key = path.split(".")
        here = self.recipe
        for section in sections:
            here = here.setdefault(section, {})
        here[key] = value

    def leave(self, name: str, value: Any, why: str) -> None:
        """Names a key that is not converted as the file spells it, unless it says nothing, or zero."""
        if value != 0 and not _says_nothing(value):
            self.left[self.spelt(name)] = why


def program_of(settings: Mapping[str, Any]) -> Program:
    """Returns whose settings these are.

    Raises:
        RecipeError: They are none of a program that is known.
    """
    if "base_model" in settings:
        return "Axolotl"
    if "model_name_or_path" in settings:
        own = {"stage", "finetuning_type", "cutoff_len", "template", "dataset_dir", "lora_target"}
        return "LLaMA-Factory" if own & settings.keys() else "TRL"
    raise RecipeError(
        "these are no settings of Axolotl (base_model), LLaMA-Factory or TRL (model_name_or_path)",
        hint="toolkit init --model MODEL --train FILE writes a recipe from a model and records.",
    )
