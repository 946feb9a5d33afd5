"""A file of records, as readers see it: unpacked, as UTF-8, with errors that name file and line."""

from __future__ import annotations

import bz2
import codecs
import importlib
import lzma
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from io import BufferedReader, RawIOBase
from pathlib import Path
from typing import IO, Any

from graftkit.errors import DataError
from graftkit.interfaces.regular_file import open_regular

__all__ = ["MAX_LINE", "PACKED", "Record", "RecordSource", "check_no_wide_form", "decode_utf8"]

MAX_LINE = 32 << 20
"""The most bytes of a line, and of any other record that is read as text: as characters, each may take four."""

PACKED = {".gz": "gzip", ".bz2": "bzip2", ".xz": "xz", ".zst": "zstd"}
"""The suffixes of files that are packed one by one, and what by."""

_HEAD = 64 << 10
_MOST_RATIO = 200
_ALWAYS_UNPACKED = 64 << 20
_GZIP = 16 + zlib.MAX_WBITS
"""How zlib is told that what it unpacks has the header and the checksum of gzip."""
_PART = 4 << 10
"""Bytes that are read at a time: what follows a member is copied when it ends, and one may take twenty bytes."""
_MOST_EMPTY = 10_000
"""Members of a gzip file that may hold nothing, one after another."""
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Record:
    """One record of a file.

    Attributes:
        place: Where it stands, after the file's name: ":12" for a line, "#12" for a row of a table; "" where the file
            is one record.
        load: Parses it: a mapping of its columns. It raises a `DataError` where it is malformed. It is not called for
            records that are not wanted.
    """

    place: str
    load: Callable[[], Any]


class RecordSource:
    """A file of records.

    Files that are compressed with gzip, bzip2, xz or zstd (by pyarrow) are unpacked as they are read, and UTF-16 with
    a byte order mark becomes UTF-8: a reader sees neither.

    Args:
        path: The file.

    Attributes:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def __str__(self) -> str:
        return str(self.path)

    @property
    def suffix(self) -> str:
        """The file's suffix in lower case, without that of a compression: ".jsonl" of "A.JSONL.gz"."""
        path = Path(self.path.name.lower())
        return Path(path.stem).suffix if path.suffix in PACKED else path.suffix

    @cached_property
    def head(self) -> bytes:
        """The first bytes, up to 64 KiB, without a byte order mark.

        Raises:
            DataError: The file can't be read.
        """
        with self.open() as file:
            read = file.read(_HEAD) or b""  # None: it would have to be waited for
            return read.removeprefix(_BYTE_ORDER_MARK)

    @contextmanager
    def open(self) -> Iterator[IO[bytes]]:
        """Opens the file for reading from its beginning; what goes wrong while it is read is a `DataError`, too.

        Raises:
            DataError: The file is missing, is no regular file, can't be read, or is packed in a way that is not known,
                damaged, or unpacks to over 200 times its size.
        """
        with self._opened() as raw, self._told():
            magic = raw.peek(8)[:8]
            unpack = next((found for sign, found in _UNPACKERS.items() if magic.startswith(sign)), None)
            if unpack is None:
                self._check_packed(magic)
                yield _as_utf8(raw, magic, str(self))
                return
            with unpack(self, raw) as unpacked:
                bounded: Any = BufferedReader(_Bounded(unpacked, self))
                yield _as_utf8(bounded, bounded.peek(4)[:4], str(self))

    @cached_property
    def most_unpacked(self) -> int:
        """The most bytes that the file may unpack to: 200 times its size, and 64 MiB besides."""
        return _MOST_RATIO * self.path.stat().st_size + _ALWAYS_UNPACKED

    def check_unpacked(self, count: int) -> None:
        """Makes sure that the file does not unpack to more than `most_unpacked`.

        `open` does so for what it unpacks; a reader of files that are packed inside does it itself.

        Args:
            count: How many bytes there are so far.

        Raises:
            DataError: These are more.
        """
        if count > self.most_unpacked:
            raise DataError(f"it unpacks to over {_MOST_RATIO} times its size", where=str(self), hint=_UNPACK)

    def _opened(self) -> BufferedReader:
        try:
            return open_regular(self.path)
        except FileNotFoundError:
            raise DataError("no such file", where=str(self), hint=self._near()) from None
        except OSError as error:
            raise DataError(f"can't be read: {error.strerror or error}", where=str(self)) from error
        except ValueError:  # a NUL in the name
            raise DataError("no file can be called so", where=repr(str(self))) from None

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Tells what the system, or what unpacks, says of a file as a `DataError`."""
        try:
            yield
        except (EOFError, lzma.LZMAError, zlib.error) as error:
            raise DataError(f"can't be unpacked: {error}", where=str(self), hint=_DAMAGED) from None
        except OSError as error:
            raise DataError(f"can't be read: {error.strerror or error}", where=str(self)) from error

    def _check_packed(self, magic: bytes) -> None:
        known = next((name for sign, name in _FOREIGN.items() if magic.startswith(sign)), "")
        document = next((name for endings, name in _DOCUMENTS.items() if self.path.suffix.lower() in endings), "")
        if magic.startswith(_OFFICE) and document:
            raise DataError(f"this is {document}", where=str(self), hint=_AS_TEXT)
        packed = PACKED.get(self.path.suffix.lower(), "") if magic else ""
        if known or packed:
            found = f"this is {known}" if known else f"its name ends in {self.path.suffix}, but it is no {packed} file"
            raise DataError(found, where=str(self), hint="Unpack it, and name the file that comes out.")

    def _near(self) -> str:
        near = Path.cwd() / self.path.name
        if near.exists():
            return f"There is {near}: relative paths in a recipe start at its own folder."
        owner = self.path.parent
        if self.path.suffix or owner.exists() or not owner.parent.exists():
            return ""
        return f"If that is a data set of the hub, write hub:{owner.name}/{self.path.name}."

    def lines(self) -> Iterator[tuple[int, bytes]]:
        """Yields the lines that are not blank, with their numbers from 1, without their line ends.

        A carriage return alone ends a line only where no other line end stands in the first 64 KiB.

        Raises:
            DataError: The file can't be read, or a line has more bytes than `MAX_LINE`.
        """
        old = b"\r" in self.head and b"\n" not in self.head
        with self.open() as file:
            number = 0
            while line := _old_line(file) if old else file.readline(MAX_LINE + 2):
                number += 1
                if len(line) > MAX_LINE + 1:
                    raise self.too_long(f":{number}")
                if number == 1:
                    line = line.removeprefix(_BYTE_ORDER_MARK)
                if line.strip():
                    yield number, line.rstrip(b"\r") if old else line.removesuffix(b"\n")
                else:
                    number += _skip_blank_lines(file, b"\r" if old else b"\n")

    def too_long(self, place: str) -> DataError:
        """Returns the error for a record that is longer than what is read of it."""
        return DataError(
            f"a record of over {MAX_LINE:,} bytes",
            where=f"{self}{place}",
            hint="Split it, or give the text as a .txt, which is read in parts.",
        )

    def read_text(self, limit: int = -1) -> str | None:
        """Returns the whole text, without a byte order mark; None where it has more bytes than the limit.

        Args:
            limit: The most bytes that are read; below 0 for all.

        Raises:
            DataError: The file can't be read, or is not UTF-8, or UTF-16 or UTF-32 without a byte order mark.
        """
        with self.open() as file:
            raw = file.read(limit + 1 if limit >= 0 else -1)
        if 0 <= limit < len(raw):
            return None
        check_no_wide_form(raw, str(self))
        try:
            return raw.decode("utf-8-sig")
        except UnicodeDecodeError:
            raise self.not_utf8() from None

    def not_utf8(self) -> DataError:
        """Returns the error for a file that is not UTF-8, with the first line that is not."""
        with self.open() as file:
            number = 0
            while line := file.readline(MAX_LINE):
                number += 1
                try:
                    decode_utf8(line, f"{self}:{number}")
                except DataError as error:
                    return error
        return DataError("not UTF-8", where=str(self))


_ONE_IN = 40
"""How many bytes of a text in UTF-16 come to one zero at most, where it has spaces or line ends."""


def check_no_wide_form(raw: bytes, where: str) -> None:
    """Refuses the beginning of a text in UTF-16 or UTF-32 without a byte order mark, which as UTF-8 is full of NULs.

    Args:
        raw: The bytes; the first 64 KiB are looked at.
        where: The file.

    Raises:
        DataError: It is: zeros are many, and each is the same half of two bytes, or the outer of four always is one.
    """
    form = _wide_form(raw[:_HEAD])
    if form:
        raise DataError(
            f"it is {form} without a byte order mark",
            where=where,
            hint=f"Save it as UTF-8: iconv -f {form} -t UTF-8 FILE > NEW",
        )


def _wide_form(head: bytes) -> str:
    """Returns in which form of several bytes a character a text is; "" for none."""
    if len(head) < _ONE_IN:
        return ""
    quarters = [head[start::4].count(0) for start in range(4)]
    for outer, next_to_it, form in ((3, 2, "UTF-32LE"), (0, 1, "UTF-32BE")):  # a character's number has 21 bits at most
        if quarters[outer] == len(head[outer::4]) and quarters[next_to_it] * 2 > len(head[next_to_it::4]):
            return form
    first, second = quarters[0] + quarters[2], quarters[1] + quarters[3]
    if min(first, second) or max(first, second) * _ONE_IN < len(head):
        return ""
    return "UTF-16LE" if second else "UTF-16BE"


def decode_utf8(raw: bytes, where: str) -> str:
    """Decodes a line.

    Args:
        raw: The line.
        where: File and line.

    Raises:
        DataError: It is not UTF-8.
    """
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"not UTF-8: byte 0x{raw[error.start]:02x} at position {error.start}",
            where=where,
            hint="Save the file as UTF-8: a spreadsheet does as CSV UTF-8, and a file from Windows is made so by: "
            "iconv -f WINDOWS-1252 -t UTF-8 FILE > NEW",
        ) from None


def _old_line(file: IO[bytes]) -> bytes:
    """Reads up to and with a carriage return."""
    found = bytearray()
    while part := file.peek(1)[:_HEAD]:  # type: ignore[attr-defined]
        end = part.find(b"\r")
        found += file.read(end + 1 if end >= 0 else len(part))
        if end >= 0 or len(found) > MAX_LINE + 1:
            break
    return bytes(found)


def _skip_blank_lines(file: IO[bytes], mark: bytes) -> int:
    """Reads over the blank lines that follow, many at a time, and returns how many there were.

    A kilobyte unpacks to tens of millions of them.
    """
    number = 0
    while part := file.peek(1):  # type: ignore[attr-defined]
        end = part.rfind(mark, 0, len(part) - len(part.lstrip())) + 1
        if end == 0:
            break
        number += file.read(end).count(mark)
    return number


class _Bounded(RawIOBase):
    """What is unpacked, up to a number of bytes."""

    def __init__(self, file: IO[bytes], source: RecordSource) -> None:
        self._file, self._source, self._count = file, source, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._file.read(len(buffer))
        self._count += len(data)
        self._source.check_unpacked(self._count)
        buffer[: len(data)] = data
        return len(data)


class _Unpacked(RawIOBase):
    """What the members, or streams, of a packed file unpack to, one after another; zeros may stand between them.

    Python's own readers take 20 seconds for two million members of gzip without a byte, and 12 for 40 MB of zeros after
    the last one. Of bzip2 and xz they end in silence at a stream that is damaged where it begins, or after zeros.
    """

    def __init__(self, file: IO[bytes], source: RecordSource, begin: Callable[[], Any]) -> None:
        self._file, self._source, self._begin = file, source, begin
        self._packed, self._empty = b"", 0
        self._member: Any = begin()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while self._more():
            part: bytes = self._member.decompress(self._packed, len(buffer))
            self._empty = 0 if part else self._empty
            self._packed = getattr(self._member, "unconsumed_tail", b"")  # those of bzip2 and xz keep it themselves
            if self._member.eof:
                self._packed, self._member = self._member.unused_data, None
                self._count_empty()
            if part:
                buffer[: len(part)] = part
                return len(part)
        return 0

    def _more(self) -> bool:
        """Returns whether there is anything to unpack."""
        if self._member is None and not self._next_member():
            return False
        if not self._packed and getattr(self._member, "needs_input", True):
            self._packed = self._file.read(_PART)
            if not self._packed:
                raise EOFError("it ends before its end is marked")
        return True

    def _next_member(self) -> bool:
        """Passes over zeros, which may follow a member; returns whether another one follows."""
        while packed := self._packed or self._file.read(_PART):
            self._packed = packed.lstrip(b"\0")
            if self._packed:
                self._member = self._begin()
                return True
        return False

    def _count_empty(self) -> None:
        """Counts a member that has ended, since the last one that held anything."""
        self._empty += 1
        if self._empty > _MOST_EMPTY:
            raise DataError(
                f"over {_MOST_EMPTY:,} members in a row hold nothing", where=str(self._source), hint=_DAMAGED
            )


class _Recoded(RawIOBase):
    """UTF-16 with a byte order mark, as UTF-8."""

    def __init__(self, file: Any, where: str) -> None:
        self._file, self._where = file, where
        self._decoder, self._rest = codecs.getincrementaldecoder("utf-16")(), b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._rest:
            raw = self._file.read(_HEAD)
            try:
                self._rest = self._decoder.decode(raw, final=not raw).encode("utf-8", "surrogatepass")
            except UnicodeDecodeError:
                raise DataError("its byte order mark says UTF-16, but it is not", where=self._where) from None
            if not raw:
                break
        part, self._rest = self._rest[: len(buffer)], self._rest[len(buffer) :]
        buffer[: len(part)] = part
        return len(part)


def _as_utf8(file: IO[bytes], start: bytes, where: str) -> IO[bytes]:
    return (
        BufferedReader(_Recoded(file, where)) if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else file
    )


def _zstd(source: RecordSource, raw: IO[bytes]) -> Any:
    try:
        arrow = importlib.import_module("pyarrow")
    except ImportError:
        hint = "pip install 'graftkit[arrow]'; or unpack it, and name the file that comes out."
        raise DataError("reading .zst needs pyarrow, which is not installed", where=str(source), hint=hint) from None
    return arrow.CompressedInputStream(raw, "zstd")


_UNPACK = "Unpack it yourself; the rows of a table may be saved as JSON, a line a row."
_DAMAGED = "The file is cut short or damaged: fetch or pack it again."

_UNPACKERS: dict[bytes, Callable[[RecordSource, IO[bytes]], Any]] = {
    b"\x1f\x8b": lambda source, raw: _Unpacked(raw, source, partial(zlib.decompressobj, _GZIP)),
    b"BZh": lambda source, raw: _Unpacked(raw, source, bz2.BZ2Decompressor),
    b"\xfd7zXZ\x00": lambda source, raw: _Unpacked(raw, source, lzma.LZMADecompressor),
    b"\x28\xb5\x2f\xfd": _zstd,
}
_OFFICE = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1")
"""How documents of an office program begin: those of today, which are zip archives, and those of before 2007."""

_DOCUMENTS = {
    (".xlsx", ".xlsm", ".xlsb", ".xls", ".ods", ".numbers"): "a spreadsheet",
    (".docx", ".doc", ".odt", ".pages"): "a document of a word processor",
}
_AS_TEXT = "Save it from there as text in UTF-8, and name that file: a table as .csv, a document as .txt."
_FOREIGN = {b"PK\x03\x04": "a zip archive", b"7z\xbc\xaf": "a 7-Zip archive", b"Rar!": "a RAR archive"}
