"""Tables by column: Parquet and Arrow, by pyarrow."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import IO, Any

from graftkit import Record, RecordSource
from graftkit.errors import DataError

from graftkit_readers.arrow_buffers import unpacked_sizes
from graftkit_readers.arrow_values import not_read, object_bytes
from graftkit_readers.class_labels import class_labels
from graftkit_readers.limits import MOST_COLUMNS
from graftkit_readers.parquet_pages import MoreThanTablesHave, pages
from graftkit_readers.tables_in_file import AnotherTable

__all__ = ["Arrow", "Parquet"]

_ROWS = 256
"""Rows that are made Python objects at a time, at most."""

_BYTES = 32 << 20
"""Bytes of rows that are made Python objects at a time."""

_ROW = 64
"""Bytes that a row takes at least as a Python object."""

_LARGEST_ROW = 64 << 20
"""Bytes that the objects of one row may take, as `object_bytes` counts them."""

_FEWER = "Write the columns that you train on to another file."

_VALUE = 4
"""Bytes that a value takes at least while it is decoded, whatever it is."""

_DECODED = 16
"""Rows of a Parquet file that are decoded at a time. Each may hold the largest value of a column, named in a few bits;
with fewer, decoding takes longer than making objects."""


class Parquet:
    """Reads Parquet files."""

    def accepts(self, source: RecordSource) -> bool:
        """Tells whether the suffix, or the first bytes, are Parquet's."""
        return source.suffix in (".parquet", ".pq") or source.head[:4] == b"PAR1"

    def records(self, source: RecordSource) -> Iterator[Record]:
        """Yields a record a row; its place is the row's number from 1."""
        with _parquet(source) as (table, largest):
            yield from _records(table.iter_batches(max(1, min(_DECODED, 4 * _BYTES // largest))), source)

    def names(self, source: RecordSource) -> Mapping[str, Sequence[str]]:
        """Returns the words that `datasets` has kept for numbers."""
        with _parquet(source) as (table, _):
            return class_labels(table.schema_arrow)


class Arrow:
    """Reads Arrow IPC files and streams."""

    def accepts(self, source: RecordSource) -> bool:
        """Tells whether the suffix is Arrow's."""
        return source.suffix in (".arrow", ".feather") or source.head[:6] == b"ARROW1"

    def records(self, source: RecordSource) -> Iterator[Record]:
        """Yields a record a row; its place is the row's number from 1."""
        with _arrow(source) as (_, batches):
            yield from _records(batches, source)

    def names(self, source: RecordSource) -> Mapping[str, Sequence[str]]:
        """Returns the words that `datasets` has kept for numbers."""
        with _arrow(source) as (schema, _):
            return class_labels(schema)


@contextmanager
def _parquet(source: RecordSource) -> Iterator[tuple[Any, int]]:
    """Opens a Parquet file; gives it with the size of its largest dictionary."""
    import pyarrow.parquet

    with source.open() as file, _told(source):
        _check_seekable(file, source)
        largest = _check_pages(file, source)
        table = pyarrow.parquet.ParquetFile(_Bounded(file), pre_buffer=False)
        _check_schema(table.schema_arrow, source)
        yield table, largest


@contextmanager
def _arrow(source: RecordSource) -> Iterator[tuple[Any, Iterator[Any]]]:
    """Opens an Arrow file or stream; gives its schema and its batches."""
    import pyarrow.ipc

    with source.open() as file, _told(source):
        if source.head[:6] == b"ARROW1":
            _check_seekable(file, source)
        _check_buffers(source)
        if source.head[:6] == b"ARROW1":
            table = pyarrow.ipc.open_file(_Bounded(file))
            _check_schema(table.schema, source)
            yield table.schema, (table.get_batch(number) for number in range(table.num_record_batches))
        else:
            stream = pyarrow.ipc.open_stream(_Bounded(file))
            _check_schema(stream.schema, source)
            yield stream.schema, iter(stream)


class _Bounded:
    """A file of which a part is read as far as there is one: a damaged table may ask for any number of bytes.

    Args:
        file: The file.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.seek, self.tell, self.seekable = file.seek, file.tell, file.seekable
        self.closed, self.mode = False, "rb"

    def readable(self) -> bool:
        """Returns True."""
        return True

    def read(self, size: int = -1) -> bytes:
        """Reads up to a number of bytes, a megabyte at a time."""
        parts, left = [], size if size is not None and size >= 0 else 1 << 62
        while left > 0 and (part := self._file.read(min(left, 1 << 20))):
            parts.append(part)
            left -= len(part)
        return b"".join(parts)

    def close(self) -> None:
        """Leaves the file open for whoever opened it."""


def _check_seekable(file: IO[bytes], source: RecordSource) -> None:
    """Refuses a compressed table, whose parts can't be found without unpacking all of it."""
    if not file.seekable():
        hint = "Such files are compressed inside: unpack it, and name the file that comes out."
        raise DataError("the table is in a compressed file", where=str(source), hint=hint)


@contextmanager
def _told(source: RecordSource) -> Iterator[None]:
    """Tells what pyarrow raises as a `DataError`."""
    import pyarrow

    try:
        yield
    except MoreThanTablesHave as error:
        raise DataError(str(error), where=str(source), hint=_FEWER) from None
    except AnotherTable as error:
        hint = "Give each table a file of its own; where zeros follow, it is damaged, and has to be written anew."
        raise DataError(str(error), where=str(source), hint=hint) from None
    except (pyarrow.ArrowException, OSError, ValueError, NotImplementedError, MemoryError) as error:
        reason = " ".join(str(error).split())[:300] or "it asks for more memory than there is"
        raise DataError(f"can't be read: {reason}", where=str(source), hint="It is damaged or cut short.") from None


def _check_pages(file: IO[bytes], source: RecordSource) -> int:
    """Refuses a Parquet file with a page that unpacks to more than the file may; returns the largest dictionary's size.

    pyarrow makes room for what a page says of itself. Of columns it is asked nothing: it ends the process where what a
    damaged file says of one is missing.

    Raises:
        DataError: It has such a page.
    """
    largest = 1
    for page in pages(file, MOST_COLUMNS):
        source.check_unpacked(max(page.size, _VALUE * page.values))
        largest = max(largest, page.size) if page.is_dictionary else largest
    file.seek(0)
    return largest


def _check_schema(schema: Any, source: RecordSource) -> None:
    reason = not_read(schema, MOST_COLUMNS)
    if reason:
        raise DataError(reason, where=str(source), hint=_FEWER)


def _check_buffers(source: RecordSource) -> None:
    """Refuses an Arrow file or stream that says of its buffers that they unpack to more than it may.

    Raises:
        DataError: It does.
    """
    total = 0
    with source.open() as file:
        for size in unpacked_sizes(file):
            total += size
            source.check_unpacked(total)


def _records(batches: Iterator[Any], source: RecordSource) -> Iterator[Record]:
    number = unpacked = 0
    for batch in batches:
        batch.validate(full=True)  # offsets of a damaged file may lead anywhere
        source.check_unpacked(unpacked + _ROW * batch.num_rows)
        for part in _parts(batch, source):
            unpacked += _size(part)
            source.check_unpacked(unpacked)
            rows = _Rows(_decoded(part), source)
            for place in range(rows.count):
                number += 1
                yield Record(f"#{number}", rows.loader(place))


def _parts(batch: Any, source: RecordSource) -> Iterator[Any]:
    """Yields a batch's rows, so many at a time that their objects take few bytes.

    Raises:
        DataError: A single row takes very many.
    """
    for start in range(0, batch.num_rows, _ROWS):
        left = [batch.slice(start, _ROWS)]
        while left:
            rows = left.pop()
            size = _size(rows)
            if rows.num_rows > 1 and size > _BYTES:
                half = rows.num_rows // 2
                left += [rows.slice(half), rows.slice(0, half)]
                continue
            if size > _LARGEST_ROW:
                hint = "Cut the record into several, or leave the column out that makes it so large."
                raise DataError(
                    f"a row takes over {_LARGEST_ROW >> 20} MiB when it is read", where=str(source), hint=hint
                )
            yield rows


def _size(rows: Any) -> int:
    """Returns the bytes that rows take, as they are or as objects: whichever is more."""
    made: int = _ROW * rows.num_rows + sum(map(object_bytes, rows.columns))
    return max(int(rows.nbytes), made)


def _decoded(batch: Any) -> Any:
    """Returns a batch whose columns are no dictionaries of values and numbers of them."""
    from pyarrow import DictionaryArray, RecordBatch

    if not any(isinstance(column, DictionaryArray) for column in batch.columns):
        return batch
    columns = [c.dictionary_decode() if isinstance(c, DictionaryArray) else c for c in batch.columns]
    return RecordBatch.from_arrays(columns, names=batch.schema.names)


class _Rows:
    """Some rows of a table, which become Python objects once one of them is wanted."""

    def __init__(self, batch: Any, source: RecordSource) -> None:
        self._batch, self._source = batch, source
        self._made: list[dict[str, Any]] | None = None
        self.count: int = batch.num_rows

    def loader(self, place: int) -> Callable[[], Any]:
        """Returns what loads a row."""
        return lambda: self._all()[place]

    def _all(self) -> list[dict[str, Any]]:
        if self._made is None:
            columns = {name: self._values(name) for name in self._batch.schema.names}
            rows = ({name: values[place] for name, values in columns.items()} for place in range(self.count))
            self._made = [_without_nulls(row) for row in rows]
        return self._made

    def _values(self, name: str) -> list[Any]:
        """Returns the values of a column.

        Raises:
            DataError: Python has none like them, such as dates beyond the year 9999.
        """
        try:
            values: list[Any] = self._batch.column(name).to_pylist()
        except (ArithmeticError, ValueError, NotImplementedError, MemoryError) as error:  # pyarrow's own among them
            reason = " ".join(str(error).split())[:300]
            message = f"values of the column {name!r} can't be read: {reason}"
            raise DataError(message, where=str(self._source), hint=_FEWER) from None
        return values


def _without_nulls(value: Any) -> Any:
    """Returns a value without the nulls of its objects, which in a table all have the same keys."""
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value
