"""Log-probabilities of tokens by the model as training starts, which objectives compare with."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray
from torch import nn

from graftkit.interfaces.frozen_weight import FrozenWeight
from graftkit.store.token_store import TokenStore
from graftkit.training.loss import TokenLoss
from graftkit.training.step_loss import Passes

__all__ = ["KeptStart", "rounding", "score_groups"]


class KeptStart:
    """What is trained, as it is when this is made: a copy of each parameter.

    Args:
        parameters: What is trained.
    """

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        self._kept = [(parameter, parameter.detach().clone()) for parameter in parameters]

    @contextmanager
    def put_back(self) -> Iterator[None]:
        """Has the model compute with it for a while."""
        trained = [parameter.data for parameter, _ in self._kept]
        try:
            for parameter, kept in self._kept:
                parameter.data = kept
            yield
        finally:
            for (parameter, _), own in zip(self._kept, trained, strict=True):
                parameter.data = own


@contextmanager
def rounding(network: nn.Module) -> Iterator[None]:
    """Has frozen weights that round their products in training do so, while the network is in evaluation mode.

    What is compared with the start is then computed as the start was: before the first step they are equal.
    """
    weights = [each for each in network.modules() if isinstance(each, FrozenWeight) and each.rounds_products]
    trained = [weight.training for weight in weights]
    for weight in weights:
        weight.train()
    try:
        yield
    finally:
        for weight, before in zip(weights, trained, strict=True):
            weight.train(before)


def score_groups(
    loss: TokenLoss,
    passes: Passes,
    store: TokenStore,
    groups: Sequence[Sequence[int]],
    found: NDArray[np.float32],
    before: Callable[[Sequence[int]], None],
) -> None:
    """Puts the log-probability of each token in the loss of this process's groups into an array.

    Args:
        loss: What scores tokens.
        passes: How examples are cut into passes, and who computes which.
        store: The examples.
        groups: The numbers of some, by pass; those of a group are neighbours.
        found: Where they are put, `[tokens of the store]`.
        before: Called before each group with the numbers of its examples; raises to stop.
    """
    for number in passes.own(store, groups):
        before(groups[number])
        at = int(store.offsets[groups[number][0]])
        for batch in passes.batches([store[example] for example in groups[number]]):
            logps = loss.score(batch, learn=False).logps.cpu().numpy()
            found[at + batch.logit_positions.cpu().numpy() + 1] = logps
            at += batch.tokens
