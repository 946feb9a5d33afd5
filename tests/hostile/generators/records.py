"""Training records: JSON lines, and texts."""

from __future__ import annotations

import bz2
import gzip
import lzma
import random
from pathlib import Path
from typing import Any

import pyarrow.parquet  # noqa: F401 (its memory is no parser's)
from graftkit.corpus.sample_files import scan_samples
from graftkit.corpus.split import split
from graftkit.testing.records import open_files

from hostile.mutate import (
    Raw,
    apply,
    bytes_changed,
    change_json,
    dumped,
    hostile_string,
    place_oddly,
    spliced,
    text_changed,
)

PENDING: frozenset[str] = frozenset()

_KINDS = [
    ("record", 14),
    ("raw", 6),
    ("bytes", 6),
    ("lines", 5),
    ("spliced", 2),
    ("place", 1),
    ("large", 1),
    ("deep", 2),
]
_RAW = (
    "{", "}", "[]", "null", "1", '"x"', "NaN", '{"text": NaN}', '{"text": "a", "text": "b"}', '{"text": "\\ud800"}',
    '{"text": "\\ud83d\\ude00"}',
    '{"text": ' + "9" * 5000 + "}", '{"text": 1e999}', '{"text": "a"} {"text": "b"}', '{"text": "a",}', "{'text': 'a'}",
    '{"text": "\x01"}', "\ufeff{}",
    '{"messages": []}', '{"messages": [{}]}', '{"messages": {"role": "user"}}', '{"messages": [["user", "x"]]}',
    '{"prompt": "", "completion": ""}',
    '{"": ""}', '{"text": "a", "' + "k" * 70_000 + '": 1}',
    '{"messages": [{"role": "' + "r" * 70_000 + '", "content": ""}]}',
    '{"messages": [{"role": ["user"], "content": "x"}]}', '{"messages": [{"role": {"a": 1}, "content": "x"}]}',
    '{"messages": [{"role": null, "content": null}]}',
    '{"messages": [{"role": "assistant", "content": [{"type": "text", "text": "x"}]}]}',
)  # fmt: skip


def _record(draw: random.Random, number: int, shape: int) -> dict[str, Any]:
    word = draw.choice(("yes", "Grüße 🙂", "\u0000", hostile_string(draw)[:40].encode("utf-8", "replace").decode()))
    turns = [{"role": "user", "content": f"{number} {word}"}, {"role": "assistant", "content": f"{number}"}]
    called = {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": {"a": word}}}]}
    return [
        {"messages": draw.choice(([], [{"role": "system", "content": "short"}])) + turns},
        {"messages": [turns[0], called, {"role": "tool", "content": word}, turns[1]], "tools": [{"name": "f"}]},
        {"conversations": [{"from": "human", "value": word}, {"from": "gpt", "value": f"{number}"}], "id": number},
        {"prompt": word, "completion": f" {number}"},
        {"instruction": word, "input": "", "output": f"{number}"},
        {"question": word, "answer": f"{number}"},
        {"text": f"{number} {word}"},
    ][shape]


_SHAPES = 7
_REPEATED = 8_000_000
"""How many bytes records that are repeated come to at most, so that what makes them stays within its own memory."""


def make(draw: random.Random, folder: Path) -> list[str]:
    kinds = apply(draw, _KINDS, PENDING)
    shape = draw.randrange(_SHAPES)
    records: list[Any] = [
        _record(draw, number, shape if draw.random() < 0.95 else draw.randrange(_SHAPES))
        for number in range(draw.randrange(1, 8))
    ]
    for kind in kinds:
        place = draw.randrange(len(records))
        if kind == "record" and isinstance(records[place], dict):
            records[place] = change_json(draw, records[place])
        elif kind == "raw":
            records.insert(place, Raw(draw.choice(_RAW)))
        elif kind == "deep":
            depth, key = draw.choice((100, 900, 5000, 200_000)), draw.choice(("text", "messages", "x"))
            opening, closing = draw.choice((("[", "]"), ('{"a": ', "}")))
            records[place] = Raw(f'{{"{key}": ' + opening * depth + "1" + closing * depth + "}")
    array = draw.random() < 0.2
    text = f"[{', '.join(map(dumped, records))}]" if array else "\n".join(map(dumped, records))
    data = text.encode("utf-8", "surrogatepass") + draw.choice((b"", b"\n", b"\r\n", b"\n\n \n"))
    if draw.random() < 0.1:
        data = draw.choice((b"question,answer\n", b"text\tid\n", b'"a;b";c\n')) + data
    for kind in kinds:
        data = _changed(draw, data, kind)
    if draw.random() < 0.1:
        data = draw.choice((gzip.compress, bz2.compress, lzma.compress))(data[:1_000_000])
        data = bytes_changed(draw, data) if draw.random() < 0.5 else data
    suffixes = (*["jsonl"] * 3, "ndjson", "json", "txt", "md", "csv", "tsv", "jsonl.gz", "parquet", "arrow")
    path = folder / f"records.{draw.choice(suffixes)}"
    path.write_bytes(data)
    if "place" in kinds:
        place_oddly(draw, path)
    return kinds


def _changed(draw: random.Random, data: bytes, kind: str) -> bytes:
    if kind == "bytes":
        return bytes_changed(draw, data)
    if kind == "lines":
        return text_changed(draw, data)
    if kind == "spliced":
        return spliced(draw, data, dumped(_record(draw, 0, draw.randrange(_SHAPES))).encode("utf-8", "surrogatepass"))
    if kind == "large":
        return draw.choice(
            (
                data * min(300, 1 + _REPEATED // (1 + len(data))),
                b'{"text": "' + b"a " * 400_000 + b'"}',
                b'{"messages": [' + b"{}, " * 60_000 + b"{}]}",
                b"\n" * 500_000 + data,
            )
        )
    return data


def valid(folder: Path) -> None:
    draw = random.Random(0)
    (folder / "records.jsonl").write_text("".join(dumped(_record(draw, number, 0)) + "\n" for number in range(6)))


def read(folder: Path) -> None:
    found = [path for path in folder.iterdir() if path.suffix != ".real"]
    records = scan_samples(open_files(found or [folder / "records.jsonl"]), seed=0)
    parts = split(records, 0.3)
    assert len(list(parts.train)) + len(list(parts.holdout)) <= len(records)
    records.counts()
    next(records.chats(), None)
    assert records.fingerprint
