"""A recipe that is being made of another program's settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from graftkit.errors import RecipeError

__all__ = ["Draft", "Program", "program_of"]

Program = Literal["Axolotl", "LLaMA-Factory", "TRL"]


def _says_nothing(value: object) -> bool:
    """Returns whether a key might as well not be there; a number always says something."""
    return value is None or value is False or value in ("", "none", "no") or value == [] or value == {}


@dataclass(slots=True)
class Draft:
    """A recipe that is being made of another program's settings."""

    program: Program
    settings: dict[str, Any]
    recipe: dict[str, Any] = field(default_factory=dict)
    told: list[str] = field(default_factory=list)
    left: dict[str, str] = field(default_factory=dict)
    examples_per_step: int | None = None

    def take(self, *names: str) -> Any:
        """Takes keys out of the settings; returns the first that says something, or None."""
        said = [self.settings.pop(name) for name in names if name in self.settings]
        return next((value for value in said if not _says_nothing(value)), None)

    def count(self, *names: str) -> int | None:
        """Takes keys that count something; returns the first that says a number, or None.

        Raises:
            RecipeError: It is no whole number from 1 to a billion.
        """
        said = [(name, value) for name in names if (value := self.take(name)) is not None]
        for name, value in said[:1]:
            if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= 10**9:
                raise RecipeError(f"{name} is no whole number from 1 to a billion")
            return value
        return None

    def put(self, path: str, value: Any) -> None:
        """Says a key of the recipe, its sections separated by dots."""
        *sections, key = path.split(".")
        here = self.recipe
        for section in sections:
            here = here.setdefault(section, {})
        here[key] = value

    def leave(self, name: str, value: Any, why: str) -> None:
        """Names a key that is not converted, unless it says nothing, or zero."""
        if value != 0 and not _says_nothing(value):
            self.left[name] = why


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
