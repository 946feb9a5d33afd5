"""How much a model loses when its adapter is merged: each way of merging against the trained model, token by token."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from graftkit.interfaces.block_memory import float32_by_block
from graftkit.store.token_store import TokenStore
from graftkit.training.batch import PackedBatch
from graftkit.training.loss import TokenLoss
from graftkit.training.step_loss import Passes

__all__ = ["ExampleScores", "score_variants"]


@dataclass(frozen=True, slots=True)
class ExampleScores:
    """Sums over the tokens in the loss of each sequence, `[sequences]`, float64; an example has one, or one an answer.

    Attributes:
        weight: The tokens' weights in the loss.
        tokens: How many they are.
        nll: Their negative log-likelihoods, in nats, times their weights.
        kl: The divergences from the trained model's distribution, in nats, times their weights.
        same: At how many the likeliest token is the trained model's.
        right: At how many it is the token itself.
    """

    weight: torch.Tensor
    tokens: torch.Tensor
    nll: torch.Tensor
    kl: torch.Tensor
    same: torch.Tensor
    right: torch.Tensor

    @property
    def loss(self) -> float:
        """The mean negative log-likelihood of a token in the loss, in nats."""
        return (self.nll.sum() / self.weight.sum()).item()

    @property
    def mean_kl(self) -> float:
        """The mean divergence at a token in the loss, in nats; rounding may leave less than nothing of it."""
        return max(0.0, (self.kl.sum() / self.weight.sum()).item())

    @property
    def agreement(self) -> float:
        """The share of tokens in the loss at which the likeliest token is the trained model's."""
        return (self.same.sum() / self.tokens.sum()).item()

    @property
    def exact(self) -> float:
        """The share of examples of which every token in the loss is the likeliest one."""
        return (self.right == self.tokens).double().mean().item()

    def gain_over(self, other: ExampleScores) -> tuple[float, float]:
        """Returns by how much its loss is lower than another's, and the standard error of that, by examples in pairs.

        The mean is a ratio of sums, whose standard error is that of the residuals (Cochran, Sampling Techniques, 1977,
        chapter 6); infinite for a single example.
        """
        gained = other.nll - self.nll
        mean, count = gained.sum() / self.weight.sum(), len(gained)
        if count < 2:
            return mean.item(), math.inf
        residuals = (gained - mean * self.weight).square().sum()
        return mean.item(), (residuals * count / (count - 1)).sqrt().item() / self.weight.sum().item()


@torch.no_grad()
def score_variants(
    network: Any,
    store: TokenStore,
    examples: Sequence[int],
    variants: Mapping[str, Callable[[], AbstractContextManager[None]]],
    *,
    device: torch.device,
    microbatch_tokens: int,
    packed: bool = True,
    poll: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, ExampleScores]:
    """Scores a network as it is, under the name "trained", and as each variant makes it, on the same examples.

    It computes in float32 whatever it was trained in, so that what is compared are weights and not the rounding of
    activations.

    Args:
        network: The trained model.
        store: The examples.
        examples: The numbers of those that are taken; each has a token in the loss.
        variants: What makes the network compute otherwise for a time, by name.
        device: Where it computes.
        microbatch_tokens: Tokens of one forward pass at most.
        packed: Whether sequences share a pass; else they run one by one.
        poll: Called before each pass with how many are done and how many there are; raises to stop.
    """
    passes = Passes(microbatch_tokens, packed, device)
    groups = passes.groups(examples, store.lengths.tolist())
    batches = (batch for group in groups for batch in passes.batches([store[number] for number in group]))
    loss = TokenLoss(network, packed=packed)
    found: dict[str, list[torch.Tensor]] = {name: [] for name in ("trained", *variants)}
    total = passes.count(store, groups) * (1 + len(variants))
    with float32_by_block(network):
        for number, batch in enumerate(batches):
            done = number * (1 + len(variants))
            poll(done, total)
            trained = loss.logits(batch)
            found["trained"].append(_sums(batch, trained))
            for name, variant in variants.items():
                done += 1
                poll(done, total)
                with variant():
                    logits = loss.logits(batch)
                found[name].append(_sums(batch, trained, logits))
    return {name: ExampleScores(*torch.cat(sums, dim=1)) for name, sums in found.items()}


_Pieces = Callable[[], Iterator[torch.Tensor]]


def _sums(batch: PackedBatch, trained: _Pieces, variant: _Pieces | None = None) -> torch.Tensor:
    """Returns the fields of `ExampleScores` for each sequence of a pass, `[fields, sequences]`, float64 on the CPU."""
    owners, weights = batch.owners, batch.token_weights
    sums = torch.zeros(6, len(batch.sequences), dtype=torch.float64)
    start = 0
    pairs = zip(trained(), variant(), strict=True) if variant else ((logits, logits) for logits in trained())
    for expected, found in pairs:
        piece = slice(start, start + len(found))
        labels, weight, start = batch.labels[piece], weights[piece], piece.stop
        wanted = expected.log_softmax(1)
        kl = (wanted.exp() * (wanted - found.log_softmax(1))).sum(1) if variant else torch.zeros_like(weight)
        likeliest = found.argmax(1)
        fields = [
            weight,
            torch.ones_like(weight),
            cross_entropy(found, labels, reduction="none") * weight,
            kl * weight,
            likeliest == expected.argmax(1),
            likeliest == labels,
        ]
        stacked = torch.stack([field.cpu().double() for field in fields])
        sums.index_add_(1, owners[piece].cpu(), stacked)
    return sums
