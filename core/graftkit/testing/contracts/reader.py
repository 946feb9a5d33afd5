"""What every reader promises."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from graftkit.errors import DataError
from graftkit.interfaces.reader import Reader
from graftkit.interfaces.record_source import Record, RecordSource
from graftkit.testing.contracts.base import Contract, refusal

__all__ = ["ReaderContract"]


class ReaderContract(Contract):
    r"""Reads a sample file of records that are known.

    Example:
        >>> class TestLog(ReaderContract):
        ...     provider = "log"
        ...
        ...     def sample(self, folder):
        ...         (folder / "a.log").write_text("question=one answer=two\n")
        ...         return folder / "a.log", [{"question": "one", "answer": "two"}]
    """

    kind = "reader"

    def sample(self, folder: Path) -> tuple[Path, list[dict[str, Any]]]:
        """Writes a file of at least two records, and returns it with the records that it holds. Override it."""
        raise NotImplementedError(f"{type(self).__name__}.sample(folder) writes a file of this reader's form")

    @pytest.fixture
    def written(self, tmp_path: Path) -> tuple[RecordSource, list[dict[str, Any]]]:
        """The sample, and its records."""
        folder = tmp_path / "sample"
        folder.mkdir()
        path, records = self.sample(folder)
        return RecordSource(path), records

    def read(self, source: RecordSource) -> list[Any]:
        """Reads and parses every record with the provider."""
        return [record.load() for record in self._records(source)]

    def _records(self, source: RecordSource) -> Iterator[Record]:
        made: Reader = self.make()
        return made.records(source)

    def test_it_accepts_what_it_reads_and_leaves_the_rest_to_others(
        self, written: tuple[RecordSource, list[dict[str, Any]]], tmp_path: Path
    ) -> None:
        """Readers are asked in turn; one that accepts everything shuts out those after it."""
        other = tmp_path / "other.unknown"
        other.write_bytes(b"\x00\x01 nobody knows this \xff")
        assert self.make().accepts(written[0]) is True, f"accepts() is not True for {written[0].path.name}"
        assert self.make().accepts(RecordSource(other)) is False, "accepts() is not False for a file of no known form"

    def test_it_reads_the_records_in_their_order(self, written: tuple[RecordSource, list[dict[str, Any]]]) -> None:
        """As mappings of columns, twice the same."""
        source, expected = written
        assert len(expected) > 1 or not expected[1:], "sample() tells its records"
        found = self.read(source)
        assert found == expected, f"{found} was read where {expected} was written"
        assert self.read(source) == expected, "reading the file again gives something else"

    def test_each_record_has_a_place_of_its_own(self, written: tuple[RecordSource, list[dict[str, Any]]]) -> None:
        """Errors name it: ":12" for a line, "#12" for a row."""
        places = [record.place for record in self._records(written[0])]
        assert len({*places}) == len(places), f"two records have one place: {places}"
        bad = [place for place in places if place and place[0] not in ":#"]
        assert not bad, f'a place follows the file\'s name and begins with ":" or "#", not {bad[:3]}'

    def test_a_record_is_parsed_when_it_is_wanted(self, written: tuple[RecordSource, list[dict[str, Any]]]) -> None:
        """Whoever goes on after many records need not parse them; each is the same in whatever order it is loaded."""
        records = list(self._records(written[0]))
        assert [record.load() for record in reversed(records)][::-1] == written[1]

    def test_a_compressed_file_is_read_like_any_other(
        self, written: tuple[RecordSource, list[dict[str, Any]]], tmp_path: Path
    ) -> None:
        """What is read comes from `source.open()` or `source.lines()`, which unpack."""
        source, expected = written
        packed = RecordSource(tmp_path / f"{source.path.name}.gz")
        packed.path.write_bytes(gzip.compress(source.path.read_bytes()))
        assert self.make().accepts(packed) is True, "accepts() looks at source.suffix, not at the path's own"
        assert self.read(packed) == expected, "open the file with source.open(), which unpacks it"

    def test_a_file_that_is_not_there_is_a_data_error(self, written: tuple[RecordSource, list[dict[str, Any]]]) -> None:
        """With exit code 2 and no traceback."""
        missing = RecordSource(written[0].path.with_name(f"nowhere{written[0].path.suffix}"))
        did = refusal(lambda: self.read(missing), DataError)
        assert not did, f"reading a file that isn't there must raise DataError; it {did}"

    def test_whatever_the_bytes_are_no_other_error_is_raised(
        self, written: tuple[RecordSource, list[dict[str, Any]]]
    ) -> None:
        """A file cut short or damaged is refused as a `DataError`, or read as far as it makes sense."""
        whole = written[0].path.read_bytes()
        halves = [whole[: len(whole) * part // 7] for part in range(1, 7)]
        changed = [
            bytes([*whole[:place], whole[place] ^ 0x55, *whole[place + 1 :]]) for place in range(0, len(whole), 7)
        ]
        for data in (*halves, *changed[:60], b"\xff\xfe\xfd" * 20, b"\x00" * 100):
            damaged = RecordSource(written[0].path)
            written[0].path.write_bytes(data)
            did = refusal(lambda source=damaged: self.read(source), DataError)  # type: ignore[misc]
            assert did in ("", "accepted it"), f"of a damaged file the reader {did}: raise DataError with the place"

    def test_records_are_json(self, written: tuple[RecordSource, list[dict[str, Any]]]) -> None:
        """Formats know strings, numbers, booleans, null, lists and objects; a long text may be the source itself."""
        for record in self.read(written[0]):
            assert isinstance(record, dict) and all(isinstance(name, str) for name in record), f"{record!r}: no mapping"
            json.dumps(record, default=lambda value: str(value) if isinstance(value, RecordSource) else [][0])
