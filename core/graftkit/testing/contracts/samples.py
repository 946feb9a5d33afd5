"""Seeded numbers to try weights on."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from graftkit.interfaces.layer import LayerInfo

__all__ = ["SHAPES", "SMALL_SHAPES", "distance", "layer_of", "normal", "uneven", "weights"]

SMALL_SHAPES = ((1, 1), (3, 5), (12, 70), (64, 64))
"""`(out, in)`: one weight, fewer than any block, more than one block and not a whole number of them, whole blocks."""

SHAPES = (*SMALL_SHAPES, (1, 200), (7, 1), (40, 65), (2, 4100))


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Returns normally distributed numbers, the same for the same seed; the process's random state is left alone."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def layer_of(weight: torch.Tensor) -> LayerInfo:
    """Returns what is known of a layer with this weight; one that is no matrix has the sizes of its ends."""
    return LayerInfo("layer", "linear", weight.shape[0], weight.shape[-1])


def weights() -> Iterator[tuple[str, torch.Tensor]]:
    """Yields matrices of many shapes, sizes and seeds, each with a word on what it is."""
    for rows, columns in SHAPES:
        for seed, scale in enumerate((1e-6, 1e-3, 1.0, 1e4)):
            yield f"[{rows}, {columns}] of size {scale:g}, seed {seed}", normal(rows, columns, seed=seed) * scale


def uneven() -> Iterator[tuple[str, torch.Tensor]]:
    """Yields matrices whose rows, or whose weights, differ much in size, as some layers' do."""
    outlier = normal(64, 256)
    outlier[3, 5] = 1000.0
    yield "[64, 256] with one weight of 1000", outlier
    for ratio in (10, 1e3, 1e6):
        rows = torch.logspace(0, 1, 40, base=ratio).unsqueeze(1) / ratio
        yield f"[40, 65] whose largest row is {ratio:g} times the smallest", normal(40, 65) * rows
    emptied = normal(9, 130)
    emptied[4] = 0.0
    yield "[9, 130] with a row of zeros", emptied


def distance(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Returns the largest difference as a share of the largest number expected; infinite where shapes differ."""
    if found.shape != expected.shape:
        return float("inf")
    difference = (found.double() - expected.double()).abs().max().item()
    largest = expected.double().abs().max().item()
    share = difference / largest if largest else difference
    return share if share == share else float("inf")
