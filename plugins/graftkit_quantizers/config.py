"""The quantizers' own recipe fields."""

from __future__ import annotations

from typing import Literal

from graftkit import ProviderConfig
from pydantic import Field

__all__ = ["Nf4Config"]


class Nf4Config(ProviderConfig):
    """How NF4 stores a weight."""

    blocksize: Literal[32, 64, 128, 256, 512, 1024, 2048, 4096] = Field(
        default=64, description="weights that share one scale"
    )
    double_quant: bool = Field(
        default=False, description="store the scales in 8 bits too: 0.37 bits a weight less at a block of 64"
    )
