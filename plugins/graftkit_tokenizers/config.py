"""The tokenizer backends' own recipe fields."""

from __future__ import annotations

from typing import Literal

from graftkit import ProviderConfig
from pydantic import Field

__all__ = ["BpeConfig", "ByteLevelConfig", "CharacterConfig", "WordConfig", "WordPieceConfig"]


class ByteLevelConfig(ProviderConfig):
    """How text is split, and how frequent pairs must be."""

    pattern: str | None = Field(
        default=None,
        min_length=1,
        description=(
            "how text is split before merging: gpt2, cl100k, llama3, qwen2, o200k, whitespace, or a regular "
            "expression. Left out: gpt2 for a new tokenizer, what the files say for one that is loaded"
        ),
    )
    min_frequency: int = Field(
        default=2, ge=1, le=1_000_000_000, description="how often a pair must occur to become a token"
    )


class BpeConfig(ProviderConfig):
    """How text is split, and how frequent characters and pairs must be."""

    split: Literal["words", "spaces"] = Field(
        default="words",
        description="how text is split: into words, numbers and marks, or at spaces alone",
    )
    min_frequency: int = Field(
        default=2, ge=1, le=1_000_000_000, description="how often a pair must occur to become a token"
    )
    coverage: float = Field(
        default=0.9995, gt=0, le=1, description="share of the texts' characters to get tokens; the others become bytes"
    )


class CharacterConfig(ProviderConfig):
    """How frequent a character must be."""

    min_frequency: int = Field(
        default=1, ge=1, le=1_000_000_000, description="how often a character must occur to become a token"
    )


class WordConfig(ProviderConfig):
    """How text is split into words, and how frequent a word must be."""

    split: Literal["words", "spaces"] = Field(
        default="words", description="words and marks apart, or the text between spaces"
    )
    lowercase: bool = Field(default=False, description="whether capitals become small letters")
    min_frequency: int = Field(
        default=2, ge=1, le=1_000_000_000, description="how often a word must occur to become a token"
    )


class WordPieceConfig(ProviderConfig):
    """BERT's normalization, and how frequent pairs and characters must be."""

    lowercase: bool | None = Field(
        default=None,
        description=(
            "whether capitals become small letters and accents go. "
            "Left out: yes for a new tokenizer, what tokenizer_config.json says (or else yes) for one that is loaded"
        ),
    )
    min_frequency: int = Field(
        default=2, ge=1, le=1_000_000_000, description="how often a pair must occur to become a token"
    )
    coverage: float = Field(
        default=1.0, gt=0, le=1, description="share of the texts' characters to get tokens; the others are unknown"
    )
