"""A line of JSON, whatever it holds, and however long it is, is read or refused within bounds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import IO

import pytest

from hostile.limits import Outcome, measure

MB = 1 << 20


def _repeated(pattern: str, megabytes: int = 31, end: str = "") -> Callable[[IO[bytes]], object]:
    return lambda file: file.write(
        (pattern * (megabytes * MB // len(pattern.encode()))).encode() + end.encode() + b"\n"
    )


def _sparse(file: IO[bytes]) -> None:
    file.truncate(20 << 30)


LINES: dict[str, Callable[[IO[bytes]], object]] = {
    "twenty gigabytes": _sparse,
    "lists": lambda file: file.write(b"[" + b"[]," * (10 * MB) + b"[]]\n"),
    "objects": lambda file: file.write(b"[" + b"{}," * (10 * MB) + b"{}]\n"),
    "objects of a key": lambda file: file.write(b"[" + b'{"a":1},' * (3 * MB) + b"{}]\n"),
    "keys": lambda file: file.write(b"{" + b",".join(b'"%d":1' % n for n in range(2_500_000)) + b"}\n"),
    "one key again and again": lambda file: file.write(b"{" + b'"":1,' * (6 * MB) + b'"":1}\n'),
    "texts": lambda file: file.write(b"[" + "'é',".replace("'", '"').encode() * (5 * MB) + b"1]\n"),
    "nested lists": _repeated("["),
    "nested objects": _repeated('{"a":'),
    "a long number": _repeated("1"),
    "a long fraction": lambda file: file.write(b'{"text": 0.' + b"1" * (30 * MB) + b"}\n"),
    "a text of backslashes": lambda file: file.write(b'{"text": "' + b"\\\\" * (15 * MB) + b'"}\n'),
    "a text without an end": lambda file: file.write(b'{"text": "' + b"[,{" * (10 * MB) + b"\n"),
    "messages": lambda file: file.write(b'{"messages": [' + b'{"role":"user"},' * (2 * MB) + b"1]}\n"),
    "messages of one key": lambda file: file.write(b'{"messages": [{"role": [' + b"[]," * (10 * MB) + b"1]}]}\n"),
    "wide characters": lambda file: file.write(b'{"text": "' + "🎉".encode() + b"a" * (31 * MB) + b'"}\n'),
    "blank lines": _repeated("\n", 8),
    "blank lines of old": _repeated("\r", 30),
    "not UTF-8": lambda file: file.write(b'{"text": "' + b"a" * (30 * MB) + b'\xff"}\n'),
}
READ = ("a text of backslashes", "wide characters")
_CODE = """
from pathlib import Path
from graftkit.testing.records import read_samples

def case(path):
    return len(read_samples(Path(path)))
"""


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    folder = tmp_path_factory.mktemp("rows")
    paths = {}
    for number, (name, write) in enumerate(LINES.items()):
        paths[name] = str(folder / f"{number}.jsonl")
        with Path(paths[name]).open("wb") as file:
            write(file)
    return measure(_CODE, paths)


@pytest.mark.parametrize("name", LINES)
def test_it_ends_soon_and_stays_small(name: str, outcomes: dict[str, Outcome]) -> None:
    outcome = outcomes[name]
    assert outcome.error in ([""] if name in READ else ["DataError", "UnknownFormatError"]), outcome
    outcome.assert_within_limits()
    assert len(outcome.message) < 4000
