"""Says which type each tensor of a GGUF file is stored in, as llama.cpp's users expect it.

Source: `llama_tensor_get_type` in `llama-quant.cpp` of llama.cpp, without what it knows of single large models.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from graftkit_gguf.parts import EMBEDDING, OUTPUT
from graftkit_gguf.pooling import DENSE, SCORES
from graftkit_gguf.quantize import GGML_TYPES_BY_NAME, NEEDS_GGML

__all__ = ["FILE_TYPE_KEYS", "StoredTypes", "file_type"]

_MIXTURES = {"q4_k_m": "q4_k", "q5_k_m": "q5_k"}
"""A mixture of types, and that of most of its matrices."""

_IN_PLACE_OF = {"q4_k": "q5_0", "q5_k": "q5_1", "q6_k": "q8_0"}
"""What rows that are no multiple of a K type's 256 are stored in; of any other block's 32, float16."""

_WRITTEN = frozenset({"f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", *NEEDS_GGML})

_SMALL = ("position_embd.weight", "token_types.weight")
"""Embeddings of an encoder that llama.cpp never rounds."""
_FINER_IN_SOME = ("attn_v.weight", "ffn_down.weight", "ffn_down_exps.weight")
_LAYER = re.compile(r"blk\.(\d+)\.(.+)")


FILE_TYPE_KEYS = ("general.file_type", "general.quantization_version")
"""By which programs call the whole of a file, as Ollama's list of models does."""
_FILE_TYPES = {
    **{"f32": 0, "f16": 1, "q4_0": 2, "q4_1": 3, "q8_0": 7, "q5_0": 8, "q5_1": 9},
    **{"q4_k_m": 15, "q5_k_m": 17, "q6_k": 18, "bf16": 32},
}
"""llama.cpp's `llama_ftype` of each type."""
_QUANTIZATION_VERSION = 2
"""ggml's GGML_QNT_VERSION: of the layout of blocks."""


def file_type(type_: str, of_base: Mapping[str, Any]) -> dict[str, int]:
    """Returns the keys by which programs call a file's type.

    Args:
        type_: What the recipe calls it.
        of_base: The metadata of the base model's own file, whose type is called so with `base`.
    """
    if type_ != "base":
        return dict(zip(FILE_TYPE_KEYS, (_FILE_TYPES[type_], _QUANTIZATION_VERSION), strict=True))
    return {key: of_base[key] for key in FILE_TYPE_KEYS if isinstance(of_base.get(key), int)}


@dataclass(frozen=True)
class StoredTypes:
    """Which type each tensor of a file is stored in.

    Vectors stay in float32, and so does what chooses experts, makes the scores of a classifier, or embeds positions.

    Attributes:
        type: What the recipe calls it: a type in lower case, or the mixture q4_k_m or q5_k_m.
        embeddings: The type of the embedding, where the recipe names one.
        output: The type of the output layer, and of an embedding that is it, too, likewise.
        layers: How many layers the model has.
        ties: Whether the embedding is the output layer, too.
        of_base: The types that the base model's own file has, by the tensors' names there: they come before all others.
    """

    type: str
    embeddings: str | None = None
    output: str | None = None
    layers: int = 0
    ties: bool = False
    of_base: Mapping[str, str] = field(default_factory=dict)

    def type_of(self, name: str, shape: tuple[int, ...]) -> str:
        """Returns the type that a tensor is stored in.

        Args:
            name: The tensor's name in the file.
            shape: The tensor's shape, `[out, in]`, `[size]` or `[experts, out, in]`.
        """
        return self._fitting(self._wanted(name, shape), shape)

    def notices(self, shapes: Iterable[tuple[str, tuple[int, ...]]]) -> Iterator[str]:
        """Says how many matrices have rows that do not divide into their type's blocks, or are of a type not written.

        Args:
            shapes: The name and shape of every tensor.
        """
        listed = list(shapes)
        found = Counter(
            (wanted, shape[-1], self._fitting(wanted, shape))
            for name, shape in listed
            if self._fitting(wanted := self._wanted(name, shape), shape) != wanted
        )
        foreign = Counter(
            (self.of_base[name], self.type_of(name, shape))
            for name, shape in listed
            if len(shape) > 1 and self.of_base.get(name, self.type) not in {*_WRITTEN, *_MIXTURES}
        )
        for (type_, instead), count in sorted(foreign.items()):
            yield (
                f"{count:,} {'matrix is' if count == 1 else 'matrices are'} {type_} in the base model's file, which is "
                f"not written: where something changed they are stored as {instead}"
            )
        for (wanted, width, type_), count in sorted(found.items()):
            yield (
                f"{count:,} {'matrix has' if count == 1 else 'matrices have'} rows of {width:,}, no multiple of the "
                f"{GGML_TYPES_BY_NAME[wanted].block} of {wanted}, and {'is' if count == 1 else 'are'} stored as {type_}"
            )

    def needs_ggml(self, shapes: Iterable[tuple[str, tuple[int, ...]]]) -> list[str]:
        """Returns the types that ggml's own code is needed for.

        Args:
            shapes: The name and shape of every tensor.
        """
        return sorted(NEEDS_GGML & {self.type_of(name, shape) for name, shape in shapes})

    def _wanted(self, name: str, shape: tuple[int, ...]) -> str:
        if len(shape) < 2 or ".ffn_gate_inp" in name or name in (SCORES, DENSE, *_SMALL):
            return "f32"
        if self.of_base.get(name) in _WRITTEN:
            return self.of_base[name]
        if name == OUTPUT or (name == EMBEDDING and self.ties):
            given = self.output or (self.embeddings if name == EMBEDDING else None)
            return given or self._usual_of_output()
        if name == EMBEDDING and self.embeddings:
            return self.embeddings
        return self._usual(name)

    def _usual_of_output(self) -> str:
        """Returns the type of the layer that hurts most: finer than the rest."""
        if self.type in ("f32", "f16", "bf16"):
            return self.type
        return "q6_k" if self.type in _MIXTURES or self.type in NEEDS_GGML else "q8_0"

    def _usual(self, name: str) -> str:
        type_, found = _MIXTURES.get(self.type, self.type), _LAYER.fullmatch(name)
        if self.type not in _MIXTURES or not found:
            return type_
        layer, inner = int(found[1]), found[2]
        if inner == "attn_qkv.weight":
            return {"q4_k": "q5_k", "q5_k": "q6_k"}[type_]
        eighth = self.layers // 8
        outer = layer < eighth or layer >= 7 * self.layers // 8 or (layer - eighth) % 3 == 2
        return "q6_k" if inner in _FINER_IN_SOME and outer else type_

    @staticmethod
    def _fitting(type_: str, shape: tuple[int, ...]) -> str:
        while shape[-1] % GGML_TYPES_BY_NAME[type_].block:
            type_ = _IN_PLACE_OF.get(type_, "f16")
        return type_
