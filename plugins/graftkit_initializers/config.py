"""The initializers' own recipe fields."""

from __future__ import annotations

from typing import Literal

from graftkit import ProviderConfig
from pydantic import Field

__all__ = ["FocusConfig", "RandomConfig", "WeightedConfig"]


class WeightedConfig(ProviderConfig):
    """How the weight of a token's parts falls from one end."""

    ratio: float = Field(default=0.5, gt=0, le=1, description="what a part weighs of its neighbour nearer that end")
    end: Literal["auto", "first", "last", "both"] = Field(
        default="auto",
        description="the part that weighs most; auto is last for the input matrix, first for the output, both for one that is tied",  # noqa: E501
    )


class FocusConfig(ProviderConfig):
    """How it is learnt from the corpus which tokens are used alike."""

    corpus_tokens: int = Field(
        default=1_000_000, ge=1, le=1_000_000_000, description="tokens of the corpus to look at, at most"
    )
    window: int = Field(
        default=5, ge=1, le=100, description="how far apart two tokens may stand to count as neighbours"
    )
    dimensions: int = Field(default=128, ge=1, le=1024, description="numbers that describe a token's neighbourhood")
    min_count: int = Field(
        default=5, ge=1, le=1_000_000_000, description="a token that occurs less often starts as the mean of its parts"
    )


class RandomConfig(ProviderConfig):
    """Which noise it is."""

    seed: int = Field(default=0, ge=0, lt=2**31, description="another seed gives other noise")
