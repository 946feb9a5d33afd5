"""The exporters' own recipe fields."""

from __future__ import annotations

from typing import Literal

from graftkit import ProviderConfig
from pydantic import Field

__all__ = ["GgufConfig", "GgufLoraConfig", "GgufType"]

GgufType = Literal["f32", "f16", "bf16", "q8_0"]


class GgufConfig(ProviderConfig):
    """How a model is stored in a GGUF file."""

    type: GgufType = Field(
        default="q8_0", description="how matrices are stored; vectors, such as norms, stay in float32"
    )


class GgufLoraConfig(ProviderConfig):
    """How an adapter is stored in a GGUF file."""

    type: Literal["f32", "f16"] = Field(default="f32", description="f32 keeps what was trained; f16 halves the size")
