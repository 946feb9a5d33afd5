"""Sparsemax is the projection onto the probability simplex, by whatever method that is found."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch
from graftkit_initializers.sparsemax import sparsemax
from hypothesis import given
from hypothesis import strategies as st

SCORES = st.lists(st.floats(-3, 3, width=32), min_size=1, max_size=8)


def nearest_by_trying(scores: np.ndarray) -> np.ndarray:
    """Projects onto each face of the simplex and returns the nearest of the points that lie in it."""
    found = []
    for size in range(1, len(scores) + 1):
        for face in map(list, combinations(range(len(scores)), size)):
            point = np.zeros_like(scores)
            point[face] = scores[face] + (1 - scores[face].sum()) / size
            if (point >= -1e-12).all():
                found.append(point)
    return min(found, key=lambda point: float(((point - scores) ** 2).sum()))


def by_bisection(scores: np.ndarray) -> np.ndarray:
    """Finds the threshold by halving an interval that holds it."""
    low, high = scores.min() - 1, scores.max()
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if np.maximum(scores - middle, 0).sum() > 1 else (low, middle)
    return np.maximum(scores - low, 0)


@given(SCORES)
def test_it_is_the_nearest_point_of_the_simplex(scores: list[float]) -> None:
    found = sparsemax(torch.tensor([scores], dtype=torch.float64))[0].numpy()
    np.testing.assert_allclose(found, nearest_by_trying(np.array(scores)), atol=1e-9)


@given(st.integers(0, 2**32 - 1), st.integers(1, 400), st.sampled_from([0.01, 1.0, 30.0]))
def test_many_scores_in_single_precision_too(seed: int, candidates: int, size: float) -> None:
    scores = np.random.default_rng(seed).normal(0, size, (5, candidates)).astype(np.float32)
    found = sparsemax(torch.from_numpy(scores))
    expected = np.stack([by_bisection(row.astype(np.float64)) for row in scores])
    np.testing.assert_allclose(found, expected, atol=2e-6 * max(size, 1))
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-5)
    assert found.dtype == torch.float32 and (found >= 0).all()


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([5.0], [1.0]),
        ([0.5, 0.5, 0.5, 0.5], [0.25] * 4),
        ([1.0, 0.8, -1.0], [0.6, 0.4, 0.0]),
        ([2.0, 0.0], [1.0, 0.0]),
        ([1.0, 0.0], [1.0, 0.0]),
    ],
)
def test_by_hand(scores: list[float], expected: list[float]) -> None:
    torch.testing.assert_close(sparsemax(torch.tensor([scores])), torch.tensor([expected]))
