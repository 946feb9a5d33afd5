"""The adapters' own recipe fields."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from graftkit import ProviderConfig
from pydantic import Field

__all__ = ["LoraConfig", "QloraConfig"]


class LoraConfig(ProviderConfig):
    """How large a low-rank update is, and how it is scaled."""

    rank: int = Field(default=16, ge=1, le=4096, description="the rank of the update")
    alpha: float = Field(default=32.0, gt=0, description="the update is scaled by alpha / rank")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="share of a layer's inputs to the update left out")


class QloraConfig(LoraConfig):
    """LoRA on NF4 weights whose scales are quantized too, unless the recipe names a quantizer."""

    preset: ClassVar[Mapping[str, Any]] = {"quantizer": {"use": "nf4", "double_quant": True}}
