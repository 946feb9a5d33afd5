"""Stores tensors in the block formats of GGUF."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gguf import GGMLQuantizationType
from gguf.quants import quantize

from graftkit_gguf.tensor_types import GGML_TYPES

__all__ = ["stored_bytes", "type_of"]

_BLOCKS = {kind.name.lower(): kind.block for kind in GGML_TYPES.values()}
_CHUNK = 1 << 22


def type_of(name: str, shape: tuple[int, ...], wanted: str) -> str:
    """Returns the type that a tensor is stored in.

    Vectors stay in float32, and so does what chooses experts. A matrix whose rows are no multiple of a block is stored
    in float16, as llama.cpp does.

    Args:
        name: The tensor's name in the file.
        shape: The tensor's shape, `[out, in]` or `[size]`.
        wanted: The type of matrices.
    """
    if len(shape) < 2 or ".ffn_gate_inp" in name:
        return "f32"
    return wanted if shape[-1] % _BLOCKS[wanted] == 0 else "f16"


def stored_bytes(tensor: torch.Tensor, type_: str) -> np.ndarray[Any, Any]:
    """Returns a tensor in a type of GGUF, as uint8, rounded as the gguf package, and llama.cpp, round.

    Args:
        tensor: float32, on the CPU; its last dimension is a multiple of the type's block.
        type_: The type in lower case, such as "q8_0".
    """
    values = tensor.float().contiguous().numpy().reshape(-1, tensor.shape[-1])
    kind = GGMLQuantizationType[type_.upper()]
    step = max(1, _CHUNK // values.shape[1])
    parts = [quantize(values[at : at + step], kind) for at in range(0, len(values), step)]
    return np.concatenate([part.view(np.uint8).reshape(-1) for part in parts])
