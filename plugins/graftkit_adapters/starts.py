"""What LoRA's two matrices start as.

`kaiming`, `gaussian` and `orthogonal` draw them so that their product is zero. `pissa` (Meng et al., 2024,
https://arxiv.org/abs/2404.02948) takes the largest singular values of the layer's original weight and their vectors,
`olora` (Büyükakyüz, 2024, https://arxiv.org/abs/2406.01775) the first columns and rows of its QR decomposition. Those
two are the start of `s B A`, and what they make is taken off again, so that the model is at first what it was. On an
embedding `A` is zero and `B` normal, whichever of the drawn starts it is, as in PEFT. Formulas
and scales are those of `peft.tuners.lora.layer` (peft 0.21).
"""

from __future__ import annotations

from math import sqrt

import torch
from graftkit import Layer

from graftkit_adapters.config import Start

__all__ = ["start_of"]


def start_of(start: Start, layer: Layer, rank: int, scale: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns `A [rank, in]` and `B [out, rank]`, float32, on the device of the layer's weight.

    Args:
        start: Which one.
        layer: The layer; random numbers come from its generator alone.
        rank: The update's rank.
        scale: What the update is multiplied by.
    """
    device = next(layer.weight.parameters()).device
    if layer.info.kind == "embedding":
        drawn = torch.randn(layer.info.out_features, rank, generator=layer.generator)
        return torch.zeros(rank, layer.info.in_features, device=device), drawn.to(device)
    if start in ("pissa", "qpissa", "olora"):
        a, b = (_orthonormal if start == "olora" else _principal)(layer.original(), rank, scale)
    else:
        a, b = _drawn(start, layer, rank)
    return a.contiguous().to(device), b.contiguous().to(device)


def _drawn(start: Start, layer: Layer, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    rows, columns, generator = layer.info.out_features, layer.info.in_features, layer.generator
    if start == "orthogonal":
        rotation = torch.linalg.qr(torch.randn(rank, rank, generator=generator))[0]
        left = torch.randn(rows, rank // 2, generator=generator) / 10
        right = torch.randn(rank // 2, columns, generator=generator) / 10
        return rotation[0::2].T @ right, left @ rotation[1::2]
    a, bound = torch.empty(rank, columns), 1 / sqrt(columns)
    if start == "gaussian":
        a.normal_(std=1 / rank, generator=generator)
    else:
        a.uniform_(-bound, bound, generator=generator)
    return a, torch.zeros(rows, rank)


def _principal(weight: torch.Tensor, rank: int, scale: float) -> tuple[torch.Tensor, torch.Tensor]:
    left, values, right = torch.linalg.svd(weight, full_matrices=False)
    roots = (values[:rank] / scale).sqrt()
    return _padded(roots.unsqueeze(1) * right[:rank], left[:, :rank] * roots, rank)


def _orthonormal(weight: torch.Tensor, rank: int, scale: float) -> tuple[torch.Tensor, torch.Tensor]:
    columns, rows = torch.linalg.qr(weight)
    return _padded(rows[:rank], columns[:, :rank], rank)


def _padded(a: torch.Tensor, b: torch.Tensor, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Fills up with zeros where the weight has fewer rows or columns than the update's rank."""
    lacking = rank - len(a)
    return torch.nn.functional.pad(a, (0, 0, 0, lacking)), torch.nn.functional.pad(b, (0, lacking))
