"""Token ids of many rows in one safetensors file: ids, which of them are supervised, and where rows begin."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from graftkit.store.files import write_atomic

__all__ = ["Example", "TokenStore"]


@dataclass(frozen=True, slots=True)
class Example:
    """One row as the model sees it.

    Attributes:
        ids: Token ids, `[tokens]`, int64.
        supervised: For each token whether the loss is taken over predicting it, `[tokens]`.
        reply: Where the last supervised stretch begins: what stands before it is the prompt of a generation.
    """

    ids: NDArray[np.int64]
    supervised: NDArray[np.bool_]
    reply: int


@dataclass(frozen=True, slots=True)
class TokenStore:
    """Rows of tokens.

    Attributes:
        ids: The ids of all rows, one after the other, `[tokens]`, uint32.
        supervised: For each of them 1 where it is supervised, `[tokens]`, uint8.
        offsets: Where each row begins, and where the last one ends, `[rows + 1]`, int64.
        replies: Each row's `reply`, `[rows]`, int64.
    """

    ids: NDArray[np.uint32]
    supervised: NDArray[np.uint8]
    offsets: NDArray[np.int64]
    replies: NDArray[np.int64]

    @classmethod
    def of(cls, examples: Iterable[Example]) -> TokenStore:
        """Puts examples one after the other."""
        rows = list(examples)
        lengths = np.array([len(row.ids) for row in rows], dtype=np.int64)
        return cls(
            ids=np.concatenate([row.ids for row in rows] or [np.zeros(0, np.int64)]).astype(np.uint32),
            supervised=np.concatenate([row.supervised for row in rows] or [np.zeros(0, bool)]).astype(np.uint8),
            offsets=np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)]).astype(np.int64),
            replies=np.array([row.reply for row in rows], dtype=np.int64),
        )

    def __len__(self) -> int:
        return len(self.replies)

    def __getitem__(self, row: int) -> Example:
        start, end = int(self.offsets[row]), int(self.offsets[row + 1])
        return Example(
            self.ids[start:end].astype(np.int64),
            self.supervised[start:end].astype(bool),
            int(self.replies[row]),
        )

    def __iter__(self) -> Iterator[Example]:
        return (self[row] for row in range(len(self)))

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each row, `[rows]`."""
        return np.diff(self.offsets)

    def save(self, path: Path) -> None:
        """Writes the store as one file.

        Raises:
            StorageError: The system refused.
        """
        from safetensors.numpy import save

        data = save({"ids": self.ids, "supervised": self.supervised, "offsets": self.offsets, "replies": self.replies})
        write_atomic(path, lambda file: file.write(data))

    @classmethod
    def load(cls, path: Path) -> TokenStore:
        """Reads what `save` wrote."""
        from safetensors.numpy import load_file

        return cls(**load_file(path))
