"""Vectors of texts, by which documents are found for queries: contrastive learning with negatives of the same step.

The cross-entropy of a query's own document among all those of the step, by the cosines of their vectors divided by a
temperature: InfoNCE (van den Oord et al., 2018, https://arxiv.org/abs/1807.03748), as sentence-transformers'
MultipleNegativesRankingLoss has it with a scale of 1 / temperature. `dimensions` adds the same of the first numbers of
each vector, so that these alone can be kept (Kusupati et al., 2022, https://arxiv.org/abs/2205.13147), as its
MatryoshkaLoss does.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from graftkit import Embeddings
from torch.nn.functional import cross_entropy, normalize

from graftkit_objectives.config import EmbeddingObjectiveConfig

__all__ = ["Embedding"]


class Embedding:
    """Brings the vector of each query near to that of its document, and away from those of others."""

    def __init__(self, config: EmbeddingObjectiveConfig) -> None:
        self._config = config

    def losses(self, embeddings: Embeddings) -> torch.Tensor:
        """Returns the loss of each query, in nats, `[examples]`; with `dimensions` the sum of those of each."""
        found = self._loss(embeddings, embeddings.queries, embeddings.documents)
        for width in self._config.dimensions:
            first = (normalize(vectors[:, :width], dim=1) for vectors in (embeddings.queries, embeddings.documents))
            found = found + self._loss(embeddings, *first)
        return found

    def metrics(self, embeddings: Embeddings) -> Mapping[str, torch.Tensor]:
        """Returns whether each query's document is the nearest, one over its rank, and its cosine."""
        cosines = _compared(embeddings, embeddings.queries @ embeddings.documents.T)
        own = cosines.gather(1, embeddings.positive.unsqueeze(1))
        nearer = (cosines > own).sum(1)
        ties = (cosines == own).sum(1) - 1  # of as near ones it may be any
        rank = 1 + nearer + ties / 2
        return {"accuracy": (rank == 1).float(), "mrr": 1 / rank, "cosine": own.squeeze(1)}

    def _loss(self, embeddings: Embeddings, queries: torch.Tensor, documents: torch.Tensor) -> torch.Tensor:
        cosines = queries @ documents.T / self._config.temperature
        return cross_entropy(_compared(embeddings, cosines), embeddings.positive, reduction="none")


def _compared(embeddings: Embeddings, cosines: torch.Tensor) -> torch.Tensor:
    """Returns the cosines; those with documents that don't count for a query are lower than all others."""
    return cosines.masked_fill(~embeddings.compared, -torch.inf)
