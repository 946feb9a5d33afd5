"""What tables say of their packed parts is read as pyarrow writes it, and refused where it is damaged."""

from __future__ import annotations

import io
import itertools
import random
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.feather
import pyarrow.ipc
import pyarrow.parquet
import pytest
from graftkit import RecordSource
from graftkit.errors import DataError
from graftkit_readers.arrow_buffers import unpacked_sizes
from graftkit_readers.columnar import Arrow, Parquet
from graftkit_readers.parquet_pages import pages


def table(rows: int = 700) -> pyarrow.Table:
    texts = [f"text {n % 7}" if n % 5 != 1 else None for n in range(rows)]
    turns = [[{"role": "user", "content": "x" * (n % 300)}] * (n % 3) for n in range(rows)]
    codes = pyarrow.array(texts).dictionary_encode()
    numbers = pyarrow.array([n / 7 for n in range(rows)])
    flags = pyarrow.array([n % 2 == 0 for n in range(rows)])
    return pyarrow.table({"text": texts, "codes": codes, "messages": turns, "number": numbers, "flag": flags})


PARQUET: list[dict[str, Any]] = [
    {"compression": compression, "data_page_version": version, "use_dictionary": dictionary, "row_group_size": 300}
    for compression, version, dictionary in itertools.product(
        ("none", "snappy", "zstd", "gzip"), ("1.0", "2.0"), (True, False)
    )
]


def test_a_text_in_an_index_that_is_the_boundary_of_two_tables_is_none(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"text": ["PAR1PAR1"]}), path, write_page_index=True)
    assert [record.load() for record in Parquet().records(RecordSource(path))] == [{"text": "PAR1PAR1"}]
    path.write_bytes(2 * path.read_bytes())
    with pytest.raises(DataError, match="a second table begins"):
        list(Parquet().records(RecordSource(path)))


@pytest.mark.parametrize("options", PARQUET)
def test_pages_are_found_as_they_were_written(tmp_path: Path, options: dict[str, Any]) -> None:
    """A column's size unpacked is that of its pages and their headers."""
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(table(), path, data_page_size=1000, write_page_index=True, **options)
    metadata = pyarrow.parquet.ParquetFile(path).metadata
    columns = [
        metadata.row_group(n).column(m) for n in range(metadata.num_row_groups) for m in range(metadata.num_columns)
    ]
    with path.open("rb") as file:
        found = list(pages(file, 100))
    size, said = sum(page.size for page in found), sum(column.total_uncompressed_size for column in columns)
    assert said - 150 * len(found) < size < said
    assert sum(page.values for page in found if not page.is_dictionary) == sum(column.num_values for column in columns)
    dictionaries = sum(page.is_dictionary for page in found)
    assert (
        dictionaries == sum(column.has_dictionary_page for column in columns)
        and bool(dictionaries) == options["use_dictionary"]
    )


@pytest.mark.parametrize("rows", [0, 1])
def test_small_tables_are_read(tmp_path: Path, rows: int) -> None:
    pyarrow.parquet.write_table(table(rows), tmp_path / "a.parquet")
    pyarrow.feather.write_feather(table(rows), tmp_path / "a.arrow")
    assert len(list(Parquet().records(RecordSource(tmp_path / "a.parquet")))) == rows
    assert len(list(Arrow().records(RecordSource(tmp_path / "a.arrow")))) == rows


def packed(kind: str, compression: str | None, rows: int = 700) -> bytes:
    sink = io.BytesIO()
    options = pyarrow.ipc.IpcWriteOptions(compression=compression, unify_dictionaries=kind == "file")
    make = pyarrow.ipc.new_file if kind == "file" else pyarrow.ipc.new_stream
    with make(sink, table().schema, options=options) as writer:
        for batch in table(rows).to_batches(max_chunksize=300):
            writer.write_batch(batch)
    return sink.getvalue()


@pytest.mark.parametrize("compression", ["zstd", "lz4"])
@pytest.mark.parametrize("kind", ["file", "stream"])
def test_buffers_are_found_as_they_were_written(tmp_path: Path, kind: str, compression: str) -> None:
    """Three batches and a dictionary; buffers that are not packed are told as pyarrow packs none of a few bytes."""
    found = list(unpacked_sizes(io.BytesIO(packed(kind, compression))))
    expected = sum(batch.nbytes for batch in table().to_batches(max_chunksize=300))
    assert len([size for size in found if size]) >= 4 and expected <= sum(found) < 1.5 * expected
    assert set(unpacked_sizes(io.BytesIO(packed(kind, None)))) <= {0}
    (tmp_path / "a.arrow").write_bytes(packed(kind, compression))
    assert [record.load()["number"] for record in Arrow().records(RecordSource(tmp_path / "a.arrow"))] == [
        n / 7 for n in range(700)
    ]


@pytest.mark.parametrize("kind", ["file", "stream", "parquet"])
def test_damaged_tables_are_refused_or_read(tmp_path: Path, kind: str) -> None:
    """Nothing but the reader's own error, wherever a byte is another one or the file is cut."""
    draw, path = random.Random(kind), tmp_path / f"a.{'parquet' if kind == 'parquet' else 'arrow'}"
    if kind == "parquet":
        pyarrow.parquet.write_table(table(20), path)
        whole, reader = path.read_bytes(), Parquet()
    else:
        whole, reader = packed(kind, "zstd", 20), Arrow()
    for _ in range(400):
        data = bytearray(whole)
        for _ in range(draw.randrange(1, 4)):
            data[draw.randrange(len(data)) if draw.random() < 0.5 else -draw.randrange(1, 600)] = draw.randrange(256)
        path.write_bytes(data if draw.random() < 0.9 else data[: draw.randrange(len(data))])
        try:
            with path.open("rb") as file:
                _ = list(pages(file, 100) if kind == "parquet" else unpacked_sizes(file))
        except (ValueError, OSError):
            pass
        if kind != "parquet":  # of damaged columns pyarrow may end the process: the campaign's processes try those
            try:
                _ = [record.load() for record in reader.records(RecordSource(path))]
            except DataError as error:
                assert str(path) in str(error)


def whole(kind: str, text: str) -> bytes:
    """Returns a table of two parts, which lie where those of any such table with texts of this length do."""
    sink, texts = io.BytesIO(), pyarrow.table({"text": [f"{text} {n}" for n in range(20)]})
    if kind == "parquet":
        pyarrow.parquet.write_table(texts, sink, row_group_size=10, write_page_index=True)
        return sink.getvalue()
    options = pyarrow.ipc.IpcWriteOptions(use_legacy_format=kind == "old stream")
    make = pyarrow.ipc.new_file if kind == "file" else pyarrow.ipc.new_stream
    with make(sink, texts.schema, options=options) as writer:
        writer.write_table(texts, max_chunksize=10)
    return sink.getvalue()


def read(path: Path, data: bytes) -> list[str]:
    path.write_bytes(data)
    reader = Parquet() if path.suffix == ".parquet" else Arrow()
    return [record.load()["text"] for record in reader.records(RecordSource(path))]


@pytest.mark.parametrize("kind", ["file", "stream", "old stream", "parquet"])
def test_a_table_after_another_in_the_same_file_is_refused(tmp_path: Path, kind: str) -> None:
    """pyarrow reads one of them: of a file with a footer the first one's batches, by the second one's places."""
    path = tmp_path / f"a.{'parquet' if kind == 'parquet' else 'arrow'}"
    data = whole(kind, "a")
    assert read(path, data) == [f"a {n}" for n in range(20)]
    stream = "stream" in kind
    for more in [whole(kind, "b"), *([b"\0", b"\0" * 64, whole("file", "b")] if stream else [])]:
        with pytest.raises(DataError, match=f"byte {len(data):,}") as caught:
            read(path, data + more)
        assert str(path) in str(caught.value) and caught.value.hint


@pytest.mark.parametrize("old", [False, True])
def test_a_stream_that_ends_early_is_refused(tmp_path: Path, old: bool) -> None:
    """Cut between two batches, with zeros in the place of the rest, or with the mark of its end in the middle."""
    sink, batch, ends = io.BytesIO(), pyarrow.record_batch({"text": ["a", "b"]}), []
    options = pyarrow.ipc.IpcWriteOptions(use_legacy_format=old)
    with pyarrow.ipc.new_stream(sink, batch.schema, options=options) as writer:
        for _ in range(2):
            writer.write_batch(batch)
            ends.append(sink.tell())
    data, mark = sink.getvalue(), b"\0" * 4 if old else b"\xff\xff\xff\xff\0\0\0\0"
    assert data[ends[1] :] == mark and read(tmp_path / "a.arrow", data) == ["a", "b"] * 2
    assert read(tmp_path / "a.arrow", data[: ends[1]] + b"\0" * 4) == ["a", "b"] * 2, "as JavaScript's writer ends it"
    for end in ends:
        for rest in (b"", b"\0" * 64, mark + data[end:]):
            with pytest.raises(DataError, match="byte [0-9]+"):
                read(tmp_path / "a.arrow", data[:end] + rest)
