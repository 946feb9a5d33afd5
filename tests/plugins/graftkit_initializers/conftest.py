"""New rows to make, of numbers rather than of texts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from graftkit import NewRows


class Words:
    """A tokenizer whose texts are numbers with spaces between."""

    def __init__(self, vocab_size: int) -> None:
        self.vocab_size = vocab_size

    def encode(self, text: str) -> list[int]:
        return [int(word) for word in text.split()]


MakeNewRows = Callable[..., NewRows]


@pytest.fixture(scope="session")
def new_rows() -> MakeNewRows:
    def make(
        parts: Sequence[Sequence[int]],
        *,
        role: Any = "tied",
        texts: Iterable[str] = (),
        hidden: int = 6,
        spare: int = 0,
        base_size: int = 20,
    ) -> NewRows:
        weight = torch.randn(base_size + spare, hidden, generator=torch.Generator().manual_seed(3))
        weight[base_size:] = 1e6
        ids = range(base_size, base_size + len(parts))
        base: Any = SimpleNamespace(vocab_size=base_size)
        tokenizer: Any = Words(base_size + len(parts))
        return NewRows(weight, role, ids, parts, base, tokenizer, {id: id for id in range(base_size)}, texts)

    return make
