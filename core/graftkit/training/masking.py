"""Which tokens of a text are masked: a pure function of the seed, the epoch and the example's number.

As in BERT (Devlin et al., 2018, https://arxiv.org/abs/1810.04805), and as transformers' own
DataCollatorForLanguageModeling does by default: each token is drawn with the same probability; of those drawn 80%
become the mask token, 10% a token drawn from the whole vocabulary, 10% stay. Of a text of which none would be drawn one
token is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np

from graftkit.store.fingerprint import derived_seed
from graftkit.store.token_store import TARGET, Example, TokenStore

__all__ = ["MaskedStore", "Masking", "epochs_of"]

_AS_MASK, _AS_ANY = 0.8, 0.9
"""Where in [0, 1) a masked token's fate ends: the mask token, then any token, then itself."""


@dataclass(frozen=True, slots=True)
class Masking:
    """How tokens are masked.

    Attributes:
        seed: What the draws are derived from.
        share: How likely a token is drawn.
        mask: The id of the mask token.
        vocabulary: How many ids there are that the model has rows for.
    """

    seed: int
    share: float
    mask: int
    vocabulary: int

    def masked(self, example: Example, number: int, epoch: int) -> Example:
        """Returns an example with some of its tokens masked, of those with a weight in the loss; these alone keep it.

        Args:
            example: The example.
            number: Its number.
            epoch: How often it has been seen before.
        """
        random = np.random.Generator(np.random.PCG64(derived_seed(self.seed, "masking", f"{epoch}:{number}")))
        places = np.flatnonzero(example.loss_weight)
        draws, fates = random.random(len(places)), random.random(len(places))
        others = random.integers(0, self.vocabulary, len(places))
        chosen = draws < self.share
        if len(places) and not chosen.any():
            chosen[draws.argmin()] = True
        ids, weights = example.ids.copy(), np.zeros_like(example.loss_weight)
        changed = np.where(fates < _AS_MASK, self.mask, np.where(fates < _AS_ANY, others, ids[places]))
        ids[places[chosen]] = changed[chosen]
        weights[places[chosen]] = example.loss_weight[places[chosen]]
        column = {**example.by_token, TARGET: example.ids.astype(np.int64)}
        return replace(example, ids=ids, loss_weight=weights, by_token=column)


@dataclass(frozen=True, slots=True)
class MaskedStore(TokenStore):
    """A store whose examples are masked as they are read, the same way each time: holdout examples.

    Attributes:
        masking: How they are.
    """

    masking: Masking | None = None

    @classmethod
    def over(cls, store: TokenStore, masking: Masking) -> MaskedStore:
        """Returns the store with its examples masked."""
        return cls(**{field.name: getattr(store, field.name) for field in fields(TokenStore)}, masking=masking)

    def __getitem__(self, example: int) -> Example:
        found = TokenStore.__getitem__(self, example)
        return self.masking.masked(found, example, 0) if self.masking else found


def epochs_of(plan: Sequence[Sequence[int]]) -> list[list[int]]:
    """Returns how often each example of each step has been seen before it.

    Example:
        >>> epochs_of([[0, 1], [1, 0]])
        [[0, 0], [1, 1]]
    """
    seen: Counter[int] = Counter()
    found: list[list[int]] = []
    for examples in plan:
        times = []
        for example in examples:
            times.append(seen[example])
            seen[example] += 1
        found.append(times)
    return found
