"""A file of metrics grows by whole lines, and a disk that fills up is told, not hidden."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
from graftkit.errors import StorageError
from graftkit.store.line_file import LineFile


def full_disk(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_lines_are_there_as_soon_as_they_are_added(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    for number in (1, 2):
        file = LineFile(path)
        file.append({"step": number, "word": "ü"})
        assert path.read_text().count("\n") == number
        file.close()
    assert path.read_text() == '{"step": 1, "word": "ü"}\n{"step": 2, "word": "ü"}\n'


def test_a_line_with_a_number_that_json_does_not_have_is_not_added(tmp_path: Path) -> None:
    file = LineFile(tmp_path / "metrics.jsonl")
    with pytest.raises(ValueError, match="JSON"):
        file.append({"loss": float("inf")})
    file.close()
    assert (tmp_path / "metrics.jsonl").read_bytes() == b""


class SmallBites:
    """A file on a disk that takes three bytes at a time, and in the end none."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.taken = b""

    def write(self, data: bytes) -> int:
        if not self.room:
            full_disk()
        taken = bytes(data)[: min(3, self.room)]
        self.taken += taken
        self.room -= len(taken)
        return len(taken)


def test_a_line_that_the_system_takes_in_parts_is_added_whole(tmp_path: Path) -> None:
    file = LineFile(tmp_path / "metrics.jsonl")
    file.close()
    file._file = bites = SmallBites(1000)  # type: ignore[assignment]
    file.append({"step": 1})
    assert bites.taken == b'{"step": 1}\n'


def test_a_line_that_the_system_takes_only_half_of_is_an_error(tmp_path: Path) -> None:
    file = LineFile(tmp_path / "metrics.jsonl")
    file.close()
    file._file = SmallBites(4)  # type: ignore[assignment]
    with pytest.raises(StorageError, match="The disk is full"):
        file.append({"step": 1})


def test_closing_closes_even_where_flushing_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = LineFile(tmp_path / "metrics.jsonl")
    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(StorageError, match="The disk is full"):
        file.close()
    assert file._file.closed


def test_a_line_that_was_refused_comes_before_the_next_flush_and_leaves_no_half(tmp_path: Path) -> None:
    """The state of a step is saved only where its line is."""
    file = LineFile(tmp_path / "metrics.jsonl")
    file.append({"step": 1})
    whole, file._file = file._file, Half(file._file)  # type: ignore[assignment]
    with pytest.raises(StorageError, match="The disk is full"):
        file.append({"step": 2})
    assert file._path.read_text() == '{"step": 1}\n'
    with pytest.raises(StorageError, match="The disk is full"):
        file.sync()
    file._file = whole
    file.sync()
    file.append({"step": 3})
    file.close()
    assert file._path.read_text() == '{"step": 1}\n{"step": 2}\n{"step": 3}\n'


class Half:
    """An open file on a disk with room for half of a line."""

    def __init__(self, file: Any) -> None:
        self.file = file
        self.room = 5

    def write(self, data: bytes) -> int:
        if not self.room:
            full_disk()
        taken = int(self.file.write(bytes(data)[: self.room]))
        self.room = 0
        return taken
