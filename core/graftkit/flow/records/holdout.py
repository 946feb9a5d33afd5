"""Holdout records as tokens of any tokenizer, and how much text they are: what bits per byte are made of."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from graftkit.corpus.encode import Encoder
from graftkit.interfaces.samples import Sample
from graftkit.interfaces.tokenizer import Tokenizer
from graftkit.store.token_store import TokenStore

__all__ = ["encode_samples", "loss_bytes"]


def encode_samples(encoder: Encoder, samples: Iterable[Sample]) -> TokenStore:
    """Returns records as tokens.

    Raises:
        DataError: A record can't be laid out.
    """
    return TokenStore.of(example for sample in samples for example in encoder.encode(sample).examples)


def loss_bytes(store: TokenStore, tokenizer: Tokenizer) -> float:
    """Returns the bytes of text that the tokens in the loss stand for, each with its weight in the loss.

    Special tokens stand for none.
    """
    learnt = store.loss_weight != 0
    weights = np.bincount(store.ids[learnt], weights=store.loss_weight[learnt])
    ids = np.flatnonzero(weights)
    special = set(tokenizer.special_tokens.values())
    found = zip(ids.tolist(), weights[ids].tolist(), strict=True)
    return sum((weight * len(tokenizer.token_bytes(id)) for id, weight in found if id not in special), start=0.0)
