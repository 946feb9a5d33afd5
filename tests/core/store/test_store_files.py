"""A write that fails leaves what was there, and nothing else."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import pytest
import torch
from graftkit.errors import FolderError, StorageError
from graftkit.exporting.shards import save_tensors
from graftkit.store.file_hashes import file_facts, sha256_of
from graftkit.store.files import write_atomic, write_json, write_new_text, write_text
from graftkit.store.folders import atomic_folder, new_folder
from graftkit.store.line_file import LineFile
from graftkit.store.system import guarded, remove_tree
from graftkit.store.temporaries import sweep, sweep_of
from graftkit.store.token_writer import TokenWriter

Refusal = Callable[[], None]


def full_disk(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def snapshot(folder: Path) -> dict[str, bytes | None]:
    """Returns every path below a folder, hidden ones too, with each file's bytes."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


def half_then(error: BaseException) -> Callable[[IO[bytes]], None]:
    def write(file: IO[bytes]) -> None:
        file.write(b"half")
        raise error

    return write


def test_a_file_is_written_whole_with_the_users_permissions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The umask is never read: that sets it for a moment, and other threads' files could be read by everybody."""
    before = os.umask(0o027)
    try:
        with monkeypatch.context() as patched:
            patched.setattr(os, "umask", None)
            write_text(tmp_path / "a.txt", "grün\n")
            with atomic_folder(tmp_path / "folder") as folder:
                save_tensors({"a": torch.ones(1)}, folder / "a.safetensors")
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("*")}
    assert modes == {"a.txt": 0o640, "folder": 0o750, "a.safetensors": 0o640}
    remove_tree(tmp_path / "folder")
    assert snapshot(tmp_path) == {"a.txt": "grün\n".encode()}
    write_json(tmp_path / "a.txt", {"b": [1, "ü"]})
    assert (tmp_path / "a.txt").read_text() == '{\n  "b": [\n    1,\n    "ü"\n  ]\n}\n'


def test_a_full_disk_leaves_the_old_file_and_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(StorageError) as caught:
        write_atomic(tmp_path / "a.txt", half_then(OSError(errno.ENOSPC, "No space left on device")))
    assert str(caught.value) == (
        f"{tmp_path / 'a.txt'}: can't be written: No space left on device\n"
        "The disk is full: free some space, or write elsewhere."
    )
    assert caught.value.exit_code == 1
    assert snapshot(tmp_path) == {"a.txt": b"old"}


def test_a_disk_that_fills_up_at_the_flush_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.txt").write_text("old")
    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(StorageError, match="The disk is full"):
        write_text(tmp_path / "a.txt", "new")
    with pytest.raises(StorageError, match="The disk is full"):
        write_text(tmp_path / "b.txt", "new")
    assert snapshot(tmp_path) == {"a.txt": b"old"}


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt(), SystemExit(1)], ids=repr)
def test_any_other_interruption_leaves_the_old_file_too(tmp_path: Path, error: BaseException) -> None:
    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(type(error)):
        write_atomic(tmp_path / "a.txt", half_then(error))
    assert snapshot(tmp_path) == {"a.txt": b"old"}


def test_a_number_that_json_does_not_have_is_never_written(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"loss": 1.5})
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"loss": float("nan")})
    assert snapshot(tmp_path) == {"a.json": b'{\n  "loss": 1.5\n}\n'}


def test_a_path_that_can_be_no_file_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "folder", tmp_path / "missing" / "a.txt", tmp_path / ("a" * 300)):
        with pytest.raises(StorageError):
            write_text(path, "new")
    assert snapshot(tmp_path) == {"folder": None}


@pytest.mark.parametrize(
    ("code", "hint"),
    [
        (errno.ENOSPC, "The disk is full"),
        (errno.EDQUOT, "Your quota is used up"),
        (errno.EFBIG, "No larger file is allowed"),
        (errno.EROFS, "The file system is read-only"),
        (errno.EACCES, "The folder's permissions forbid it"),
        (errno.ENOENT, "Make its folder first"),
        (errno.ENAMETOOLONG, "Give a shorter name"),
        (errno.EMFILE, "No more files may be open at once"),
    ],
)
def test_each_refusal_of_the_system_comes_with_a_remedy(code: int, hint: str) -> None:
    with pytest.raises(StorageError) as caught, guarded(Path("runs/x")):
        raise OSError(code, os.strerror(code))
    assert caught.value.where == "runs/x" and caught.value.hint.startswith(hint)


@pytest.mark.parametrize("theirs", ["a folder with files", "a file", "nothing in a folder"])
def test_a_new_folder_takes_no_others_place(tmp_path: Path, theirs: str) -> None:
    """Of two commands that wrote the same folder at once, the second's deleted the first's, and both ended well."""
    path = tmp_path / "folder"

    def fill() -> None:
        with new_folder(path) as made:
            (made / "ours").write_text("ours")
            if theirs == "a file":
                path.write_text("theirs")
            else:
                path.mkdir()
            if theirs == "a folder with files":
                (path / "theirs").write_text("theirs")

    if theirs == "nothing in a folder":
        fill()
        assert (path / "ours").read_text() == "ours"
    else:
        with pytest.raises(FolderError, match="there is such a folder already"):
            fill()
        assert (path / "theirs" if path.is_dir() else path).read_text() == "theirs"
    assert [entry.name for entry in tmp_path.iterdir()] == ["folder"]


def test_what_fills_a_new_folder_is_not_taken_for_one_that_is_there(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="File exists"), new_folder(tmp_path / "folder") as made:
        (made / "twice").mkdir()
        (made / "twice").mkdir()


@pytest.mark.parametrize("links", [True, False])
def test_a_new_file_takes_no_others_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool) -> None:
    def refused(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    if not links:
        monkeypatch.setattr(os, "link", refused)
    write_new_text(tmp_path / "new", "ours")
    (tmp_path / "link").symlink_to("nowhere")
    with pytest.raises(FolderError, match="there is such a file already"):
        write_new_text(tmp_path / "link", "ours")
    monkeypatch.setattr(os, "fsync", lambda _: (tmp_path / "meanwhile").write_text("theirs"))
    with pytest.raises(FolderError, match="there is such a file already"):
        write_new_text(tmp_path / "meanwhile", "ours")
    assert [(tmp_path / name).read_text() for name in ("new", "meanwhile")] == ["ours", "theirs"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "meanwhile", "new"]


def test_a_new_file_that_can_not_be_named_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "link", refused)
    monkeypatch.setattr(Path, "replace", refused)
    with pytest.raises(StorageError, match=os.strerror(errno.EIO)):
        write_new_text(tmp_path / "new", "ours")
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EACCES])
def test_a_refusal_that_a_library_words_otherwise_is_told_like_any_other(code: int) -> None:
    with pytest.raises(StorageError, match=os.strerror(code)) as caught, guarded(Path("runs/x")):
        raise RuntimeError(f"Error while serializing: I/O error: what the system said (os error {code})")
    assert caught.value.where == "runs/x"


def test_what_killed_processes_left_is_swept_and_an_older_folder_is_put_back(tmp_path: Path) -> None:
    for name in (".x.graftkit-abcd_123.partial", ".x.graftkit-abcd_124.old/x", ".y.graftkit-abcd_125.old/y", "y"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / ".x.graftkit-abcd_124.old" / "x" / "c.txt").write_text("old")
    (tmp_path / ".a.txt.graftkit-abcd_126.partial").write_text("half")
    for name in (".notes.partial", ".x.partial", "x.graftkit-abcd_123.partial", ".x.ABCDEFGH.old", ".x.20261128.old"):
        (tmp_path / name).write_text("somebody's own")
    sweep(tmp_path)
    kept = [
        ".notes.partial",
        ".x.20261128.old",
        ".x.ABCDEFGH.old",
        ".x.partial",
        "x",
        "x.graftkit-abcd_123.partial",
        "x/c.txt",
        "y",
    ]
    assert sorted(snapshot(tmp_path)) == kept
    sweep(tmp_path / "missing")


def test_what_a_killed_process_left_of_one_name_is_swept_and_nothing_beside_it(tmp_path: Path) -> None:
    for name in (
        ".x.graftkit-abcd_123.partial",
        ".x.graftkit-abcd_124.old/x",
        ".y.graftkit-abcd_125.partial",
        ".x.z.graftkit-abcd_126.partial",
        ".x.old",
    ):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / ".x.graftkit-abcd_124.old" / "x" / "c.txt").write_text("old")
    (tmp_path / ".x.graftkit-abcd_127.partial").symlink_to(tmp_path / ".x.old")
    sweep_of(tmp_path / "x")
    assert ".x.graftkit-abcd_123.partial" in snapshot(tmp_path), (
        "a link is nobody's left-over: it is not touched, nor the rest"
    )
    (tmp_path / ".x.graftkit-abcd_127.partial").unlink()
    sweep_of(tmp_path / "x")
    assert sorted(snapshot(tmp_path)) == [
        ".x.old",
        ".x.z.graftkit-abcd_126.partial",
        ".y.graftkit-abcd_125.partial",
        "x",
        "x/c.txt",
    ]
    sweep_of(tmp_path / "missing" / "x")


def test_the_next_write_of_the_same_name_sweeps_what_a_killed_one_left(tmp_path: Path) -> None:
    (tmp_path / ".a.txt.graftkit-abcd_126.partial").write_text("half")
    backup = {".a.txt.20261127.partial": b"a copy by its date", ".a.txt.20261128.old": b"another"}
    for name, data in backup.items():
        (tmp_path / name).write_bytes(data)
    write_text(tmp_path / "a.txt", "whole")
    assert snapshot(tmp_path) == {"a.txt": b"whole", **backup}
    for name in backup:
        (tmp_path / name).unlink()
    (tmp_path / ".x.graftkit-abcd_123.partial").mkdir()
    with atomic_folder(tmp_path / "x") as folder:
        fill(folder)
    assert snapshot(tmp_path) == {"a.txt": b"whole", **NEW}


def test_what_a_living_process_writes_is_not_swept(tmp_path: Path) -> None:
    (tmp_path / ".x.graftkit-abcd_123.partial").mkdir()
    (tmp_path / ".x.graftkit-abcd_124.old").mkdir()
    with atomic_folder(tmp_path / "x") as folder:
        (tmp_path / ".x.graftkit-abcd_125.partial").mkdir()
        sweep_of(tmp_path / "x")
        assert folder.is_dir() and (tmp_path / ".x.graftkit-abcd_125.partial").is_dir()
        fill(folder)

    def write(file: IO[bytes]) -> None:
        sweep_of(tmp_path / "a.txt")
        file.write(b"whole")

    write_atomic(tmp_path / "a.txt", write)
    sweep_of(tmp_path / "x")
    assert snapshot(tmp_path) == {"a.txt": b"whole", **NEW}


def test_a_kept_file_whose_place_the_new_folder_has_taken_is_refused(tmp_path: Path) -> None:
    mine = tmp_path / "x" / "sub" / "a.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("years of work")
    with pytest.raises(StorageError, match="somebody else's"), atomic_folder(tmp_path / "x", keep=["sub/a.txt"]) as new:
        fill(new)
    assert snapshot(tmp_path) == {"x": None, "x/sub": None, "x/sub/a.txt": b"years of work"}


def fill(folder: Path) -> None:
    (folder / "sub").mkdir()
    (folder / "sub" / "a.txt").write_text("new")
    (folder / "b.txt").write_text("new")


NEW = {"x": None, "x/b.txt": b"new", "x/sub": None, "x/sub/a.txt": b"new"}
OLD = {"x": None, "x/c.txt": b"old"}


@pytest.fixture(params=["nothing", "an older folder"])
def before(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, bytes | None]:
    """What lies under the folder's name before: nothing, or an older folder."""
    if request.param == "nothing":
        return {}
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "c.txt").write_text("old")
    return OLD


def test_a_folder_appears_as_a_whole(tmp_path: Path, before: Any) -> None:
    with atomic_folder(tmp_path / "x") as folder:
        fill(folder)
        assert {name: data for name, data in snapshot(tmp_path).items() if not name.startswith(".")} == before
    assert snapshot(tmp_path) == NEW
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == 0o777 & ~umask


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), ValueError("no"), KeyboardInterrupt()], ids=repr)
def test_a_folder_that_is_not_finished_leaves_the_older_one(tmp_path: Path, before: Any, error: BaseException) -> None:
    expected = StorageError if isinstance(error, OSError) else type(error)
    with pytest.raises(expected), atomic_folder(tmp_path / "x") as folder:
        fill(folder)
        raise error
    assert snapshot(tmp_path) == before


def test_a_folder_that_cannot_be_flushed_leaves_the_older_one(
    tmp_path: Path, before: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(StorageError, match="The disk is full"), atomic_folder(tmp_path / "x") as folder:
        fill(folder)
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("failing", [1, 2])
def test_a_folder_that_cannot_be_renamed_leaves_the_older_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "c.txt").write_text("old")
    rename, calls = Path.rename, []

    def sometimes(self: Path, target: Path) -> Path:
        calls.append(target)
        if len(calls) == failing:
            raise OSError(errno.EACCES, "Permission denied")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", sometimes)
    with pytest.raises(StorageError, match="permissions forbid it"), atomic_folder(tmp_path / "x") as folder:
        fill(folder)
    assert snapshot(tmp_path) == OLD


def test_a_folder_below_a_missing_one_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError), atomic_folder(tmp_path / "missing" / "x"):
        pytest.fail("there is nothing to fill")


def test_every_file_is_listed_with_its_size_and_hash(tmp_path: Path) -> None:
    with atomic_folder(tmp_path / "x") as folder:
        fill(folder)
        (folder / "manifest.json").write_text("{}")
    digest = hashlib.sha256(b"new").hexdigest()
    assert sha256_of(tmp_path / "x" / "b.txt") == digest
    assert file_facts(tmp_path / "x", leave_out=frozenset({"manifest.json"})) == {
        "b.txt": {"bytes": 3, "sha256": digest},
        "sub/a.txt": {"bytes": 3, "sha256": digest},
    }


@pytest.mark.parametrize("there", [True, False])
def test_a_file_that_grows_is_never_written_through_a_link(tmp_path: Path, there: bool) -> None:
    if there:
        (tmp_path / "mine").write_text("years of work")
    for name in ("lines", "ids"):
        (tmp_path / name).symlink_to(tmp_path / "mine")
    for write in (lambda: LineFile(tmp_path / "lines").append({}), lambda: TokenWriter(tmp_path, "key")):
        with pytest.raises(StorageError, match="can't be written") as caught:
            write()
        assert "It is a link" in caught.value.hint
    assert (tmp_path / "mine").exists() == there and (not there or (tmp_path / "mine").read_text() == "years of work")


def test_a_folder_that_cannot_be_deleted_is_a_storage_error(tmp_path: Path) -> None:
    remove_tree_of = tmp_path / "x"
    remove_tree_of.mkdir()
    remove_tree(remove_tree_of)
    with pytest.raises(StorageError, match="No such file"):
        remove_tree(remove_tree_of)
