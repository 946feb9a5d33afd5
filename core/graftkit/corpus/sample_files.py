"""The records of some files: validated once, read again at each iteration, never held in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from graftkit.corpus.answers_compared import shown
from graftkit.corpus.dataset import Dataset
from graftkit.corpus.sample_digest import DIGEST, digest_sample, digest_text
from graftkit.errors import DataError
from graftkit.interfaces.samples import (
    Completion,
    Conversation,
    LongText,
    Sample,
    SimilarTexts,
    Text,
    Tokens,
)
from graftkit.option_names import option

__all__ = ["Samples", "scan_samples"]

_NAMES: Mapping[str, tuple[type[Any], ...]] = {
    "chat": (Conversation,),
    "completion": (Completion,),
    "text": (Text, LongText, SimilarTexts),
    "tokens": (Tokens,),
}
"""What records are called by what they show, and the classes that theirs derive from."""

_KINDS: Mapping[type[Any], int] = {
    sample: kind
    for kind, classes in enumerate(_NAMES.values())
    for sample in get_args(Sample)
    if issubclass(sample, classes)
}

Digests = NDArray[np.bytes_]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Samples:
    """Some of the records of some files, in their order; may be iterated again and again.

    Attributes:
        read: Reads the records that a mask says, `[all samples]`.
        digests: A digest of each record's content, `[all samples]`: equal records have equal ones.
        draws: What draws each record in the draw of holdout records, `[all samples]`; empty where none is drawn.
        kinds: Each record's shape, `[all samples]`.
        kept: Which of all records these are, `[all samples]`.
        sizes: How many of all records each file has, in their order.
        groups: A digest of what each record shares with those that are held out, or not, together with it, `[all
            samples]`; empty where they are drawn one by one.
    """

    read: Callable[[Mask], Iterator[Sample]]
    digests: Digests
    draws: Digests
    kinds: NDArray[np.uint8]
    kept: Mask
    sizes: Sequence[int] = ()
    groups: Digests = field(default_factory=lambda: np.zeros(0, DIGEST))

    def __len__(self) -> int:
        return int(np.count_nonzero(self.kept))

    def __iter__(self) -> Iterator[Sample]:
        return self.read(self.kept)

    def after(self, count: int) -> Iterator[Sample]:
        """Yields the records after the first `count`, which are not parsed."""
        rest = self.kept.copy()
        rest[np.flatnonzero(rest)[:count]] = False
        return self.read(rest)

    def only(self, wanted: Mask) -> Samples:
        """Returns the records that a mask selects, `[all samples]`."""
        return replace(self, kept=self.kept & wanted)

    def at(self, numbers: Collection[int]) -> Samples:
        """Returns the records with these numbers, counted from 0, in their order."""
        wanted = np.zeros(len(self.kept), bool)
        wanted[np.flatnonzero(self.kept)[list(numbers)]] = True
        return self.only(wanted)

    @property
    def has_chat(self) -> bool:
        """Whether there is a conversation, of pairs and labelled answers, too."""
        return bool((self.kept & (self.kinds == _KINDS[Conversation])).any())

    def chats(self) -> Iterator[Conversation]:
        """Yields the conversations, of pairs the chosen ones, without parsing the other records."""
        found = map(shown, self.read(self.kept & (self.kinds == _KINDS[Conversation])))
        return (sample for sample in found if isinstance(sample, Conversation))

    def counts(self) -> dict[str, int]:
        """Returns kind of record -> count."""
        found = np.bincount(self.kinds[self.kept], minlength=len(_NAMES))
        return {name: int(count) for name, count in zip(_NAMES, found, strict=True) if count}

    def counts_by_file(self) -> list[int]:
        """Returns how many of these records each file has, in the files' order."""
        ends = np.cumsum(self.sizes, dtype=np.int64)[:-1]
        return [int(np.count_nonzero(part)) for part in np.split(self.kept, ends)]

    @property
    def fingerprint(self) -> str:
        """A sha256, in hex, of the records' contents in their order."""
        return hashlib.sha256(self.digests[self.kept].tobytes()).hexdigest()


def scan_samples(
    datasets: Sequence[Dataset],
    seed: int | None = None,
    fits: Callable[[Sample], None] = lambda sample: None,
    most: int | None = None,
) -> Samples:
    """Reads every record of some files once, to check it.

    Args:
        datasets: The files; of one that says `by` records with the same value of that column are drawn together.
        seed: Places the records in a draw of holdout ones; None where none is to be drawn.
        fits: Called with each record; raises a `DataError` where the run can't use it.
        most: Where there are more records, so many, evenly spread, are checked, and the others only counted: those are
            not `kept`. None for no limit.

    Returns:
        All records. Of each, a digest and its shape are kept in memory, about 40 bytes.

    Raises:
        DataError: A file can't be read, or a record is malformed or of another shape; with file and line.
    """
    datasets = tuple(datasets)
    digests, draws, groups, kinds, kept = bytearray(), bytearray(), bytearray(), bytearray(), bytearray()
    states = [_state(dataset.source.path) for dataset in datasets]
    stride = 1 if most is None else -(-sum(dataset.count() for dataset in datasets) // most) or 1
    sizes = []
    for dataset in datasets:
        before = len(kinds)
        spread = ((one, None) for one in dataset.spread(stride, before))
        for sample, group in dataset.grouped() if stride == 1 else spread:
            digest, draw, kind = bytes(DIGEST.itemsize), b"" if seed is None else bytes(DIGEST.itemsize), 0
            if sample is not None:
                fits(sample)
                digest, draw = digest_sample(sample, seed)
                kind = _KINDS[type(shown(sample))]
            if group is not None:
                shared, draw = digest_text(group, seed)
                groups += shared
            digests += digest
            draws += draw
            kinds.append(kind)
            kept.append(sample is not None)
        sizes.append(len(kinds) - before)

    found = np.frombuffer(digests, DIGEST)

    def read(wanted: Mask) -> Iterator[Sample]:
        start = 0
        for dataset, state, size in zip(datasets, states, sizes, strict=True):
            if wanted[start : start + size].any():
                part = slice(start, start + size)
                yield from _read(dataset, state, wanted[part], found[part])
            start += size

    shapes, mask = np.frombuffer(kinds, np.uint8), np.frombuffer(kept, np.bool_)
    return Samples(read, found, np.frombuffer(draws, DIGEST), shapes, mask, sizes, np.frombuffer(groups, DIGEST))


def _state(path: Path) -> tuple[int, int]:
    try:
        facts = path.stat()
    except (OSError, ValueError):  # whoever opens it says so
        return 0, 0
    return facts.st_size, facts.st_mtime_ns


def _read(dataset: Dataset, state: tuple[int, int], wanted: Mask, digests: Digests) -> Iterator[Sample]:
    """Reads some of a file's records again, which must be those that were checked.

    Args:
        dataset: The file.
        state: Its size and time then.
        wanted: Which of its records are read, `[records]`.
        digests: What they were then, `[records]`.
    """
    path = dataset.source.path
    if _state(path) != state:
        raise DataError(
            "the file has changed since its records were checked",
            where=str(path),
            hint=f"Put the old records back, and go on with {option('resume')} where a step was taken; or start again.",
        )
    number = -1
    for number, sample in enumerate(dataset.after(iter(wanted))):
        if sample is None:
            continue
        if not isinstance(sample, LongText) and digest_sample(sample)[0].rstrip(b"\0") != digests[number]:
            raise _other(dataset, sample.where, "the record is another than the one that was checked")
        yield sample
    if number + 1 != len(wanted):
        told = f"{number + 1:,} records were read, {len(wanted):,} when they were checked"
        raise _other(dataset, str(dataset.source), told)


def _other(dataset: Dataset, where: str, told: str) -> DataError:
    makers = f"the reader {dataset.reader_name} and the format {dataset.format_name}"
    return DataError(told, where=where, hint=f"The file is the same: {makers} must make the same of it each time.")
