"""A recipe that is being made of another program's settings."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeGuard

from graftkit.errors import RecipeError

__all__ = ["Draft", "Program", "is_count", "is_number", "program_of", "split_at_commas", "take_split"]

Program = Literal["Axolotl", "LLaMA-Factory", "TRL", "mlx-lm", "ms-swift"]


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
    _renamed: dict[str, str] = field(default_factory=dict)

    def rename(self, name: str, other: str) -> None:
        """Gives a key, if it is there, another program's name; errors and what is left spell it as the file does."""
        if name in self.settings:
            self.give(other, self.settings.pop(name), name)

    def give(self, name: str, value: Any, spelt: str) -> None:
        """Says a key of another program's, which stands for one that the file spells so; its own one is left."""
        self.leave(name, self.settings.pop(name, None), f"{spelt} says it")
        self.settings[name] = value
        self._renamed[name] = spelt

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
        others = [name for name, value in said.items() if value != said[first]]
        self.left |= {self._renamed.get(name, name): f"{self.spelt(first)} says something else" for name in others}
        return said[first]

    def is_off(self, *names: str) -> bool:
        """Returns whether one of some keys, each on where nothing is said, is off; `take` takes it for unsaid."""
        return any(self.settings.get(name) is False for name in names)

    def spelt(self, name: str) -> str:
        """Returns as the file spells it a key that has been taken."""
        spelt = self._spelt.get(name, name)
        return self._renamed.get(spelt, spelt)

    def count(self, *names: str) -> int | None:
        """Takes keys of one meaning that count something; returns the first that says something, or None.

        Raises:
            RecipeError: It is no whole number from 1 to a billion.
        """
        value = self.take(*names)
        if value is None:
            return None
        if not is_count(value) or value > 10**9:
            raise RecipeError(f"{self.spelt(names[0])} is no whole number from 1 to a billion")
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


_KEYS_BESIDE_MODEL: Mapping[Program, frozenset[str]] = {
    "mlx-lm": frozenset({"fine_tune_type", "lora_parameters", "iters", "lora_layers", "steps_per_eval", "hf_dataset"}),
    "ms-swift": frozenset({"train_type", "tuner_type", "dataset", "rlhf_type", "quant_bits", "split_dataset_ratio"}),
}
"""By which keys beside `model` programs are told, the first that has one."""


def program_of(settings: Mapping[str, Any]) -> Program | None:
    """Returns whose settings these are; None where they are none of a program that is known."""
    if "base_model" in settings:
        return "Axolotl"
    for program, keys in _KEYS_BESIDE_MODEL.items():
        if isinstance(settings.get("model"), str) and not keys.isdisjoint(settings):
            return program
    if "model_name_or_path" in settings:
        own = {"stage", "finetuning_type", "cutoff_len", "template", "dataset_dir", "lora_target"}
        return "LLaMA-Factory" if own & settings.keys() else "TRL"
    return None


def take_split(draft: Draft, entry: dict[str, Any], split: object, name: str) -> None:
    """Converts a split, or the first records of one, as `datasets` names them: `train[:1000]`.

    Args:
        draft: The settings.
        entry: The data set as the recipe has it, which is given what the split says.
        split: The split; None where nothing is said.
        name: What its key is called in the file.
    """
    found = re.fullmatch(r"([\w.-]+)(?:\[:([1-9]\d{0,8})\])?", split) if isinstance(split, str) else None
    if not found:
        draft.leave(name, split, "of a part of a split only its first records can be named, {path: FILE, first: 1000}")
        return
    if found[1] != "train":
        entry["split"] = found[1]
    if found[2]:
        entry["first"] = int(found[2])
