"""The exporters' own recipe fields."""

from __future__ import annotations

from typing import Literal, Self

from graftkit import ProviderConfig
from pydantic import Field, model_validator

__all__ = ["GgufConfig", "GgufLoraConfig", "GgufType", "MatrixType"]

MatrixType = Literal["f32", "f16", "bf16", "q8_0", "q6_k", "q5_k", "q5_1", "q5_0", "q4_k", "q4_1", "q4_0"]
"""The types that a matrix may be stored in, finest first."""

GgufType = Literal["f32", "f16", "bf16", "q8_0", "q6_k", "q5_k_m", "q5_1", "q5_0", "q4_k_m", "q4_1", "q4_0", "base"]


class GgufConfig(ProviderConfig):
    """How a model is stored in a GGUF file."""

    type: GgufType = Field(
        default="q8_0",
        description="how matrices are stored; vectors, such as norms, stay in float32. q4_k_m and q5_k_m are mixtures "
        "of llama.cpp's; types with a k need graftkit[llamacpp]. base: each as the base model's own GGUF file has it, "
        "bit for bit where nothing was trained",
    )
    changed: MatrixType | Literal["base"] | None = Field(
        default=None,
        description="with `type: base`, how matrices are stored that the adapter changed; left out: q8_0 where the "
        "base's file has them in fewer bits, else as it has them. base: as it has them, which may take back changes "
        "smaller than half a step between its levels",
    )
    embeddings: MatrixType | None = Field(
        default=None, description="how the embedding is stored, where not as `type` says"
    )
    output: MatrixType | None = Field(
        default=None,
        description="how the output layer is stored, and an embedding that is it, too; left out: q8_0 with the types "
        "from q4_0 to q5_1, q6_k with those with a k",
    )

    @model_validator(mode="after")
    def _of_base(self) -> Self:
        if self.changed is not None and self.type != "base":
            raise ValueError(f"changed is of type: base, and the type is {self.type}")
        return self


class GgufLoraConfig(ProviderConfig):
    """How an adapter is stored in a GGUF file."""

    type: Literal["f32", "f16"] = Field(default="f32", description="f32 keeps what was trained; f16 halves the size")
