"""What was changed or removed below a folder, without a look into what is left out."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from graftkit.store.file_states import changed_files, file_states


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a", "own/b", "own/deep/c", "left/d", "left/deep/e"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "own" / "link").symlink_to(tmp_path / "a")
    (tmp_path / "own" / "nowhere").symlink_to(tmp_path / "gone")
    (tmp_path / "own" / "folder").symlink_to(tmp_path / "left")
    os.mkfifo(tmp_path / "own" / "pipe")
    return tmp_path


def test_files_are_told_and_links_to_folders_are_not_followed(folder: Path) -> None:
    assert [*file_states(folder)] == ["a", "left/d", "left/deep/e", "own/b", "own/link", "own/deep/c"]
    assert [*file_states(folder, folder / "left")] == ["a", "own/b", "own/link", "own/deep/c"]
    assert [*file_states(folder, only=lambda name: name.startswith("own/"))] == ["own/b", "own/link", "own/deep/c"]
    assert not file_states(folder, folder) and not file_states(folder / "own", folder)


def test_what_is_left_out_is_not_looked_into(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run's checkpoints may be many, and hooks are called after each step."""
    read, seen = os.scandir, list[Path]()
    monkeypatch.setattr(os, "scandir", lambda path: [seen.append(Path(path)), read(path)][1])
    file_states(folder, folder / "left")
    assert seen == [folder, folder / "own", folder / "own" / "deep"]


def test_changes_and_removals_are_told(folder: Path) -> None:
    before = file_states(folder)
    (folder / "a").write_text("other")
    (folder / "left" / "d").unlink()
    (folder / "new").write_text("")
    assert sorted(changed_files(before, file_states(folder))) == ["a", "left/d", "own/link"]
