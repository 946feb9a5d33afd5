"""The exporter's own recipe fields."""

from __future__ import annotations

from typing import Literal, Self

from graftkit import ProviderConfig
from pydantic import Field, model_validator

__all__ = ["GROUP_SIZE", "MlxConfig"]

GROUP_SIZE = 64
"""Numbers of a row that share a scale, unless the recipe says otherwise; mlx-lm's own default."""


class MlxConfig(ProviderConfig):
    """How a model is stored for mlx-lm."""

    bits: Literal[2, 3, 4, 5, 6, 8] | None = Field(
        default=8,
        description="bits of each number of a matrix, embeddings among them; null: none is quantized. What an adapter "
        "changed may be less than a step of 4 bits",
    )
    group_size: Literal[32, 64, 128] | None = Field(
        default=None, description=f"numbers of a row that share a scale and an offset; left out: {GROUP_SIZE}"
    )
    dtype: Literal["bfloat16", "float16", "float32"] = Field(
        default="bfloat16", description="how scales, and what is not quantized, are stored; mlx-lm computes in it, too"
    )
    shard_gigabytes: float = Field(
        default=5.0, gt=0, le=1e6, description="size of a weights file at most, where nothing is quantized"
    )

    @model_validator(mode="after")
    def _of_groups(self) -> Self:
        if self.bits is None and self.group_size is not None:
            raise ValueError("group_size is of quantized matrices, and bits is null")
        return self
