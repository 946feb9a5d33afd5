"""The metrics' own recipe fields."""

from __future__ import annotations

import re
import warnings
from typing import Literal, Self

from graftkit import MetricConfig
from graftkit.interfaces.pattern_cost import PatternError, python_steps_at_most
from pydantic import Field, field_validator, model_validator

__all__ = ["ContainsConfig", "JsonValidConfig", "RegexConfig", "TextConfig"]

_CHARACTERS = 2000
"""Characters of the answer for which a pattern is judged."""
_MOST_STEPS = 2e8
"""Steps that it may take for such an answer: a few seconds' worth."""


class TextConfig(MetricConfig):
    """How texts are compared."""

    ignore_case: bool = Field(default=False, description="whether letters are the same in upper and lower case")


class ContainsConfig(TextConfig):
    """What an answer contains."""

    text: str | None = Field(
        default=None, min_length=1, description="what is looked for; the expected answer when left out"
    )

    @property
    def needs_expected(self) -> bool:
        """Where no text is given."""
        return self.text is None


class JsonValidConfig(MetricConfig):
    """Whether an answer is JSON depends on no other one."""

    @property
    def needs_expected(self) -> bool:
        """Not at all."""
        return False


class RegexConfig(TextConfig):
    """What is looked for in an answer."""

    pattern: str = Field(min_length=1, max_length=10_000, description="a regular expression, in Python's syntax")
    match: Literal["anywhere", "whole", "same"] = Field(
        default="anywhere",
        description="anywhere: it matches somewhere in the answer; whole: all of the answer but white space around it; "
        "same: what it finds first, or its first group there, is the same in the answer and the expected one",
    )

    @property
    def needs_expected(self) -> bool:
        """Where both must have the same."""
        return self.match == "same"

    @field_validator("pattern")
    @classmethod
    def _is_one(cls, pattern: str) -> str:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", FutureWarning)  # what a class in a class is going to mean
                re.compile(pattern)
        except (re.error, RecursionError, OverflowError, FutureWarning) as error:
            raise ValueError(f"pattern: no regular expression: {error}") from None
        return pattern

    @model_validator(mode="after")
    def _is_quick(self) -> Self:
        """Refuses a pattern that could take forever: nothing stops Python while it searches."""
        whole = self.match == "whole"
        try:
            steps = python_steps_at_most(self.pattern, _CHARACTERS, ignore_case=self.ignore_case, whole=whole)
        except PatternError as error:
            raise ValueError(f"pattern: it may take forever, since {error}") from None
        if steps > _MOST_STEPS:
            raise ValueError(
                "pattern: it may take forever, since it can match one text in very many ways, such as by repeats that "
                r"overlap: write a+ for (a+)+, \s*\w for \s*.*\w, and (\d+)\D*$ for the last number"
            )
        return self
