"""graftkit's own reading of an export whose weights are rounded: their values, and how far apart levels are."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from graftkit import ExportReading
from torch import nn
from torch.overrides import TorchFunctionMode

from graftkit_gguf.blocks import dequantize_blocks
from graftkit_gguf.families import architecture_of
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
    architecture = architecture_of(files.config)
    positions = {
        f"{part.name.removeprefix(architecture.body)}.weight" for part in architecture.parts if part.after_padding
    }
    return ExportReading(
        files, lambda name: read_steps(files.header, files.weights[name]), partial(_round, files), frozenset(positions)
    )


def _round(files: GgufFile, model: nn.Module) -> None:
    """Has each layer whose weight is rounded round what it is given, as ggml does for the sake of speed."""
    tied = bool(files.config.get("tie_word_embeddings"))
    for name, module in model.named_modules():
        own = [part for part, weight in module.named_parameters(recurse=False) if weight.ndim == 3]
        if isinstance(module, nn.Linear):
            held = "model.embed_tokens.weight" if tied and name == "lm_head" else f"{name}.weight"
        elif own:  # experts that are one module
            held = f"{name}.{own[0]}"
        else:
            continue
        rounding = _rounding(files.weights[held].dtype)
        if rounding:
            module.forward = partial(_with_rounding, rounding, module.forward)


_Rounding = Callable[[torch.Tensor], torch.Tensor]


class _RoundsProducts(TorchFunctionMode):
    """Rounds what linear functions are given."""

    def __init__(self, rounding: _Rounding) -> None:
        super().__init__()
        self._rounding = rounding

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is nn.functional.linear:
            args = (self._rounding(args[0]), *args[1:])
        return func(*args, **(kwargs or {}))


def _with_rounding(rounding: _Rounding, forward: Callable[..., Any], *given: Any, **named: Any) -> Any:
    with _RoundsProducts(rounding):
        return forward(*given, **named)


def _rounding(dtype: str) -> _Rounding | None:
    """Returns how ggml rounds what is multiplied with weights of a type; None where it does not."""
    if dtype in _HALVES:
        return lambda x: x.to(_HALVES[dtype]).to(x.dtype)
    if dtype == "F32":
        return None
    return _in_large_blocks if _BLOCKS[dtype] > 32 else _in_blocks


def _in_blocks(x: torch.Tensor) -> torch.Tensor:
    """Rounds to Q8_0, as `quantize_row_q8_0`."""
    rows = x.reshape(-1, x.shape[-1])
    rounded = torch.empty_like(rows)
    dequantize_blocks("Q8_0", quantize_rows(rows, "q8_0"), rounded)
    return rounded.view(x.shape)


def _in_large_blocks(x: torch.Tensor) -> torch.Tensor:
    """Rounds to 255 levels in blocks of 256, as `quantize_row_q8_K`."""
    blocks = x.reshape(-1, 256)
    furthest = blocks.gather(1, blocks.abs().argmax(1, keepdim=True))
    scale = furthest / -127
    levels = torch.where(scale == 0, 0, blocks / scale).round().clamp_(max=127)
    return (levels * scale).view(x.shape)
