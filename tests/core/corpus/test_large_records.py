"""Records of any size are looked at within bounds: of memory, and before objects are made of them."""

from __future__ import annotations

import json
import time
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from graftkit.corpus import dataset as dataset_module
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


_TURN = {"role": "assistant", "content": "a"}
_CALL = {"name": "f", "arguments": {}}


@pytest.mark.parametrize(
    ("record", "told"),
    [
        ({"messages": [_TURN] * 5}, "it has 5 messages; at most 4"),
        (
            {"chosen": [_TURN] * 5, "rejected": [_TURN] * 4 + [{**_TURN, "content": "b"}]},
            "it has 5 messages; at most 4",
        ),
        ({"messages": [{**_TURN, "tool_calls": [_CALL] * 4}]}, "it has 4 tool calls; at most 3"),
    ],
    ids=["messages", "a pair", "calls"],
)
def test_a_record_has_so_many_messages_and_calls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record: dict[str, Any], told: str
) -> None:
    monkeypatch.setattr(dataset_module, "MOST_MESSAGES", 4)
    monkeypatch.setattr(dataset_module, "MOST_CALLS", 3)
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(record) + "\n")
    [dataset] = open_files([path])
    with pytest.raises(DataError, match=f"rows.jsonl:1: {told} of a record are read"):
        list(dataset)


def test_the_time_to_join_parts_is_linear_in_them(tmp_path: Path) -> None:
    path, parts = tmp_path / "rows.jsonl", [{"type": "text", "text": "x" * 400}] * 40_000
    path.write_text(json.dumps({"messages": [{"role": "assistant", "content": parts}]}) + "\n")
    began = time.process_time()
    [[sample]] = map(list, open_files([path]))
    assert sample.messages[0].content == "x" * 16_000_000 and time.process_time() - began < 3


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
