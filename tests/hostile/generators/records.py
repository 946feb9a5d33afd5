"""Training records: JSON lines, and texts."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from graftkit.corpus.row_files import scan_rows
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


def _record(draw: random.Random, number: int) -> dict[str, Any]:
    word = draw.choice(("yes", "Grüße 🙂", "\u0000", hostile_string(draw)[:40].encode("utf-8", "replace").decode()))
    shape = draw.randrange(3)
    if shape == 0:
        turns = [{"role": "user", "content": f"{number} {word}"}, {"role": "assistant", "content": f"{number}"}]
        return {"messages": draw.choice(([], [{"role": "system", "content": "short"}])) + turns}
    return {"prompt": word, "completion": f" {number}"} if shape == 1 else {"text": f"{number} {word}"}


def make(draw: random.Random, folder: Path) -> list[str]:
    kinds = apply(draw, _KINDS, PENDING)
    records: list[Any] = [_record(draw, number) for number in range(draw.randrange(1, 8))]
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
    data = "\n".join(map(dumped, records)).encode("utf-8", "surrogatepass") + draw.choice(
        (b"", b"\n", b"\r\n", b"\n\n \n")
    )
    for kind in kinds:
        data = _changed(draw, data, kind)
    path = folder / draw.choice(
        ("rows.jsonl", "rows.jsonl", "rows.jsonl", "rows.ndjson", "rows.txt", "rows.md", "rows.csv")
    )
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
        return spliced(draw, data, dumped(_record(draw, 0)).encode("utf-8", "surrogatepass"))
    if kind == "large":
        return draw.choice(
            (
                data * 300,
                b'{"text": "' + b"a " * 400_000 + b'"}',
                b'{"messages": [' + b"{}, " * 60_000 + b"{}]}",
                b"\n" * 500_000 + data,
            )
        )
    return data


def valid(folder: Path) -> None:
    draw = random.Random(0)
    (folder / "rows.jsonl").write_text("".join(dumped(_record(draw, number)) + "\n" for number in range(6)))


def read(folder: Path) -> None:
    found = [path for path in folder.iterdir() if path.suffix != ".real"]
    rows = scan_rows(open_files(found or [folder / "rows.jsonl"]), seed=0)
    parts = split(rows, 0.3)
    assert len(list(parts.train)) + len(list(parts.holdout)) <= len(rows)
    rows.counts()
    rows.first_chat()
    assert rows.fingerprint
