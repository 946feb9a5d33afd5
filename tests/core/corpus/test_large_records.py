"""Records of any size are looked at within bounds: of memory, and before objects are made of them."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest
from graftkit.errors import DataError
from graftkit.testing.records import open_files


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("," * 1_000_001 + "a\nx\n", ":1: the row has over 1,000,000 delimiters"),
        ("text,b\n" + '"ab\n",' * 1_000_001 + "\n", ":2: the row has over 1,000,000 delimiters"),
        ("text\n" + '"' + ("a" * 999_999 + "\n") * 34 + '"\n', ":2: a record of over 33,554,432 bytes"),
        (",".join(f"c{n}" for n in range(4097)) + "\n", ":1: the first line names 4,097 columns; at most 4,096"),
    ],
    ids=["names", "values over many lines", "a value over many lines", "columns"],
)
def test_a_row_of_a_table_is_bounded_over_all_of_its_lines(tmp_path: Path, content: str, told: str) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(content)
    with pytest.raises(DataError) as caught:
        for dataset in open_files([path]):
            list(dataset)
    assert f"rows.csv{told}" in str(caught.value)


def test_rows_are_counted_one_by_one(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("text,b\n" + ('"' + ",\n" * 100_000 + '",1\n') * 4)
    [dataset] = open_files([path])
    assert [sample.where for sample in dataset] == [f"{path}:{2 + 100_001 * row}" for row in range(4)]


def test_the_first_records_are_not_all_held_at_once(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    line = '{"text": "a", "x": [' + ",".join(["[]"] * 5_000) + "]}\n"
    path.write_text(line * 40)  # 400 kB each, as objects
    open_files([path])
    tracemalloc.start()
    try:
        [dataset] = open_files([path])
        assert tracemalloc.get_traced_memory()[1] < 2_500_000
    finally:
        tracemalloc.stop()
    assert dataset.format_name == "text"
