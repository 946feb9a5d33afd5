"""The exporters' own recipe fields."""

from __future__ import annotations

from typing import Literal

from graftkit.exporting.config import FolderConfig
from pydantic import Field

__all__ = ["MergedConfig"]


class MergedConfig(FolderConfig):
    """How a merged model is stored, and what the adapter is merged onto."""

    onto: Literal["auto", "dequantized", "original", "requantized"] = Field(
        default="dequantized",
        description="dequantized: the base as it was trained on; original: its own 16-bit weights; requantized: "
        "quantized again once merged; auto: measured on holdout records, the best is taken",
    )
