"""graftkit's own reading of an export whose weights are rounded: their values, and how far apart levels are."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch
from graftkit import ExportReading
from torch import nn

from graftkit_gguf.blocks import dequantize_blocks
from graftkit_gguf.quantize import quantize_rows
from graftkit_gguf.source import GgufFile, GgufSource
from graftkit_gguf.tensor_types import GGML_TYPES
from graftkit_gguf.weights import read_steps

__all__ = ["export_reading"]

_HALVES = {"F16": torch.float16, "BF16": torch.bfloat16}
_BLOCKS = {kind.name: kind.block for kind in GGML_TYPES.values()}


def export_reading(path: Path) -> ExportReading:
    """Opens a file as a base model is opened.

    Raises:
        ModelError: It is none that can be read.
    """
    files = GgufSource().open(str(path))
    return ExportReading(files, lambda name: read_steps(files.header, files.weights[name]), partial(_round, files))


def _round(files: GgufFile, model: nn.Module) -> None:
    """Has each linear layer whose weight is rounded round what it is given, as ggml does for the sake of speed."""
    tied = bool(files.config.get("tie_word_embeddings"))
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            weight = files.weights["model.embed_tokens.weight" if tied and name == "lm_head" else f"{name}.weight"]
            if weight.dtype in _HALVES:
                module.register_forward_pre_hook(partial(_of_halves, _HALVES[weight.dtype]))
            elif weight.dtype != "F32":
                large = _BLOCKS[weight.dtype] > 32
                module.register_forward_pre_hook(_of_large_blocks if large else _of_blocks)


def _of_halves(dtype: torch.dtype, module: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
    """Rounds to the type of the weights."""
    [x] = given
    return (x.to(dtype).to(x.dtype),)


def _of_blocks(module: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
    """Rounds to Q8_0, as `quantize_row_q8_0`."""
    [x] = given
    rows = x.reshape(-1, x.shape[-1])
    rounded = torch.empty_like(rows)
    dequantize_blocks("Q8_0", quantize_rows(rows, "q8_0"), rounded)
    return (rounded.view(x.shape),)


def _of_large_blocks(module: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
    """Rounds to 255 levels in blocks of 256, as `quantize_row_q8_K`."""
    [x] = given
    blocks = x.reshape(-1, 256)
    furthest = blocks.gather(1, blocks.abs().argmax(1, keepdim=True))
    scale = furthest / -127
    levels = torch.where(scale == 0, 0, blocks / scale).round().clamp_(max=127)
    return ((levels * scale).view(x.shape),)
