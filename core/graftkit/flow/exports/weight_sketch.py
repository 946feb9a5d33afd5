"""A sketch of the trained weights, by which a quantized export's are compared with them one by one.

Rounding moves what a model computes, and hides that one matrix of many is another one. So each matrix is kept as its
rows' products with a few vectors of random signs: `[rows, 4]` numbers, whatever its width. The error of such a product
has the variance of the row's own errors, added up: of steps `s`, from rounding, the sum of `s^2 / 12`. Its square over
that is 1 in the mean; measured over whole matrices, from 0.7 (K types, which search) to 1.2 (Q4_0, which cuts off).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch

from graftkit.interfaces.exporter import ExportReading
from graftkit.model.file_tensors import read_tensors

__all__ = ["SketchProof", "compare_sketches", "sketches_of"]

_VECTORS = 4
_OF_A_MATRIX, _OF_A_ROW = 2.0, 40.0
"""What a matrix's errors, and a row's, may be over what rounding explains: a row's are four numbers of chance."""
_OF_FLOAT32 = 1e-12
"""The variance of a sum in float32, over that of its terms."""


@dataclass(frozen=True, slots=True)
class SketchProof:
    """How a quantized export's weights differ from what was trained.

    Attributes:
        compared: How many weights were compared.
        name: The one that differs most.
        excess: The square of its errors over what rounding explains, as a share of what is allowed: 1 at most.
    """

    compared: int
    name: str
    excess: float


def sketches_of(tensors: Iterable[tuple[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Returns a sketch of each weight: `[rows, 4]`, float32; vectors and what is no floating point are left out.

    Args:
        tensors: The trained model's, by the architecture's names.
    """
    return {name: _sketch(tensor) for name, tensor in tensors if tensor.ndim > 1 and tensor.is_floating_point()}


@torch.no_grad()
def _sketch(tensor: torch.Tensor) -> torch.Tensor:
    rows = tensor.float().cpu().reshape(-1, tensor.shape[-1])
    return rows @ _signs(rows.shape[1])


def _signs(width: int) -> torch.Tensor:
    return 2.0 * torch.randint(2, (width, _VECTORS), generator=torch.Generator().manual_seed(width)) - 1


@torch.no_grad()
def compare_sketches(reading: ExportReading, sketches: Mapping[str, torch.Tensor]) -> SketchProof | None:
    """Compares each of an export's matrices with the trained one.

    Args:
        reading: The export.
        sketches: Those of the trained weights.

    Returns:
        What was found, or None without sketches.
    """
    found: list[tuple[float, str]] = []
    for name, stored in read_tensors(reading.files) if sketches else ():
        tensor = stored if isinstance(stored, torch.Tensor) else stored.dequantize() if stored.dequantize else None
        if tensor is not None and tensor.ndim > 1:
            sketch = sketches.get(name)
            if sketch is not None and name in reading.last_rows:
                sketch = sketch[-len(tensor) :]
            found.append((_excess(tensor.float(), reading.steps(name), sketch), name))
    if not found:
        return None
    excess, name = max(found)
    return SketchProof(len(found), name, min(excess, 1e308))


def _excess(tensor: torch.Tensor, steps: torch.Tensor | None, sketch: torch.Tensor | None) -> float:
    own = _sketch(tensor)
    if sketch is None or sketch.shape != own.shape:
        return float("inf")
    variance = _OF_FLOAT32 * tensor.square().reshape(len(own), -1).sum(1)
    if steps is not None:
        variance += steps.square().reshape(len(own), -1).sum(1) / 12
    errors = (own - sketch).square().mean(1) / variance.clamp_min(1e-30)
    worst = max(errors.mean().item() / _OF_A_MATRIX, errors.max().item() / _OF_A_ROW)
    return worst if worst == worst else float("inf")
