"""The adapters' own recipe fields."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import sqrt
from typing import Annotated, Any, ClassVar

from graftkit import LayerInfo, ProviderConfig
from pydantic import AfterValidator, Field

__all__ = ["LoraConfig", "QloraConfig"]


def _end_of_path(pattern: str) -> str:
    """Returns the expression that PEFT makes of a pattern: it matches a path whose end, from a dot on, it describes."""
    return rf"(.*\.)?({pattern})$"


def _compiles(pattern: str) -> str:
    try:
        re.compile(_end_of_path(pattern))
    except re.error as error:
        raise ValueError(f"'{pattern}' is no regular expression: {error}") from None
    return pattern


Pattern = Annotated[str, AfterValidator(_compiles)]
"""A regular expression for the end of a layer's path, from a dot on, as PEFT reads it."""


class LoraConfig(ProviderConfig):
    """How large a low-rank update is, and how it is scaled."""

    rank: int = Field(default=16, ge=1, le=4096, description="the rank of the update")
    alpha: float = Field(default=32.0, gt=0, description="the update is scaled by alpha / rank")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="share of a layer's inputs to the update left out")
    rslora: bool = Field(default=False, description="scale by alpha / sqrt(rank) instead, as rsLoRA does")
    rank_pattern: dict[Pattern, Annotated[int, Field(ge=1, le=4096)]] = Field(
        default={},
        description="other ranks: a regular expression for the end of a layer's path -> rank; the first holds",
    )
    alpha_pattern: dict[Pattern, Annotated[float, Field(gt=0)]] = Field(
        default={}, description="other alphas, likewise"
    )
    lora_plus_ratio: float = Field(
        default=1.0, gt=0, le=1000, description="the rate of B is that of A times this, as in LoRA+"
    )

    def rank_of(self, layer: LayerInfo) -> int:
        """Returns the rank of a layer's update."""
        pattern = _pattern_of(_named(layer), self.rank_pattern)
        return self.rank if pattern is None else self.rank_pattern[pattern]

    def scale_of(self, layer: LayerInfo) -> float:
        """Returns what a layer's update `B A` is multiplied by."""
        pattern, rank = _pattern_of(_named(layer), self.alpha_pattern), self.rank_of(layer)
        alpha = self.alpha if pattern is None else self.alpha_pattern[pattern]
        return alpha / (sqrt(rank) if self.rslora else rank)

    def idle_patterns(self, paths: Sequence[str]) -> Iterator[tuple[str, str]]:
        """Yields each pattern that holds for no adapted layer."""
        for field in ("rank_pattern", "alpha_pattern"):
            patterns = getattr(self, field)
            holding = {_pattern_of(path, patterns) for path in paths}
            yield from ((field, pattern) for pattern in patterns if pattern not in holding)

    def trainable_parameters(self, layer: LayerInfo) -> int:
        """Returns the size of `A [rank, in]` and `B [out, rank]`."""
        return self.rank_of(layer) * (layer.in_features + layer.out_features)


class QloraConfig(LoraConfig):
    """LoRA on NF4 weights whose scales are quantized too, unless the recipe names a quantizer."""

    preset: ClassVar[Mapping[str, Any]] = {"quantizer": {"use": "nf4", "double_quant": True}}


def _named(layer: LayerInfo) -> str:
    """Returns the path that patterns are compared with: an expert's is its stack's, which has no number at its end."""
    return layer.path.rpartition(".")[0] if layer.kind == "experts" else layer.path


def _pattern_of(path: str, patterns: Iterable[str]) -> str | None:
    """Returns the first pattern that matches a layer's path, or None."""
    return next((pattern for pattern in patterns if re.match(_end_of_path(pattern), path)), None)
