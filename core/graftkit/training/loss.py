"""The negative log-likelihood of supervised tokens; logits are made for no others."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from graftkit.training.batch import PackedBatch

__all__ = ["summed_loss"]


def summed_loss(network: nn.Module, batch: PackedBatch) -> torch.Tensor:
    """Returns the sum over the batch's supervised tokens, in nats; a scalar, float32.

    Args:
        network: A transformers causal language model whose attention is the packed one.
        batch: The rows.
    """
    output = network(
        input_ids=batch.ids,
        position_ids=batch.positions,
        use_cache=False,
        logits_to_keep=batch.sources,
        row_lengths=batch.row_lengths,
    )
    return cross_entropy(output.logits[0].float(), batch.labels, reduction="sum")
