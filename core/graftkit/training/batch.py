"""The sequences of one forward pass, packed one after the other without padding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from graftkit.store.token_store import SEQUENCE, TARGET, Example

__all__ = ["PackedBatch", "alone", "pack"]


@dataclass(frozen=True, slots=True)
class PackedBatch:
    """Several sequences in one pass.

    Attributes:
        sequences: Token ids of each, `[tokens]`.
        logit_positions: The positions in the pass whose next token is in the loss, `[loss tokens]`; where there is a
            column `TARGET` those of the tokens in the loss themselves.
        labels: Those next tokens, or the targets of these, `[loss tokens]`, int64.
        weights: What each weighs in the loss, `[loss tokens]`, float32; None where each weighs 1.
        weight_sum: The sum of those weights.
        by_token: The store's further columns by token, `[tokens]` or `[tokens, n]` each, in the pass's order.
        by_example: Its further columns by example, `[examples]` or `[examples, n]` each.
    """

    sequences: tuple[torch.Tensor, ...]
    logit_positions: torch.Tensor
    labels: torch.Tensor
    weights: torch.Tensor | None
    weight_sum: float
    by_token: Mapping[str, torch.Tensor]
    by_example: Mapping[str, torch.Tensor]

    @property
    def tokens(self) -> int:
        """Tokens in the batch; none is padding."""
        return sum(len(ids) for ids in self.sequences)

    @property
    def owners(self) -> torch.Tensor:
        """The number of the sequence that each token in the loss is of, `[loss tokens]`, int64, ascending."""
        ends = torch.tensor([len(ids) for ids in self.sequences], device=self.labels.device).cumsum(0)
        return torch.searchsorted(ends, self.logit_positions, right=True)

    @property
    def token_weights(self) -> torch.Tensor:
        """What each token weighs in the loss, `[loss tokens]`, float32."""
        return torch.ones(len(self.labels), device=self.labels.device) if self.weights is None else self.weights


def pack(examples: Sequence[Example], device: torch.device) -> PackedBatch:
    """Puts sequences one after the other. The first token of each is never predicted: nothing stands before it."""
    ids = [torch.from_numpy(sequence.ids) for example in examples for sequence in example.sequences]
    positions = torch.cat([torch.arange(len(sequence)) for sequence in ids])
    every = torch.from_numpy(np.concatenate([example.loss_weight for example in examples]).astype(np.float32))
    targeted = TARGET in examples[0].by_token
    labels_at = ((every != 0) & ((positions > 0) | targeted)).nonzero().squeeze(1)
    weights = every[labels_at]
    by_token = {name: np.concatenate([example.by_token[name] for example in examples]) for name in examples[0].by_token}
    by_example = {name: np.array([example.by_example[name] for example in examples]) for name in examples[0].by_example}
    targets = torch.from_numpy(by_token[TARGET]).long() if targeted else torch.cat(ids)
    return PackedBatch(
        sequences=torch.split(torch.cat(ids).to(device), [len(sequence) for sequence in ids]),
        logit_positions=(labels_at if targeted else labels_at - 1).to(device),
        labels=targets[labels_at].to(device),
        weights=None if bool((weights == 1).all()) else weights.to(device),
        weight_sum=weights.double().sum().item(),
        by_token={name: torch.from_numpy(values).to(device) for name, values in by_token.items()},
        by_example={name: torch.from_numpy(values).to(device) for name, values in by_example.items()},
    )


def alone(example: Example) -> list[Example]:
    """Returns each sequence of an example as an example that has no other."""
    return [
        replace(sequence, by_token={name: v for name, v in sequence.by_token.items() if name != SEQUENCE})
        for sequence in example.sequences
    ]
