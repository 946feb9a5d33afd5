"""Token ids of many examples in one safetensors file: what each token weighs in the loss, and columns by name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftkit.errors import StorageError
from graftkit.store.array_file import STORED_TYPES, map_arrays, write_arrays

__all__ = [
    "ARRAYS",
    "BY_EXAMPLE",
    "BY_TOKEN",
    "SEQUENCE",
    "TARGET",
    "TYPE",
    "Example",
    "TokenStore",
    "file_order",
    "prompt_length",
]

ARRAYS: dict[str, np.dtype[Any]] = {
    "offsets": np.dtype("<i8"),
    "prompt_lengths": np.dtype("<i8"),
    "loss_tokens": np.dtype("<i8"),
    "weight_sum": np.dtype("<f8"),
    "loss_weight": np.dtype("<f4"),
    "ids": np.dtype("<u4"),
}
"""The arrays that every store has, in the order in which its file holds them."""

BY_TOKEN, BY_EXAMPLE = "token.", "example."
"""What the arrays of further columns begin with in a file: a number a token, or one an example."""

SEQUENCE = "sequence"
"""The column by token with the number of the sequence that a token is of, where examples have several."""

TYPE = "type"
"""The column by token with its type (`token_type_ids`), where a model has embeddings of those."""

TARGET = "target"
"""The column by token with what is to be said of the token itself: the id that stood there before it was masked, or the
number of its tag. The loss is taken over the tokens themselves, and not over those that follow them."""

_COLUMN = re.compile(r"[a-z][a-z0-9_]{0,63}")

Columns = Mapping[str, NDArray[Any]]

ByExample = Mapping[str, np.generic | NDArray[Any]]
"""An example's further columns by name: a number each, or a row of several, `[n]`."""


@dataclass(frozen=True, slots=True)
class Example:
    """One example as the model sees it.

    Attributes:
        ids: Token ids, `[tokens]`, int64.
        loss_weight: What predicting each token weighs in the loss, `[tokens]`, float32, from 0; 0: it is not learnt.
        prompt_length: The tokens before the last stretch in the loss: the prompt of a generation.
        by_token: Further columns by name, each `[tokens]`, or `[tokens, n]` of several numbers a token.
        by_example: Further numbers by name, such as a group or a target, each of a NumPy type; or a row of them, `[n]`,
            as wide in every example of a store.
    """

    ids: NDArray[np.int64]
    loss_weight: NDArray[np.float32]
    prompt_length: int
    by_token: Columns = field(default_factory=dict)
    by_example: ByExample = field(default_factory=dict)

    @property
    def loss_mask(self) -> NDArray[np.bool_]:
        """For each token whether the loss is taken over predicting it, `[tokens]`."""
        return np.not_equal(self.loss_weight, 0)

    @property
    def sequences(self) -> list[Example]:
        """The sequences that the model computes apart from one another: one, or where there is a column several."""
        numbers = self.by_token.get(SEQUENCE)
        if numbers is None:
            return [self]
        ends = [*(np.flatnonzero(np.diff(numbers)) + 1).tolist(), len(numbers)]
        return [self._stretch(start, end) for start, end in zip([0, *ends[:-1]], ends, strict=True)]

    def _stretch(self, start: int, end: int) -> Example:
        weights = self.loss_weight[start:end]
        return Example(
            self.ids[start:end],
            weights,
            prompt_length(weights),
            {name: values[start:end] for name, values in self.by_token.items()},
            self.by_example,
        )


def prompt_length(loss_weight: NDArray[np.float32]) -> int:
    """Returns how many tokens stand before the last stretch in the loss; all of them where none is in it."""
    learnt = loss_weight != 0
    starts = np.flatnonzero(learnt & ~np.concatenate([[False], learnt[:-1]]))
    return int(starts[-1]) if len(starts) else len(loss_weight)


@dataclass(frozen=True, slots=True)
class TokenStore:
    """Examples as tokens.

    `by_token` and `by_example` are open: whoever makes examples may add a column of any name and of a type of
    `graftkit.store.array_file.STORED_TYPES`; it is stored, mapped, and in every batch under its name. A column may have
    several numbers a token, or an example: a row of the same width each.

    Attributes:
        offsets: Where each example begins, and where the last one ends, `[examples + 1]`, int64.
        prompt_lengths: Each example's `prompt_length`, `[examples]`, int64.
        loss_tokens: How many of its tokens are learnt, `[examples]`, int64; never its first, which nothing predicts,
            unless there is a column `TARGET`.
        weight_sum: The sum of their loss weights, `[examples]`, float64.
        loss_weight: Each token's weight in the loss, `[tokens]`, float32.
        ids: The ids of all examples, one after the other, `[tokens]`, uint32.
        by_token: Further columns by name, each `[tokens]` or `[tokens, n]`.
        by_example: Further columns by name, each `[examples]` or `[examples, n]`.
    """

    offsets: NDArray[np.int64]
    prompt_lengths: NDArray[np.int64]
    loss_tokens: NDArray[np.int64]
    weight_sum: NDArray[np.float64]
    loss_weight: NDArray[np.float32]
    ids: NDArray[np.uint32]
    by_token: Columns = field(default_factory=dict)
    by_example: Columns = field(default_factory=dict)

    @classmethod
    def of(cls, examples: Iterable[Example]) -> TokenStore:
        """Puts examples one after the other.

        Raises:
            ValueError: A loss weight is negative or no number, or columns are as `from_arrays` refuses them.
        """
        examples = list(examples)
        lengths = np.array([len(example.ids) for example in examples], dtype=np.int64)
        by_token = {
            name: np.concatenate(values)
            for name, values in _gathered([example.by_token for example in examples]).items()
        }
        by_example = {
            name: np.array(values) for name, values in _gathered([example.by_example for example in examples]).items()
        }
        return cls.from_arrays(
            ids=np.concatenate([example.ids for example in examples] or [np.zeros(0, np.int64)]).astype(np.uint32),
            loss_weight=np.concatenate(
                [example.loss_weight for example in examples] or [np.zeros(0, np.float32)]
            ).astype(np.float32),
            offsets=np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)]).astype(np.int64),
            prompt_lengths=np.array([example.prompt_length for example in examples], dtype=np.int64),
            by_token=by_token,
            by_example=by_example,
        )

    @classmethod
    def from_arrays(
        cls,
        *,
        ids: NDArray[np.uint32],
        loss_weight: NDArray[np.float32],
        offsets: NDArray[np.int64],
        prompt_lengths: NDArray[np.int64],
        by_token: Columns | None = None,
        by_example: Columns | None = None,
    ) -> TokenStore:
        """Counts what each example teaches.

        Args:
            ids: The tokens of all examples, one after the other, `[tokens]`.
            loss_weight: What each counts in the loss, likewise.
            offsets: Where each example begins, and the end of the last, `[examples + 1]`.
            prompt_lengths: How many tokens of each are its prompt, `[examples]`.
            by_token: Further columns with a value for each token.
            by_example: Further columns with a value for each example.

        Raises:
            ValueError: A loss weight is negative or no number, or a column has a name, a type or a length that a store
                doesn't take.
        """
        if not (np.isfinite(loss_weight) & (loss_weight >= 0)).all():
            raise ValueError("a loss weight is a finite number from 0")
        lengths = np.diff(offsets)
        weights = loss_weight.astype(np.float64)
        if TARGET not in (by_token or {}):
            weights[offsets[:-1][lengths > 0]] = 0
        store = cls(
            offsets,
            prompt_lengths,
            _sums(weights != 0, offsets, np.dtype(np.int64)),
            _sums(weights, offsets, np.dtype(np.float64)),
            loss_weight,
            ids,
            by_token or {},
            by_example or {},
        )
        store._check_columns()
        return store

    def _check_columns(self) -> None:
        for columns, length in ((self.by_token, len(self.ids)), (self.by_example, len(self))):
            for name, values in columns.items():
                if not _COLUMN.fullmatch(name):
                    raise ValueError(f"a column's name is lower-case letters, digits and _, not {name!r}")
                if values.dtype.newbyteorder("<") not in STORED_TYPES:
                    raise ValueError(f"the column {name!r} has the type {values.dtype}, which is not stored")
                if values.shape[:1] != (length,) or values.ndim > 2:
                    raise ValueError(f"the column {name!r} has the shape {list(values.shape)}, not [{length}]")
        both = sorted(self.by_token.keys() & self.by_example.keys())
        if both:
            raise ValueError(f"two columns are called {both[0]!r}, one by token and one by example")

    def __len__(self) -> int:
        return len(self.prompt_lengths)

    def __getitem__(self, example: int) -> Example:
        start, end = int(self.offsets[example]), int(self.offsets[example + 1])
        return Example(
            self.ids[start:end].astype(np.int64),
            np.array(self.loss_weight[start:end]),
            int(self.prompt_lengths[example]),
            {name: np.array(values[start:end]) for name, values in self.by_token.items()},
            {name: np.array(values[example])[()] for name, values in self.by_example.items()},
        )

    def __iter__(self) -> Iterator[Example]:
        return (self[example] for example in range(len(self)))

    @property
    def sequences_per_example(self) -> int:
        """How many sequences each example has."""
        return len(self[0].sequences) if SEQUENCE in self.by_token and len(self) else 1

    @property
    def longest_sequence(self) -> int:
        """Tokens of the longest sequence; 0 without examples."""
        numbers = self.by_token.get(SEQUENCE)
        starts = self.offsets[:-1]
        if numbers is not None:
            starts = np.union1d(starts, np.flatnonzero(np.diff(numbers)) + 1)
        return int(np.diff(np.append(starts, len(self.ids))).max(initial=0))

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each example, `[examples]`."""
        return np.diff(self.offsets)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Returns every array by its name in a file, in the file's order."""
        found = {name: getattr(self, name) for name in ARRAYS}
        found |= {f"{BY_TOKEN}{name}": values for name, values in self.by_token.items()}
        found |= {f"{BY_EXAMPLE}{name}": values for name, values in self.by_example.items()}
        return dict(sorted(found.items(), key=lambda item: file_order(item[0], item[1].dtype)))

    def save(self, path: Path, metadata: Mapping[str, str] | None = None) -> None:
        """Writes the store as one file.

        Args:
            path: The file.
            metadata: What its header says besides.

        Raises:
            StorageError: The system refused.
        """
        arrays = self.arrays()
        described = [(name, values.dtype, values.shape) for name, values in arrays.items()]
        write_arrays(path, described, lambda name, file: file.write(arrays[name].tobytes()), metadata or {})

    @classmethod
    def load(cls, path: Path) -> TokenStore:
        """Maps a stored file into memory: examples are read from the disk when they are asked for.

        Raises:
            StorageError: The file can't be read, is damaged, or was written before stores had loss weights.
        """
        arrays = map_arrays(path, ARRAYS, (BY_TOKEN, BY_EXAMPLE))
        store = cls(
            **{name: arrays[name] for name in ARRAYS},
            by_token=_beginning_with(BY_TOKEN, arrays),
            by_example=_beginning_with(BY_EXAMPLE, arrays),
        )
        tokens, examples = len(store.ids), len(store)
        found = (len(store.loss_weight), len(store.offsets), len(store.loss_tokens), len(store.weight_sum))
        flat = all(values.ndim == 1 for name, values in arrays.items() if name in ARRAYS)
        if not flat or found != (tokens, examples + 1, examples, examples) or store.offsets[-1] != tokens:
            raise StorageError("the stored tokens are damaged: its arrays do not fit together", where=str(path))
        try:
            store._check_columns()
        except ValueError as error:
            raise StorageError(f"the stored tokens are damaged: {error}", where=str(path)) from None
        return store


def _beginning_with(prefix: str, arrays: Columns) -> Columns:
    return {name.removeprefix(prefix): values for name, values in arrays.items() if name.startswith(prefix)}


def file_order(name: str, dtype: np.dtype[Any]) -> tuple[int, str]:
    """Sorts arrays as the safetensors library does: by their types, the largest items first, then by name."""
    return list(STORED_TYPES).index(dtype.newbyteorder("<")), name


def _gathered(columns: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Returns the values of each column, an entry an example.

    Raises:
        ValueError: Examples differ in their columns, or in a column's type.
    """
    names = columns[0].keys() if columns else ()
    if any(found.keys() != names for found in columns):
        raise ValueError("the examples of a store have the same columns")
    gathered = {name: [found[name] for found in columns] for name in names}
    for name, values in gathered.items():
        if len({np.asarray(value).dtype for value in values}) > 1:
            raise ValueError(f"the column {name!r} has several types")
    return gathered


def _sums(values: NDArray[Any], offsets: NDArray[np.int64], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Returns the sum over each example; those of one example depend on nothing around it."""
    filled = np.diff(offsets) > 0
    found = np.zeros(len(filled), dtype)
    if filled.any():
        found[filled] = np.add.reduceat(values, offsets[:-1][filled], dtype=dtype)
    return found
