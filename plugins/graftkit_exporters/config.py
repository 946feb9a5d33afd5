"""The exporters' own recipe fields."""

from __future__ import annotations

from typing import Literal

from graftkit import ProviderConfig
from pydantic import Field

__all__ = ["FolderConfig", "MergedConfig"]


class FolderConfig(ProviderConfig):
    """How a whole model is stored."""

    dtype: Literal["float32", "bfloat16", "float16"] = Field(
        default="float32", description="float32 keeps what was trained; the others halve the size and round"
    )
    shard_gigabytes: float = Field(default=5.0, gt=0, le=1e6, description="size of a weights file at most")


class MergedConfig(FolderConfig):
    """How a merged model is stored, and what the adapter is merged onto."""

    onto: Literal["auto", "dequantized", "original", "requantized"] = Field(
        default="dequantized",
        description="dequantized: the base as it was trained on; original: its own 16-bit weights; requantized: "
        "quantized again once merged; auto: measured on holdout records, the best is taken",
    )
