"""Files of a few bytes that hold a great deal are refused, or read, within bounds."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
import random
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pyarrow.ipc
import pyarrow.parquet
import pytest
from graftkit import RecordSource
from graftkit.errors import DataError
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
    """400 MB of white space, as a hundred streams one after another, which are compressed in an instant."""
    return lambda path: path.write_bytes(bz2.compress(blank * (4 * MB // len(blank))) * 100)


def _lying(path: Path) -> None:
    """A page of 300 MB in a group of rows that claims a thousand bytes: the number stands there in Thrift's form."""
    _one_page(path)
    data = path.read_bytes()
    length = int.from_bytes(data[-8:-4], "little")
    end = data[-8 - length : -8]
    size = pyarrow.parquet.ParquetFile(path).metadata.row_group(0).total_byte_size
    assert _thrift(size) in end
    end = end.replace(_thrift(size), _thrift(1000))
    path.write_bytes(data[: -8 - length] + end + len(end).to_bytes(4, "little") + b"PAR1")


def _thrift(number: int) -> bytes:
    parts = []
    left = 2 * number
    while left > 127:
        parts.append(left & 127 | 128)
        left >>= 7
    return bytes([*parts, left])


def _large_values(path: Path) -> None:
    """Sixteen rows of a value of 60 MB, which a page of a few kilobytes holds once."""
    values = pyarrow.DictionaryArray.from_arrays(pyarrow.array([0] * 16), ["x" * (60 * MB)])
    pyarrow.parquet.write_table(pyarrow.table({"text": values}), path, compression="zstd")


def _one_buffer(stream: bool) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        table = pyarrow.table({"text": ["x" * (300 * MB)]})
        make = pyarrow.ipc.new_stream if stream else pyarrow.ipc.new_file
        options = pyarrow.ipc.IpcWriteOptions(compression="zstd")
        with pyarrow.OSFile(str(path), "wb") as file, make(file, table.schema, options=options) as writer:
            writer.write_table(table)

    return write


FILES: dict[str, Callable[[Path], object]] = {
    "half a gigabyte.parquet": _parquet(500),
    "a terabyte.parquet": _parquet(1_000_000),
    "not compressed.parquet": _parquet(500, "none"),
    "one page.parquet": _one_page,
    "a page of a group that claims little.parquet": _lying,
    "values of sixty megabytes.parquet": _large_values,
    "two gigabytes.arrow": _arrow,
    "one buffer.arrow": _one_buffer(stream=False),
    "a stream of one buffer.arrow": _one_buffer(stream=True),
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


def _arrow_of(column: Callable[[], pyarrow.Array]) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        table = pyarrow.table({"text": column()})
        with pyarrow.OSFile(str(path), "wb") as file, pyarrow.ipc.new_file(file, table.schema) as writer:
            writer.write_table(table)

    return write


def _in_one_list(values: pyarrow.Array) -> pyarrow.Array:
    return pyarrow.ListArray.from_arrays(pyarrow.array([0, len(values)], pyarrow.int32()), values)


def _views(rows: int) -> pyarrow.Array:
    """Rows that all are views of one text of a megabyte."""
    view = len(VALUE).to_bytes(4, "little") + b"xxxx" + bytes(8)
    buffers = [None, pyarrow.py_buffer(view * rows), pyarrow.py_buffer(VALUE.encode())]
    return pyarrow.Array.from_buffers(pyarrow.string_view(), rows, buffers)


def _codes(rows: int) -> pyarrow.Array:
    return _in_one_list(pyarrow.DictionaryArray.from_arrays(pyarrow.array([0] * rows, pyarrow.int8()), [VALUE]))


def _pages(path: Path) -> None:
    """Two hundred thousand pages, in columns that are none too many."""
    table = pyarrow.table({f"c{number}": pyarrow.array([1] * 100, pyarrow.int8()) for number in range(2000)})
    pyarrow.parquet.write_table(table, path, row_group_size=1, use_dictionary=False, write_statistics=False)


SMALL: dict[str, tuple[Callable[[Path], None], str]] = {
    "a list of nulls.arrow": (_arrow_of(lambda: _in_one_list(pyarrow.nulls(2 * 10**8))), "a row takes over"),
    "nulls.arrow": (_arrow_of(lambda: pyarrow.nulls(2 * 10**7)), "over 200 times"),
    "a list of flags.arrow": (
        _arrow_of(lambda: _in_one_list(pyarrow.repeat(pyarrow.scalar(True), 10**8))),
        "a row takes over",
    ),
    "many nulls in a row.arrow": (
        _arrow_of(lambda: pyarrow.FixedSizeListArray.from_arrays(pyarrow.nulls(2 * 10**8), 10**8)),
        "a row takes over",
    ),
    "views.arrow": (_arrow_of(lambda: _views(2000)), "over 200 times"),
    "views in a list.arrow": (_arrow_of(lambda: _in_one_list(_views(2000))), "a row takes over"),
    "codes in a list.arrow": (_arrow_of(lambda: _codes(2000)), "a row takes over"),
    "runs.arrow": (
        _arrow_of(lambda: pyarrow.RunEndEncodedArray.from_arrays(pyarrow.array([10**9], pyarrow.int32()), ["a"])),
        "which is not read",
    ),
    "columns.arrow": (
        _arrow_of(
            lambda: pyarrow.StructArray.from_arrays([pyarrow.nulls(300)] * 30_000, [f"c{n}" for n in range(30_000)])
        ),
        "more than the 4,096 columns",
    ),
    "columns.parquet": (
        lambda path: pyarrow.parquet.write_table(pyarrow.table({f"c{n}": [1] for n in range(5_000)}), path),
        "5,000 columns, more than the 4,096",
    ),
    "pages.parquet": (_pages, "bytes of"),
}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    folder = tmp_path_factory.mktemp("small")
    for name, (write, _) in SMALL.items():
        write(folder / name)
    return measure(_CODE, {name: str(folder / name) for name in SMALL})


@pytest.mark.parametrize("name", SMALL)
def test_what_a_table_becomes_in_memory_is_bounded(name: str, small: dict[str, Outcome]) -> None:
    """Where its buffers are small: nulls have none, a text is there once for any number of rows."""
    small[name].assert_within_limits()
    assert small[name].error == "DataError" and SMALL[name][1] in small[name].message, small[name]


def test_texts_that_are_views_are_read_as_they_are(tmp_path: Path) -> None:
    """As polars writes them: short ones lie in the view itself."""
    texts = ["short", None, "a text that is longer than a view"] * 200
    _arrow_of(lambda: pyarrow.array(texts, pyarrow.string_view()))(tmp_path / "a.arrow")
    records = [record.load() for record in Arrow().records(RecordSource(tmp_path / "a.arrow"))]
    assert records == [{"text": text} if text else {} for text in texts]


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


EMPTY, LINE = gzip.compress(b""), gzip.compress(b'{"text": "a"}\n')
GZIPPED = {
    "members that hold nothing": (LINE + EMPTY * 400_000, "over 10,000 members in a row hold nothing"),
    "zeros after the last member": (LINE + b"\0" * 20 * MB, ""),
    "a name of megabytes": (b"\x1f\x8b\x08\x08" + bytes(6) + b"a" * 20 * MB + b"\0" + LINE[10:], ""),
    "members that end in nothing": ((LINE + EMPTY * 9_999) * 20, ""),
}


@pytest.fixture(scope="module")
def gzipped(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    folder = tmp_path_factory.mktemp("gzipped")
    for name, (data, _) in GZIPPED.items():
        (folder / f"{name}.jsonl.gz").write_bytes(data)
    return measure(_CODE, {name: str(folder / f"{name}.jsonl.gz") for name in GZIPPED})


@pytest.mark.parametrize("name", GZIPPED)
def test_members_and_padding_take_no_time(name: str, gzipped: dict[str, Outcome]) -> None:
    said = GZIPPED[name][1]
    gzipped[name].assert_within_limits()
    assert said in gzipped[name].message and bool(gzipped[name].error) == bool(said), gzipped[name]


@pytest.mark.parametrize("seed", range(8))
def test_gzip_is_unpacked_as_python_does(tmp_path: Path, seed: int) -> None:
    """Many members, with zeros after them or not, whole or cut short."""
    draw, path = random.Random(seed), tmp_path / "a.txt.gz"
    texts = [draw.choice((b"", b"a" * draw.randrange(200_000), draw.randbytes(70_000))) for _ in range(6)]
    packed = b"".join(gzip.compress(text, draw.randrange(10)) + bytes(draw.choice((0, 5, 9000))) for text in texts)
    path.write_bytes(packed)
    with RecordSource(path).open() as file:
        assert file.read() == b"".join(texts) == gzip.decompress(packed)
    for damaged in (packed.rstrip(b"\0")[: -draw.randrange(1, 9)], packed + b"rest"):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match="can't be unpacked"), RecordSource(path).open() as file:
            file.read()


STREAMS = {"bzip2": bz2, "xz": lzma}


@pytest.mark.parametrize("kind", STREAMS)
def test_each_stream_of_a_file_is_read_or_told(tmp_path: Path, kind: str) -> None:
    """Python's own readers end in silence at a stream that is damaged where it begins."""
    lines = [b"".join(b'{"text": "%d of %d"}\n' % (row, part) for row in range(100)) for part in range(4)]
    streams = [STREAMS[kind].compress(line) for line in lines]
    path = tmp_path / "records"
    for between in (b"", b"\0" * 4, b"\0" * 8192):
        path.write_bytes(between.join(streams) + between)
        with RecordSource(path).open() as file:
            assert file.read() == b"".join(lines)
    for place in (0, 2, len(streams[2]) // 2, len(streams[2]) - 1):
        damaged = bytearray(streams[2])
        damaged[place] ^= 4
        path.write_bytes(b"".join([streams[0], streams[1], bytes(damaged), streams[3]]))
        with pytest.raises(DataError), RecordSource(path).open() as file:
            file.read()
    path.write_bytes(b"".join(streams)[:-3])
    with pytest.raises(DataError, match="ends before its end is marked"), RecordSource(path).open() as file:
        file.read()


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


FAR = {
    "a timestamp": pyarrow.array([1 << 50], pyarrow.timestamp("s")),
    "a date": pyarrow.array([1 << 60], pyarrow.int64()).cast(pyarrow.date64()),
    "a duration": pyarrow.array([1 << 60], pyarrow.duration("s")),
}
"""Values that Arrow has and Python has not."""

TWICE = {
    "columns": pyarrow.table([pyarrow.array(["a"])] * 2, names=["text", "text"]),
    "fields": pyarrow.table(
        {"x": [1], "y": pyarrow.StructArray.from_arrays([pyarrow.array([1])] * 2, names=["text", "text"])}
    ),
}


@pytest.mark.parametrize("kind", FAR)
def test_a_value_that_python_has_not_is_told_by_its_column(tmp_path: Path, kind: str) -> None:
    pyarrow.parquet.write_table(pyarrow.table({"text": ["a"], "far": FAR[kind]}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match="values of the column 'far' can't be read") as caught:
        [record.load() for record in Parquet().records(RecordSource(tmp_path / "a.parquet"))]
    assert "columns that you train on" in caught.value.hint


@pytest.mark.parametrize("kind", TWICE)
def test_of_two_columns_of_one_name_none_is_believed(tmp_path: Path, kind: str) -> None:
    table = TWICE[kind]
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    with pyarrow.OSFile(str(tmp_path / "a.arrow"), "wb") as file, pyarrow.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)
    for reader, name in ((Parquet(), "a.parquet"), (Arrow(), "a.arrow")):
        with pytest.raises(DataError, match=f"two {kind} (are )?called 'text'"):
            list(reader.records(RecordSource(tmp_path / name)))


@pytest.mark.parametrize("blank", [b"\n", b" \n", b"\r\n", b"\t\n \n\n"])
def test_blank_lines_are_counted_and_indents_kept(tmp_path: Path, blank: bytes) -> None:
    """Against Python's own splitting, with more blank lines than are looked at at a time."""
    data = blank * 20_000 + b"  one \n" + blank * 3 + b"two\n" + b" " * 20_000 + b"\n" + b"\tthree"
    (tmp_path / "a.txt").write_bytes(data)
    expected = [(number, line) for number, line in enumerate(data.split(b"\n"), 1) if line.strip()]
    assert list(RecordSource(tmp_path / "a.txt").lines()) == expected


@pytest.mark.parametrize("blank", [b"\r", b" \r", b"\t\r \r\r"])
def test_blank_lines_that_end_in_carriage_returns_are_counted(tmp_path: Path, blank: bytes) -> None:
    data = b"first\r" + blank * 20_000 + b"  one \r" + blank * 3 + b"two\r" + b" " * 20_000 + b"\r" + b"\tthree"
    (tmp_path / "a.txt").write_bytes(data)
    expected = [(number, line) for number, line in enumerate(data.split(b"\r"), 1) if line.strip()]
    assert list(RecordSource(tmp_path / "a.txt").lines()) == expected
