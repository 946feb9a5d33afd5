"""Vectors of tokens are what their definition says, computed pair by pair and by numpy's own decomposition."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import Any

import numpy as np
import pytest
from graftkit_initializers import neighbours
from graftkit_initializers.neighbours import count_neighbours, positive_information, reduce, token_vectors
from hypothesis import given
from hypothesis import strategies as st

SEQUENCES = st.lists(st.lists(st.integers(0, 6), max_size=12), min_size=1, max_size=6)


def pairs(sequences: list[list[int]], window: int) -> dict[tuple[int, int], float]:
    """Counts each pair of tokens in each sequence, at the distance d as 1/d."""
    found: dict[tuple[int, int], float] = defaultdict(float)
    for ids in sequences:
        for here, token in enumerate(ids):
            for there, other in enumerate(ids):
                if 0 < abs(here - there) <= window:
                    found[token, other] += 1 / abs(here - there)
    return found


@given(SEQUENCES, st.integers(1, 4))
def test_neighbours_are_counted_pair_by_pair_within_a_sequence(sequences: list[list[int]], window: int) -> None:
    tokens, contexts = np.array([0, 2, 3, 6]), np.array([2, 5])
    found = count_neighbours(neighbours._joined(sequences, window), tokens, contexts, window)
    counted = pairs(sequences, window)
    expected = [[counted.get((token, context), 0.0) for context in contexts.tolist()] for token in tokens.tolist()]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@given(SEQUENCES)
def test_information_is_that_of_the_counts_and_never_negative(sequences: list[list[int]]) -> None:
    counted = pairs(sequences, 2)
    table = np.array([[counted.get((a, b), 0.0) for b in range(7)] for a in range(7)], dtype=np.float32)
    total, smooth = table.sum(), table.sum(0) ** 0.75
    found = positive_information(table.copy())
    assert found.shape == (7, 7)
    for a in range(7):
        for b in range(7):
            expected = 0.0
            if table[a, b]:
                p_context = smooth[b] / smooth.sum()
                expected = max(0.0, math.log(table[a, b] / total / (table[a].sum() / total * p_context)))
            assert found[a, b] == pytest.approx(expected, abs=1e-5)


def test_the_decomposition_is_numpys_own() -> None:
    table = np.random.default_rng(0).random((60, 20)).astype(np.float32)
    u, s, _ = np.linalg.svd(table, full_matrices=False)
    expected = u[:, :5] * np.sqrt(s[:5])
    found = reduce(table, 5)
    np.testing.assert_allclose(found @ found.T, expected @ expected.T, atol=1e-4)


def test_no_more_dimensions_than_there_are() -> None:
    table = np.outer(np.arange(1, 9), np.arange(1, 5)).astype(np.float32)
    assert reduce(table, 100).shape == (8, 1)
    assert reduce(np.zeros((3, 2), dtype=np.float32), 100).shape == (3, 0)


def test_tokens_that_are_used_alike_point_the_same_way() -> None:
    sequences = [[a, verb, b] for verb in (7, 8) for a in (0, 1, 2) for b in (3, 4, 5)] * 3
    ids, vectors = token_vectors(sequences, window=2, dimensions=8, min_count=1)
    likeness = vectors @ vectors.T
    assert ids.tolist() == [0, 1, 2, 3, 4, 5, 7, 8]
    np.testing.assert_allclose(np.diag(likeness), 1, atol=1e-5)
    assert likeness[0, 1] > 0.9 and likeness[6, 7] > 0.9 and likeness[0, 6] < 0.5


@pytest.mark.parametrize(
    ("sequences", "expected"),
    [([], []), ([[]], []), ([[4]], []), ([[4, 4, 4]], []), ([[1, 2]] * 3 + [[5]] * 9, [1, 2]), ([[1, 2, 1, 2]], [])],
)
def test_rare_tokens_and_those_without_a_neighbour_are_left_out(sequences: Any, expected: list[int]) -> None:
    ids, vectors = token_vectors(sequences, window=3, dimensions=4, min_count=3)
    assert ids.tolist() == expected and len(vectors) == len(expected)


def test_contexts_are_the_most_frequent_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "CONTEXTS", 2)
    sequences = [[0, 9], [1, 9], [0, 8], [1, 8], [2, 7]] * 3
    ids, vectors = token_vectors(sequences, window=1, dimensions=4, min_count=1)
    assert vectors.shape[1] <= 2
    assert 2 not in ids.tolist()  # its only neighbour is no context
