"""The sequences of one forward pass, packed one after the other without padding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from graftkit.store.token_store import Example

__all__ = ["PackedBatch", "pack"]


@dataclass(frozen=True, slots=True)
class PackedBatch:
    """Several sequences in one pass.

    Attributes:
        sequences: Token ids of each, `[tokens]`.
        sources: The places in the pass whose next token is supervised, `[supervised]`.
        labels: Those next tokens, `[supervised]`.
    """

    sequences: tuple[torch.Tensor, ...]
    sources: torch.Tensor
    labels: torch.Tensor

    @property
    def tokens(self) -> int:
        """Tokens in the batch; none is padding."""
        return sum(len(ids) for ids in self.sequences)


def pack(rows: Sequence[Example], device: torch.device) -> PackedBatch:
    """Puts sequences one after the other. The first token of each is never predicted: nothing stands before it."""
    ids = [torch.from_numpy(row.ids) for row in rows]
    positions = torch.cat([torch.arange(len(row)) for row in ids])
    supervised = torch.cat([torch.from_numpy(row.supervised) for row in rows]) & (positions > 0)
    labels_at = supervised.nonzero().squeeze(1)
    return PackedBatch(
        sequences=tuple(row.to(device) for row in ids),
        sources=(labels_at - 1).to(device),
        labels=torch.cat(ids)[labels_at].to(device),
    )
