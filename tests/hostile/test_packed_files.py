"""Files of a few bytes that hold a great deal are refused, or read, within bounds."""

from __future__ import annotations

import bz2
import json
import os
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pyarrow.ipc
import pyarrow.parquet
import pytest
from graftkit import RecordSource
from graftkit.interfaces import record_source, regular_file
from graftkit_readers.columnar import Arrow, Parquet

from hostile.limits import Outcome, measure

MB = 1 << 20
VALUE = "x" * MB


def _table(rows: int) -> pyarrow.Table:
    """A value of a megabyte, and its number for each row."""
    return pyarrow.table({"text": pyarrow.DictionaryArray.from_arrays(pyarrow.array([0] * rows), [VALUE])})


def _parquet(rows: int, compression: str = "zstd") -> Callable[[Path], object]:
    return lambda path: pyarrow.parquet.write_table(_table(rows), path, compression=compression)


def _arrow(path: Path) -> None:
    with pyarrow.OSFile(str(path), "wb") as file, pyarrow.ipc.new_file(file, _table(2000).schema) as writer:
        writer.write_table(_table(2000))


def _one_page(path: Path) -> None:
    pyarrow.parquet.write_table(pyarrow.table({"text": ["x" * (300 * MB)]}), path, compression="zstd")


def _blank(blank: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(bz2.compress(blank * (400 * MB // len(blank))))


FILES: dict[str, Callable[[Path], object]] = {
    "half a gigabyte.parquet": _parquet(500),
    "a terabyte.parquet": _parquet(1_000_000),
    "not compressed.parquet": _parquet(500, "none"),
    "one page.parquet": _one_page,
    "two gigabytes.arrow": _arrow,
    "blank lines.jsonl.bz2": _blank(b"\n"),
    "lines of spaces.jsonl.bz2": _blank(b" \r\n"),
}
_CODE = """
from pathlib import Path
from graftkit.testing.records import read_samples

def case(path):
    return len(read_samples(Path(path)))
"""


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    folder = tmp_path_factory.mktemp("packed")
    for name, write in FILES.items():
        write(folder / name)
    return measure(_CODE, {name: str(folder / name) for name in FILES})


@pytest.mark.parametrize("name", FILES)
def test_it_ends_soon_and_stays_small(name: str, outcomes: dict[str, Outcome]) -> None:
    outcomes[name].assert_within_limits()
    assert outcomes[name].error == "DataError" and "unpacks to over 200 times" in outcomes[name].message


WIDE: dict[str, Callable[[Path], object]] = {
    "columns.csv": lambda path: path.write_text(
        ",".join(f"c{n}" for n in range(10**6)) + "\n" + "1," * (10**6 - 1) + "1"
    ),
    "one column again.csv": lambda path: path.write_text("a," * 10**6 + "a\n"),
    "values.csv": lambda path: path.write_text("text\n" + "1," * 10**6),
    "keys.jsonl": lambda path: path.write_text(json.dumps({"text": "a", **{f"c{n}": 1 for n in range(10**6)}})),
    "ever more keys.jsonl": lambda path: path.write_text(
        "".join(json.dumps({"text": "a", **{f"{line}.{n}": 1 for n in range(100)}}) + "\n" for line in range(20_000))
    ),
    "columns.parquet": lambda path: pyarrow.parquet.write_table(
        pyarrow.table({"text": ["a"], **{f"c{n}": [1] for n in range(20_000)}}), path
    ),
}


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    folder = tmp_path_factory.mktemp("wide")
    for name, write in WIDE.items():
        write(folder / name)
    return measure(_CODE, {name: str(folder / name) for name in WIDE})


@pytest.mark.parametrize("name", WIDE)
def test_a_million_columns_are_refused_soon(name: str, wide: dict[str, Outcome]) -> None:
    wide[name].assert_within_limits()
    assert wide[name].error == "DataError" and "column" in wide[name].message


def test_a_file_that_would_have_to_be_waited_for_is_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system's log is a regular file, and says so instead of giving bytes."""
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    try:
        monkeypatch.setattr(record_source, "open_regular", lambda path: os.fdopen(os.dup(reading), "rb"))
        monkeypatch.setattr(regular_file, "open_regular", lambda path: os.fdopen(os.dup(reading), "rb"))
        assert RecordSource(tmp_path / "a.jsonl").head == b""
        assert regular_file.read_regular(tmp_path / "a.json") == b""
    finally:
        os.close(reading)
        os.close(writing)


@pytest.mark.parametrize("rows", [1, 300, 5000])
def test_tables_of_values_and_codes_are_read_as_they_are(tmp_path: Path, rows: int) -> None:
    """Whatever is decoded at a time."""
    texts = [f"text {n % 7}" for n in range(rows)]
    nested = [[{"role": "user", "content": text}] for text in texts]
    table = pyarrow.table({"text": pyarrow.array(texts).dictionary_encode(), "messages": nested})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet", row_group_size=1000)
    with pyarrow.OSFile(str(tmp_path / "a.arrow"), "wb") as file, pyarrow.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)
    expected = [{"text": text, "messages": inner} for text, inner in zip(texts, nested, strict=True)]
    for reader, name in ((Parquet(), "a.parquet"), (Arrow(), "a.arrow")):
        records = list(reader.records(RecordSource(tmp_path / name)))
        assert [record.load() for record in records] == expected
        assert [record.place for record in records] == [f"#{n + 1}" for n in range(rows)]


@pytest.mark.parametrize("blank", [b"\n", b" \n", b"\r\n", b"\t\n \n\n"])
def test_blank_lines_are_counted_and_indents_kept(tmp_path: Path, blank: bytes) -> None:
    """Against Python's own splitting, with more blank lines than are looked at at a time."""
    data = blank * 20_000 + b"  one \n" + blank * 3 + b"two\n" + b" " * 20_000 + b"\n" + b"\tthree"
    (tmp_path / "a.txt").write_bytes(data)
    expected = [(number, line) for number, line in enumerate(data.split(b"\n"), 1) if line.strip()]
    assert list(RecordSource(tmp_path / "a.txt").lines()) == expected
