"""Vectors of tokens from what stands beside them: tokens that are used alike point the same way.

Counts of neighbours, their positive pointwise mutual information, and its singular value decomposition with the
roots of the singular values: what word2vec and fastText learn by sampling, in closed form (Levy, Goldberg & Dagan,
2015, https://aclanthology.org/Q15-1016).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["CONTEXTS", "count_neighbours", "positive_information", "reduce", "token_vectors"]

Floats = NDArray[np.float32]
Ids = NDArray[np.int64]

CONTEXTS = 1024
"""Tokens that count as neighbours: the most frequent ones, so that the table stays within `[tokens, 1024]`."""

_SMOOTHING = 0.75  # Levy et al.: rare contexts would dominate without


def token_vectors(
    sequences: Iterable[Sequence[int]], *, window: int, dimensions: int, min_count: int
) -> tuple[Ids, Floats]:
    """Returns the tokens that occur often enough, ascending, and a vector of length one for each.

    Args:
        sequences: Token ids; tokens of different sequences are no neighbours.
        window: How far apart neighbours may stand.
        dimensions: Length of a vector at most.
        min_count: How often a token has to occur. One without a neighbour is left out, too.

    Returns:
        Ids, `[tokens]`, and vectors, `[tokens, dimensions]`.
    """
    stream = _joined(sequences, window)
    ids, counts = np.unique(stream[stream >= 0], return_counts=True)
    ids, counts = ids[counts >= min_count], counts[counts >= min_count]
    contexts = np.sort(ids[np.argsort(-counts, kind="stable")[:CONTEXTS]])
    vectors = reduce(positive_information(count_neighbours(stream, ids, contexts, window)), dimensions)
    lengths = np.linalg.norm(vectors, axis=1)
    alive = lengths > 0
    return ids[alive], vectors[alive] / lengths[alive, None]


def _joined(sequences: Iterable[Sequence[int]], window: int) -> Ids:
    """Returns all ids in one row, with gaps of -1 that no window spans."""
    gap = np.full(window, -1, dtype=np.int64)
    pieces = [piece for sequence in sequences for piece in (np.asarray(sequence, dtype=np.int64), gap)]
    return np.concatenate(pieces) if pieces else gap


def count_neighbours(stream: Ids, tokens: Ids, contexts: Ids, window: int) -> Floats:
    """Returns how often each context stands near each token, `[tokens, contexts]`; at a distance d it counts 1/d.

    Args:
        stream: Ids, -1 for none.
        tokens: The ids to count for, ascending.
        contexts: The ids to count, ascending.
        window: The largest distance.
    """
    row, column = _places(stream, tokens), _places(stream, contexts)
    table = np.zeros(len(tokens) * len(contexts), dtype=np.float32)
    for distance in range(1, window + 1):
        for rows, columns in ((row[:-distance], column[distance:]), (row[distance:], column[:-distance])):
            both = (rows >= 0) & (columns >= 0)
            np.add.at(table, rows[both] * len(contexts) + columns[both], np.float32(1 / distance))
    return table.reshape(len(tokens), len(contexts))


def _places(stream: Ids, ids: Ids) -> Ids:
    """Returns where each id of the stream stands among `ids`; -1 where it does not."""
    table = np.full(max(stream.max(initial=0), ids.max(initial=0)) + 2, -1, dtype=np.int64)
    table[ids] = np.arange(len(ids))
    return table[stream]  # -1 reads the last place, which is never an id's


def positive_information(counts: Floats) -> Floats:
    """Returns `max(0, log p(token, context) / (p(token) p(context)))`, p(context) smoothed; `counts` is overwritten."""
    token = counts.sum(1, keepdims=True, dtype=np.float64)
    context = counts.sum(0, keepdims=True, dtype=np.float64) ** _SMOOTHING
    context /= max(context.sum(), 1e-300)
    with np.errstate(divide="ignore", invalid="ignore"):
        counts /= token
        counts /= context
        np.log(counts, out=counts)
    np.nan_to_num(counts, copy=False, nan=0.0, neginf=0.0)
    return np.maximum(counts, 0.0, out=counts)


def reduce(table: Floats, dimensions: int) -> Floats:
    """Returns the rows of a table as `U sqrt(S)` of its truncated singular value decomposition.

    It comes from the eigenvectors of the small square matrix of contexts, so nothing is drawn at random.

    Args:
        table: `[tokens, contexts]`.
        dimensions: How many singular values to keep, at most.
    """
    squares, vectors = np.linalg.eigh((table.T @ table).astype(np.float64))
    kept = np.flatnonzero(squares > 1e-6 * max(squares.max(initial=0.0), 1e-300))[::-1][:dimensions]
    return (table @ (vectors[:, kept] / squares[kept] ** 0.25).astype(np.float32)).astype(np.float32)
