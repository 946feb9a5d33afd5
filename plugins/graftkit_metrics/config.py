"""The metrics' own recipe fields."""

from __future__ import annotations

import re
from typing import Literal

from graftkit import ProviderConfig
from graftkit.interfaces.patterns import repeats_nest
from pydantic import Field, field_validator

__all__ = ["ContainsConfig", "RegexConfig", "TextConfig"]


class TextConfig(ProviderConfig):
    """How texts are compared."""

    ignore_case: bool = Field(default=False, description="whether letters are the same in upper and lower case")


class ContainsConfig(TextConfig):
    """What an answer contains."""

    text: str | None = Field(
        default=None, min_length=1, description="what is looked for; the expected answer when left out"
    )


class RegexConfig(TextConfig):
    """What is looked for in an answer."""

    pattern: str = Field(min_length=1, max_length=10_000, description="a regular expression, in Python's syntax")
    match: Literal["anywhere", "whole", "same"] = Field(
        default="anywhere",
        description="anywhere: it matches somewhere in the answer; whole: all of the answer but white space around it; "
        "same: what it finds first, or its first group there, is the same in the answer and the expected one",
    )

    @field_validator("pattern")
    @classmethod
    def _usable(cls, pattern: str) -> str:
        try:
            re.compile(pattern)
        except (re.error, RecursionError, OverflowError) as error:
            raise ValueError(f"pattern: no regular expression: {error}") from None
        if repeats_nest(pattern):
            raise ValueError(
                "pattern: a repeat within a repeat may take forever: write it without, such as a+ for (a+)+"
            )
        return pattern
