"""One file of records, as samples."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from graftkit.corpus.columns import columns_of
from graftkit.errors import DataError, NothingToLearn
from graftkit.interfaces.reader import Reader
from graftkit.interfaces.record_format import RecordFormat, kind_of
from graftkit.interfaces.record_source import Record, RecordSource
from graftkit.interfaces.samples import (
    MOST_CALLS,
    MOST_MESSAGES,
    Conversation,
    LabelledAnswer,
    PreferencePair,
    Prompt,
    Sample,
    Unanswered,
)
from graftkit.interfaces.yaml_word import yaml_word
from graftkit.suggest import nearest
from graftkit.visible import one_line

__all__ = ["LOOKED_AT", "Dataset", "HubOrigin", "first_records"]

LOOKED_AT = 100
"""How many records at a file's beginning say what it holds."""


@dataclass(frozen=True, slots=True)
class HubOrigin:
    """Where files come from that were fetched from the hub.

    Attributes:
        data_set: "hub:owner/name".
        revision: The branch, tag or commit that the recipe means.
        commit: The commit that it was.
        files: How many files are read.
        size: Their bytes.
        cached: Whether the hub could not be asked, so that the files are those of an earlier download.
    """

    data_set: str
    revision: str
    commit: str
    files: int
    size: int
    cached: bool

    def describe(self) -> str:
        """Says what was read, for a notice."""
        many = "1 file" if self.files == 1 else f"{self.files:,} files"
        named = "" if self.revision == self.commit else f"the revision {self.revision} is "
        told = f"{self.data_set}: {named}the commit {self.commit}; {many}, {self.size:,} bytes"
        return f"{told}, of those that were fetched earlier: the hub was not asked" if self.cached else told


@dataclass(frozen=True, slots=True)
class Dataset:
    """A file, who reads it and as what.

    Attributes:
        source: The file.
        reader: Reads its records.
        reader_name: What a recipe calls the reader.
        format: Makes samples of them.
        format_name: What a recipe calls the format.
        columns: The format's name of a column -> the file's.
        known: The file's columns that are read.
        unused: The file's columns that are known not to be read; None where any may be.
        entry: The number of the recipe's entry that names the file.
        origin: Where the file was fetched from; None where it lay on this machine.
        skip_empty: Whether records with nothing to learn are left out.
        first: How many of its records are read, from its beginning on; None for all.
        later: The files that its entry names after it.
        answers_itself: Whether the model answers records itself, so that they need no expected answer.
        describe: Says what is read into a record that it doesn't say itself; None where nothing ever is.
        by: The file's own name of a column whose value records share that are held out together; None for no such one.
        left: Filled while the file is read: each column that is neither -> where it was found first.
        skipped: Filled likewise: the numbers of the records that are left out, from 0.
        counted: Filled once it is known: how many records are read.
        described: Filled while the file is read: what `describe` said, each thing once, in order; the first few.
    """

    source: RecordSource
    reader: Reader
    reader_name: str
    format: RecordFormat
    format_name: str
    columns: Mapping[str, str] = field(default_factory=dict)
    known: frozenset[str] = frozenset()
    unused: frozenset[str] | None = None
    entry: int = 0
    origin: HubOrigin | None = None
    skip_empty: bool = False
    first: int | None = None
    later: Sequence[Path] = ()
    answers_itself: bool = False
    describe: Callable[[Mapping[str, Any]], str] | None = None
    by: str | None = None
    left: dict[str, str] = field(default_factory=dict)
    skipped: array[int] = field(default_factory=lambda: array("Q"))
    counted: list[int] = field(default_factory=list)
    described: dict[str, None] = field(default_factory=dict)

    @property
    def reading(self) -> str:
        """What is read into its records, as far as they were read, that they don't say; "" for nothing."""
        return "; ".join(self.described)

    def note_reading(self, record: Mapping[str, Any]) -> None:
        """Keeps what is read into a record, under the format's names of columns, that it doesn't say itself."""
        if self.describe is not None and len(self.described) < _SHOWN_READINGS and (told := self.describe(record)):
            self.described[told] = None

    def facts(self) -> dict[str, Any]:
        """Returns what is read, and as what, as JSON."""
        facts: dict[str, Any] = {"path": str(self.source), "reader": self.reader_name, "format": self.format_name}
        if self.origin:
            facts |= {"data_set": self.origin.data_set, "revision": self.origin.revision, "commit": self.origin.commit}
        facts |= {"first": self.first} if self.first is not None else {}
        facts |= {"skipped": len(self.skipped)} if self.skipped else {}
        return facts | {"columns": dict(self.columns)} if self.columns else facts

    def __iter__(self) -> Iterator[Sample]:
        """Yields a sample a record, but for those that are left out.

        Raises:
            DataError: The file can't be read, a record is malformed or of another shape, or there is none.
        """
        return (sample for sample, _ in self.grouped())

    def grouped(self) -> Iterator[tuple[Sample, str | None]]:
        """Yields the same, each with the value that it shares with its group; with None where there are no groups.

        Raises:
            DataError: As for the samples alone, or a record has no such value.
        """
        number = -1
        for number, record in enumerate(self._records()):
            values, where = self._loaded(record)
            try:
                sample = self._sample(values, where)
            except NothingToLearn:
                if not self.skip_empty:
                    raise
                self._skip(number)
                continue
            yield sample, None if self.by is None else _shared(values, self.by, where)
        if number < 0:
            raise _no_record(self.source)
        self.counted[:] = [number + 1]

    def spread(self, stride: int, start: int) -> Iterator[Sample | None]:
        """Yields an item a record: of one in every `stride` the sample, unless it is left out, else None.

        Records that are not looked at are not known to be left out.

        Args:
            stride: How many records there are to each one that is looked at.
            start: The number of the first record among those of all files.

        Raises:
            DataError: As for the samples.
        """
        for number, record in enumerate(self._records()):
            try:
                yield None if (start + number) % stride else self.sample(record)
            except NothingToLearn:
                if not self.skip_empty:
                    raise
                self._skip(number)

    def _skip(self, number: int) -> None:
        if not self.skipped or number > self.skipped[-1]:
            self.skipped.append(number)

    def count(self) -> int:
        """Counts the records that are read, without parsing them, unless it is known how many they are.

        Raises:
            DataError: The file can't be read, or there is none.
        """
        if not self.counted:
            found = sum(1 for _ in self._records())
            if not found:
                raise _no_record(self.source)
            self.counted[:] = [found]
        return self.counted[0]

    def after(self, wanted: Iterator[bool]) -> Iterator[Sample | None]:
        """Yields an item a sample, once all records have been read: the sample where it is wanted, else None.

        Whoever calls it compares what comes with what came first.
        """
        skipped = iter(self.skipped)
        out = next(skipped, None)
        for number, record in enumerate(self._records()):
            if number == out:
                out = next(skipped, None)
                continue
            yield self.sample(record) if next(wanted, False) else None

    def sample(self, record: Record) -> Sample:
        """Returns what the format makes of a record.

        Raises:
            DataError: It is malformed or of another shape, has a column that is neither read nor known not to be, or
                more messages or tool calls than are read.
        """
        return self._sample(*self._loaded(record))

    def _loaded(self, record: Record) -> tuple[Mapping[str, Any], str]:
        """Returns a record's columns under the file's own names, and its place."""
        where = f"{self.source}{record.place}"
        return _columns(record, where), where

    def _sample(self, own: Mapping[str, Any], where: str) -> Sample:
        values = _renamed(own, self.columns, where)
        if not values.keys() <= self.known:
            self._check_columns(values, where)
        try:
            sample = self.format.sample(values, where)
            if isinstance(sample, Unanswered) and not self.answers_itself:
                raise self._unanswered(sample)
        except NothingToLearn as error:
            hint = error.hint or f"{self._skipping}."
            raise NothingToLearn(error.message, where=error.where, hint=hint) from None
        except DataError as error:
            hint = error.hint or f"The file is read as {self.format_name}, as its first records are."
            raise DataError(error.message, where=error.where, hint=hint) from None
        _check_size(sample)
        self.note_reading(values)
        return sample

    @property
    def _skipping(self) -> str:
        """Says what leaves records out that there is nothing to learn of."""
        return f"To leave such records out, counted and told: {{path: {yaml_word(self.source.path.name)}, empty: skip}}"

    def _unanswered(self, sample: Unanswered) -> NothingToLearn:
        """Says that nothing is learnt of a record without an expected answer, and what there is to do."""
        file, ways = yaml_word(self.source.path.name), [self._skipping]
        if isinstance(sample, Prompt):
            said = any(message.role == "assistant" for message in sample.messages)
            told = "every message has the weight 0" if said else "no turn of the assistant"
        else:
            told = "a prompt and no answer"
            ways = [
                f"Where another column answers it: {{path: {file}, format: prompt-completion, columns: "
                "{completion: YOURS}}",
                f"To learn the texts alone: {{path: {file}, format: text, columns: {{text: prompt}}}}",
            ]
        ways.append("To have the model answer it itself: objective: grpo")
        return NothingToLearn(f"{told}: there is nothing to learn", where=sample.where, hint=f"{'. '.join(ways)}.")

    def _records(self) -> Iterator[Record]:
        return islice(self.reader.records(self.source), self.first)

    def _check_columns(self, values: Mapping[str, Any], where: str) -> None:
        """Keeps the columns of a record that are not read, or refuses them."""
        over = values.keys() - self.known - self.left.keys() - (self.unused or frozenset())
        if not over:
            return
        read = self.format.columns(columns_of([values])) or ()  # one that the first records did not have
        for name in sorted(over - {*read}):
            if self.unused is not None:
                unused = ", ".join(map(one_line, sorted({*self.unused, name})))
                raise DataError(
                    f"the column '{one_line(name)}' is not read as {self.format_name}, and not among the unused ones",
                    where=where,
                    hint=f"Add it: unused: [{unused}]; or say unused: report.",
                )
            self.left[name] = where
        if len(self.left) > _MOST_COLUMNS:
            raise DataError(
                f"its records have over {_MOST_COLUMNS:,} columns that are not read, one is '{one_line(name)}'",
                where=where,
                hint="Are its keys data? Then put them into one column.",
            )


def _check_size(sample: Sample) -> None:
    """Refuses a record of more messages or tool calls than are laid out in a few seconds."""
    match sample:
        case Conversation():
            calls = sum(len(message.tool_calls) for message in sample.messages)
            for count, most, what in (
                (len(sample.messages), MOST_MESSAGES, "messages"),
                (calls, MOST_CALLS, "tool calls"),
            ):
                if count > most:
                    raise DataError(
                        f"it has {count:,} {what}; at most {most:,} of a record are read",
                        where=sample.where,
                        hint="Make several records of it: what is longer than data.max_length is cut or left out.",
                    )
        case PreferencePair():
            _check_size(sample.chosen)
            _check_size(sample.rejected)
        case LabelledAnswer():
            _check_size(sample.answer)


def first_records(
    reader: Reader, source: RecordSource, columns: Mapping[str, str]
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yields a file's first records, each with its file and line, under the format's names of columns.

    They are read one by one: a hundred of the largest that are read take gigabytes.

    Raises:
        DataError: The file can't be read, a record is malformed, or there is none.
    """
    record = None
    for record in islice(reader.records(source), LOOKED_AT):
        where = f"{source}{record.place}"
        yield where, _renamed(_columns(record, where), columns, where)
    if record is None:
        raise _no_record(source)


def _no_record(source: RecordSource) -> DataError:
    return DataError("there is no record in it", where=str(source))


def _columns(record: Record, where: str) -> Mapping[str, Any]:
    """Returns a record's columns that are not null."""
    values = record.load()
    if not isinstance(values, dict):
        hint = f"{_OBJECT} {_MADE_OBJECTS.get(kind_of(values), '')}".rstrip()
        raise DataError(f"the record is {kind_of(values)}, no object", where=where, hint=hint)
    if len(values) > _MOST_COLUMNS:
        raise DataError(f"the record has {len(values):,} columns; at most {_MOST_COLUMNS:,} are read", where=where)
    return {str(name): value for name, value in values.items() if value is not None}


def _renamed(values: Mapping[str, Any], columns: Mapping[str, str], where: str) -> Mapping[str, Any]:
    """Returns a record under the names that the format knows."""
    if not columns:
        return values
    theirs = {name: ours for ours, name in columns.items()}
    clash = next((ours for ours, name in columns.items() if ours in values and ours not in theirs), None)
    if clash is not None and columns[clash] in values:
        raise DataError(
            f"columns maps '{clash}' to '{columns[clash]}', but the record has a column '{clash}', too",
            where=where,
            hint=f"Name that one as well: columns: {{OTHER: {clash}}}.",
        )
    return {theirs.get(name, name): value for name, value in values.items()}


def _shared(values: Mapping[str, Any], by: str, where: str) -> str:
    """Returns the value of the column by which records are held out together, as a text: 7 of a table is "7" of a csv.

    Raises:
        DataError: The record has none, or one that is no text and no number.
    """
    value = values.get(by, "")
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = str(value) if isinstance(value, str | int | float) and value == value else ""  # a table's NaN is none
    if text.strip():
        return text
    lacks = isinstance(value, str | float)
    told = (
        f"has no value of '{one_line(by)}'" if lacks else f"has {kind_of(value)} as '{one_line(by)}', no text or number"
    )
    raise DataError(
        f"the record {told}: records are held out together by that column (data.holdout_by)",
        where=where,
        hint=f"{'' if by in values else nearest(by, map(one_line, values))}Every record needs one.",
    )


_SHOWN_READINGS = 3
"""How many things are told that are read into a file's records."""

_MOST_COLUMNS = 10_000
"""Columns that are kept count of; more than any table of texts has."""

_OBJECT = (
    'A record is an object, such as {"messages": [...]}, {"prompt": "...", "completion": "..."} or {"text": "..."}.'
)

_MADE_OBJECTS = {
    "a list": "Where each list is a conversation, this makes records: jq -c '{messages: .}' FILE > records.jsonl; "
    "where it is a pair of texts: jq -c '{query: .[0], positive: .[1]}' FILE > records.jsonl",
    "a string": "Where each string is a text, this makes records: jq -c '{text: .}' FILE > records.jsonl",
}
"""What to do about records that are no objects."""
