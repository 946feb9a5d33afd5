"""Readers and formats whose errors, and results of another kind than is due, name their plugin.

They are called for every record, too often for the guard around other providers' methods (`graftkit.host.guard`): what
they change in the process is looked at after each stage.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, TypeVar

from graftkit.errors import GraftkitError, PluginCallError
from graftkit.host.guard import brief
from graftkit.host.records import RegisteredProvider
from graftkit.host.results import kind_named
from graftkit.interfaces.reader import Reader
from graftkit.interfaces.record_format import Column, RecordFormat
from graftkit.interfaces.record_source import Record, RecordSource
from graftkit.interfaces.samples import (
    ROLES,
    Completion,
    Conversation,
    LabelledAnswer,
    LongText,
    Message,
    PreferencePair,
    Sample,
    Text,
    Tokens,
)

__all__ = ["Named", "NamedFormat", "NamedReader"]

Result = TypeVar("Result")


class Named:
    """A provider that is named where it fails.

    Args:
        registered: The provider and its plugin.
    """

    def __init__(self, registered: RegisteredProvider) -> None:
        self._registered = registered

    def _call(self, place: object, function: Callable[..., Result], *arguments: Any) -> Result:
        """Calls a plugin's code; graftkit's own errors, and a stop, pass as they are."""
        try:
            return function(*arguments)
        except (GraftkitError, KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as error:
            what = f"{self._registered.kind} '{self._registered.provider.name}' raised {brief(error)}"
            raise PluginCallError(f"{what}, at {place}", where=self._registered.plugin.label) from error

    def wrong(self, what: str, place: object = None) -> PluginCallError:
        """Returns the error of a result of another kind than is due.

        Args:
            what: What the provider gave.
            place: Of what.
        """
        at = f", at {place}" if place is not None else ""
        return PluginCallError(
            f"{self._registered.kind} '{self._registered.provider.name}' {what}{at}",
            where=self._registered.plugin.label,
        )


class NamedReader(Named):
    """A reader.

    Args:
        reader: The reader.
        registered: The provider and its plugin.
    """

    def __init__(self, reader: Reader, registered: RegisteredProvider) -> None:
        super().__init__(registered)
        self._reader = reader

    def accepts(self, source: RecordSource) -> bool:
        """Asks the reader."""
        return bool(self._call(source, self._reader.accepts, source))

    def records(self, source: RecordSource) -> Iterator[Record]:
        """Yields the reader's records."""
        records = self._call(source, self._reader.records, source)
        if not isinstance(records, Iterable):
            raise self.wrong(f"gave {kind_named(records)} for the records", source)
        records = iter(records)
        while (record := self._call(source, next, records, _END)) is not _END:
            if not isinstance(record, Record):
                raise self.wrong(f"gave {kind_named(record)} in place of a Record", source)
            yield Record(record.place, partial(self._load, source, record))

    def _load(self, source: RecordSource, record: Record) -> Any:
        return self._call(f"{source}{record.place}", record.load)


class NamedFormat(Named):
    """A format.

    Args:
        format: The format.
        registered: The provider and its plugin.
    """

    def __init__(self, format: RecordFormat, registered: RegisteredProvider) -> None:
        super().__init__(registered)
        self._format = format

    def columns(self, found: Mapping[str, Column]) -> Collection[str] | None:
        """Asks the format."""
        columns: Any = self._call("the columns of a file", self._format.columns, found)
        if columns is None:
            return None
        if isinstance(columns, str) or not isinstance(columns, Collection) or not all(map(_is_text, columns)):
            raise self.wrong(
                f"gave {kind_named(columns)} for the columns that it reads, not a collection of their names"
            )
        return columns

    def sample(self, record: Mapping[str, Any], where: str) -> Sample:
        """Returns the format's sample of a record."""
        sample = self._call(where, self._format.sample, record, where)
        wrong = _wrong_with(sample)
        if wrong:
            raise self.wrong(f"gave {wrong}", where)
        return sample


_END = object()


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _wrong_with(sample: object) -> str:
    """Returns what a format must not give; "" where a sample is one."""
    match sample:
        case Conversation(messages):
            if not messages:
                return "a conversation without messages"
            strange = next((message for message in messages if not isinstance(message, Message)), None)
            if strange is not None:
                return f"a conversation with {kind_named(strange)} in place of a message"
            other = next((message.role for message in messages if message.role not in ROLES), None)
            return "" if other is None else f"a message of the role {other!r}: roles are {', '.join(ROLES)}"
        case PreferencePair(chosen, rejected):
            return _wrong_with(chosen) or _wrong_with(rejected)
        case LabelledAnswer(answer):
            return _wrong_with(answer)
        case Completion() | Text() | LongText() | Tokens():
            return ""
    return f"{kind_named(sample)} in place of a sample"
