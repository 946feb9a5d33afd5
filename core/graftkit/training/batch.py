"""Rows packed one after the other into one sequence, without padding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from graftkit.store.token_store import Example

__all__ = ["PackedBatch", "pack"]


@dataclass(frozen=True, slots=True)
class PackedBatch:
    """Several rows as one sequence.

    Attributes:
        ids: Token ids, `[1, tokens]`.
        positions: Each token's place in its own row, `[1, tokens]`.
        row_lengths: Tokens of each row.
        sources: The places whose next token is supervised, `[supervised]`.
        labels: Those next tokens, `[supervised]`.
    """

    ids: torch.Tensor
    positions: torch.Tensor
    row_lengths: list[int]
    sources: torch.Tensor
    labels: torch.Tensor

    @property
    def tokens(self) -> int:
        """Tokens in the batch; none is padding."""
        return self.ids.shape[1]


def pack(rows: Sequence[Example], device: torch.device) -> PackedBatch:
    """Puts rows one after the other. A row's first token is never predicted: nothing stands before it."""
    lengths = [len(row.ids) for row in rows]
    ids = torch.cat([torch.from_numpy(row.ids) for row in rows])
    positions = torch.cat([torch.arange(length) for length in lengths])
    supervised = torch.cat([torch.from_numpy(row.supervised) for row in rows]) & (positions > 0)
    labels_at = supervised.nonzero().squeeze(1)
    return PackedBatch(
        ids=ids.unsqueeze(0).to(device),
        positions=positions.unsqueeze(0).to(device),
        row_lengths=lengths,
        sources=(labels_at - 1).to(device),
        labels=ids[labels_at].to(device),
    )
