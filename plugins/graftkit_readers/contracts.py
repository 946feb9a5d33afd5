"""The contract of readers, with a file of each form."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any, ClassVar

from graftkit import RecordSource
from graftkit.errors import DataError
from graftkit.testing import ReaderContract, deviates

__all__ = [
    "ArrowContract",
    "DelimitedContract",
    "JsonArrayContract",
    "JsonLinesContract",
    "ParquetContract",
    "TextFileContract",
]

_RECORDS: list[dict[str, Any]] = [
    {"question": 'one, "two"\nthree', "answer": "é 🎉"},
    {"question": "", "answer": '{[,]}\\ " '},
    {"question": "x" * 40, "answer": "\u2028y"},
]


class JsonLinesContract(ReaderContract):
    """A file of lines."""

    def sample(self, folder: Path) -> tuple[Path, list[dict[str, Any]]]:
        """Returns a file that it made, and the records in it."""
        path = folder / "sample.jsonl"
        path.write_text("\n\n".join(json.dumps(record, ensure_ascii=False) for record in _RECORDS), encoding="utf-8")
        return path, _RECORDS


class JsonArrayContract(ReaderContract):
    """A file that is an array."""

    def sample(self, folder: Path) -> tuple[Path, list[dict[str, Any]]]:
        """Returns a file that it made, and the records in it."""
        path = folder / "sample.json"
        path.write_text(json.dumps(_RECORDS, indent=1, ensure_ascii=False), encoding="utf-8")
        return path, _RECORDS


class DelimitedContract(ReaderContract):
    """A table as text."""

    def sample(self, folder: Path) -> tuple[Path, list[dict[str, Any]]]:
        """Returns a file that it made, and the records in it."""
        import csv

        path = folder / "sample.csv"
        with path.open("w", encoding="utf-8", newline="") as file:
            table = csv.DictWriter(file, list(_RECORDS[0]))
            table.writeheader()
            table.writerows(_RECORDS)
        return path, _RECORDS


class ListsInTextContract(ReaderContract):
    """A table as text, of which a column holds lists."""

    options: ClassVar[dict[str, Any]] = {"lists": ["words"]}

    def sample(self, folder: Path) -> tuple[Path, list[dict[str, Any]]]:
        """Returns a file that it made, and the records in it."""
        path = folder / "sample.csv"
        lines = ("id,words", '1,"[""a"", ""b""]"', "2,\"['c, d', 'e']\"", "3,[]")
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        words: list[list[str]] = [["a", "b"], ["c, d", "e"], []]
        return path, [{"id": str(number), "words": found} for number, found in enumerate(words, 1)]


class TextFileContract(ReaderContract):
    """A text."""

    def sample(self, folder: Path) -> tuple[Path, list[dict[str, Any]]]:
        """Returns a file that it made, and the record that it is."""
        path = folder / "sample.txt"
        path.write_text("One.\n\nTwo.\n", encoding="utf-8")
        return path, [{"text": "One.\n\nTwo.\n"}]


class ParquetContract(ReaderContract):
    """A Parquet file."""

    @deviates("a Parquet file's parts are found by their places, which a compressed file does not have")
    def test_a_compressed_file_is_read_like_any_other(
        self, written: tuple[RecordSource, list[dict[str, Any]]], tmp_path: Path
    ) -> None:
        """It is refused in words."""
        source = RecordSource(tmp_path / "sample.parquet.gz")
        source.path.write_bytes(gzip.compress(written[0].path.read_bytes()))
        assert self.make().accepts(source) is True
        try:
            self.read(source)
        except DataError as error:
            assert "compressed" in str(error)
        else:
            raise AssertionError("a compressed table was read")

    def sample(self, folder: Path) -> tuple[Path, list[dict[str, Any]]]:
        """Returns a file that it made, and the records in it."""
        import pyarrow.parquet

        path = folder / "sample.parquet"
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(_RECORDS), path)
        return path, _RECORDS


class ArrowContract(ReaderContract):
    """An Arrow stream."""

    def sample(self, folder: Path) -> tuple[Path, list[dict[str, Any]]]:
        """Returns a file that it made, and the records in it."""
        import pyarrow
        import pyarrow.ipc

        path = folder / "sample.arrow"
        table = pyarrow.Table.from_pylist(_RECORDS)
        with pyarrow.OSFile(str(path), "wb") as file, pyarrow.ipc.new_stream(file, table.schema) as writer:
            writer.write_table(table)
        return path, _RECORDS
