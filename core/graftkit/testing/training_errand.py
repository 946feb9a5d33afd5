"""What the contract of trained tokenizers has done in a fresh process: see `graftkit.testing.fresh`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from graftkit.flow.base_files.recreate import make_provider
from graftkit.interfaces.vocabulary import TrainingSpec

__all__ = ["train"]


def train(provider: Mapping[str, Any], texts: Sequence[str], vocab_size: int, special_tokens: Sequence[str]) -> str:
    """Trains a tokenizer and returns its fingerprint.

    Args:
        provider: The backend, as JSON.
        texts: What it is trained on.
        vocab_size: How many tokens it has.
        special_tokens: Which special ones it has.
    """
    spec = TrainingSpec(vocab_size, tuple(special_tokens))
    fingerprint: str = make_provider("tokenizer", provider).train(texts, spec).fingerprint
    return fingerprint
