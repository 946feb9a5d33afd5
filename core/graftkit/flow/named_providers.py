"""Readers and formats whose errors name the plugin that raised them.

They are called for every record, too often for the guard around other providers' methods (`graftkit.host.guard`): what
they change in the process is looked at after each stage.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial
from typing import Any, TypeVar

from graftkit.errors import GraftkitError, PluginCallError
from graftkit.host.guard import brief
from graftkit.host.records import RegisteredProvider
from graftkit.interfaces.reader import Reader
from graftkit.interfaces.record_format import Column, RecordFormat
from graftkit.interfaces.record_source import Record, RecordSource
from graftkit.interfaces.samples import Sample

__all__ = ["NamedFormat", "NamedReader"]

Result = TypeVar("Result")


class _Named:
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


class NamedReader(_Named):
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
        records = iter(self._call(source, self._reader.records, source))
        while (record := self._call(source, next, records, None)) is not None:
            yield Record(record.place, partial(self._call, f"{source}{record.place}", record.load))


class NamedFormat(_Named):
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
        return self._call("the columns of a file", self._format.columns, found)

    def sample(self, record: Mapping[str, Any], where: str) -> Sample:
        """Returns the format's sample of a record."""
        return self._call(where, self._format.sample, record, where)
