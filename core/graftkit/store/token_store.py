"""Token ids of many rows in one safetensors file: ids, which of them are supervised, and where rows begin."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftkit.errors import StorageError
from graftkit.store.array_file import map_arrays, write_arrays

__all__ = ["ARRAYS", "Example", "TokenStore"]

ARRAYS: dict[str, np.dtype[Any]] = {
    "offsets": np.dtype("<i8"),
    "replies": np.dtype("<i8"),
    "ids": np.dtype("<u4"),
    "supervised": np.dtype("u1"),
}
"""A store's arrays in the order in which its file holds them."""


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

    def save(self, path: Path, metadata: Mapping[str, str] | None = None) -> None:
        """Writes the store as one file.

        Args:
            path: The file.
            metadata: What its header says besides.

        Raises:
            StorageError: The system refused.
        """
        arrays = [(name, dtype, len(getattr(self, name))) for name, dtype in ARRAYS.items()]
        write_arrays(path, arrays, lambda name, file: file.write(getattr(self, name).tobytes()), metadata or {})

    @classmethod
    def load(cls, path: Path) -> TokenStore:
        """Maps a stored file into memory: rows are read from the disk when they are asked for.

        Raises:
            StorageError: The file can't be read, or is damaged.
        """
        store = cls(**map_arrays(path, ARRAYS))
        tokens, rows = len(store.ids), len(store.replies)
        if (len(store.supervised), len(store.offsets)) != (tokens, rows + 1) or store.offsets[-1] != tokens:
            raise StorageError("the stored tokens are damaged: its arrays do not fit together", where=str(path))
        return store
