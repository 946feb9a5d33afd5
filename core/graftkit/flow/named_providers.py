"""Readers and formats whose errors name the plugin that raised them.

They are called for every record, too often for the guard around other providers' methods (`graftkit.host.guard`): what
they change in the process is looked at after each stage.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any, NoReturn

from graftkit.errors import GraftkitError, PluginCallError
from graftkit.host.guard import brief
from graftkit.host.records import RegisteredProvider
from graftkit.interfaces.reader import Reader
from graftkit.interfaces.record_format import Column, RecordFormat
from graftkit.interfaces.record_source import Record, RecordSource
from graftkit.interfaces.samples import Sample

__all__ = ["NamedFormat", "NamedReader"]


class _Named:
    def __init__(self, offer: RegisteredProvider) -> None:
        self._offer = offer

    def _raise(self, error: BaseException, place: object) -> NoReturn:
        """Raises an error that names who raised another one; graftkit's own errors, and a stop, as they are."""
        if isinstance(error, GraftkitError | KeyboardInterrupt | GeneratorExit):
            raise error
        what = f"{self._offer.kind} '{self._offer.provider.name}' raised {brief(error)}"
        raise PluginCallError(f"{what}, at {place}", where=self._offer.plugin.label) from error


class NamedReader(_Named):
    """A reader.

    Args:
        reader: The reader.
        offer: The provider and its plugin.
    """

    def __init__(self, reader: Reader, offer: RegisteredProvider) -> None:
        super().__init__(offer)
        self._reader = reader

    def accepts(self, source: RecordSource) -> bool:
        """Asks the reader."""
        try:
            return bool(self._reader.accepts(source))
        except BaseException as error:
            self._raise(error, source)

    def records(self, source: RecordSource) -> Iterator[Record]:
        """Yields the reader's records."""
        records = iter(self._reader.records(source))
        while True:
            try:
                record = next(records)
            except StopIteration:
                return
            except BaseException as error:
                self._raise(error, source)
            yield Record(record.place, self._loader(record, source))

    def _loader(self, record: Record, source: RecordSource) -> Any:
        def load() -> Any:
            try:
                return record.load()
            except BaseException as error:
                self._raise(error, f"{source}{record.place}")

        return load


class NamedFormat(_Named):
    """A format.

    Args:
        format: The format.
        offer: The provider and its plugin.
    """

    def __init__(self, format: RecordFormat, offer: RegisteredProvider) -> None:
        super().__init__(offer)
        self._format = format

    def columns(self, found: Mapping[str, Column]) -> Collection[str] | None:
        """Asks the format."""
        try:
            return self._format.columns(found)
        except BaseException as error:
            self._raise(error, "the columns of a file")

    def sample(self, record: Mapping[str, Any], where: str) -> Sample:
        """Returns the format's sample of a record."""
        try:
            return self._format.sample(record, where)
        except BaseException as error:
            self._raise(error, where)
