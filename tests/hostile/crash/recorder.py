"""Records every change that a program makes below a folder, in its order, with what it asked to be flushed.

Names (made, renamed, removed) and flushes are seen where Python asks the system for them. Contents are found by
looking: before each of those calls, and at the end, the folder is compared with what is known of it, so that nothing
escapes that a library writes by other ways than Python's, as safetensors and tokenizers do, or another process. Such a
change is one write, at the latest moment at which it can have been made.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from unittest import mock

__all__ = ["ROOT", "Change", "record"]

ROOT = 0
"""The node of the folder that is watched."""

Kind = Literal["mkdir", "create", "link", "rename", "unlink", "rmdir", "write", "fsync"]


@dataclass(frozen=True, slots=True)
class Change:
    """One change, or one flush.

    Attributes:
        kind: What was done.
        node: To which file or folder, by a number of its own.
        place: The folder and the name that the node gets, or loses where it is removed.
        source: The folder and the name that it had before, where it is renamed.
        data: What a file holds from then on, where it is written.
    """

    kind: Kind
    node: int
    place: tuple[int, str] = (ROOT, "")
    source: tuple[int, str] = (ROOT, "")
    data: bytes = b""


@dataclass
class _Watched:
    """What is known of a folder."""

    root: Path
    changes: list[Change] = field(default_factory=list)
    nodes: dict[str, int] = field(default_factory=lambda: {"": ROOT})
    seen: dict[int, tuple[int, int, int]] = field(default_factory=dict)
    by_inode: dict[int, int] = field(default_factory=dict)
    count: int = ROOT

    def inside(self, path: Any) -> str | None:
        """Returns a path relative to the root; None where it is elsewhere."""
        if isinstance(path, int):
            return None
        name = os.path.relpath(Path(os.fsdecode(path)).absolute(), self.root)
        return None if name.startswith("..") or name == "." else name

    def place(self, name: str) -> tuple[int, str]:
        folder, _, last = name.rpartition("/")
        return self.nodes[folder], last

    def look(self) -> None:
        """Finds what has changed since the last look."""
        found: set[str] = {""}
        folders = [""]
        while folders:
            folder = folders.pop()
            with os.scandir(self.root / folder) as entries:
                listed = sorted(entries, key=lambda entry: entry.name)
            for entry in listed:
                name = f"{folder}/{entry.name}" if folder else entry.name
                found.add(name)
                is_folder = entry.is_dir(follow_symlinks=False)
                if name not in self.nodes:
                    self.add("mkdir" if is_folder else "create", name)
                if is_folder:
                    folders.append(name)
                else:
                    self._look_into(name)
        for name in sorted(self.nodes.keys() - found, reverse=True):
            self.remove("unlink" if self.nodes[name] in self.seen else "rmdir", name)

    def _look_into(self, name: str) -> None:
        status = os.lstat(self.root / name)
        facts = (status.st_ino, status.st_size, status.st_mtime_ns)
        node = self.nodes[name]
        if self.seen.get(node) != facts:
            new = node not in self.seen
            self.seen[node] = facts
            data = (self.root / name).read_bytes()
            if data or not new:
                self.changes.append(Change("write", node, data=data))

    def add(self, kind: Kind, name: str) -> None:
        self.count += 1
        self.nodes[name] = self.count
        self.by_inode[os.lstat(self.root / name).st_ino] = self.count
        self.changes.append(Change(kind, self.count, self.place(name)))
        if kind == "create":
            self._look_into(name)

    def remove(self, kind: Kind, name: str) -> None:
        self.changes.append(Change(kind, self.nodes[name], self.place(name)))
        del self.nodes[name]

    def rename(self, old: str, new: str) -> None:
        node, source = self.nodes[old], self.place(old)
        for name in [name for name in self.nodes if name == new or name.startswith(f"{new}/")]:
            del self.nodes[name]
        for name in [name for name in self.nodes if name == old or name.startswith(f"{old}/")]:
            self.nodes[new + name[len(old) :]] = self.nodes.pop(name)
        self.changes.append(Change("rename", node, self.place(new), source))

    def link(self, old: str, new: str) -> None:
        self.nodes[new] = self.nodes[old]
        self.changes.append(Change("link", self.nodes[old], self.place(new)))

    def fsync(self, handle: int) -> None:
        node = self.by_inode.get(os.fstat(handle).st_ino)
        if node is not None:
            self.changes.append(Change("fsync", node))


@contextmanager
def record(root: Path) -> Iterator[list[Change]]:
    """Gives a list that fills with every change below a folder, which is empty at first.

    What the root itself holds at the beginning is no change: it is found as if it were made first, and is flushed.
    """
    watched = _Watched(root.resolve())
    watched.by_inode[root.stat().st_ino] = ROOT
    watched.look()
    watched.changes += [Change("fsync", node) for node in {ROOT, *watched.nodes.values()}]

    def seeing(call: Callable[..., Any], note: Callable[..., None]) -> Callable[..., Any]:
        def called(*arguments: Any, **named: Any) -> Any:
            watched.look()
            result = call(*arguments, **named)
            note(*arguments)
            return result

        return called

    def on_one(do: Callable[[str], None]) -> Callable[..., None]:
        def note(path: Any, *_: Any) -> None:
            name = watched.inside(path)
            if name is not None:
                do(name)

        return note

    def on_two(do: Callable[[str, str], None]) -> Callable[..., None]:
        def note(old: Any, new: Any, *_: Any) -> None:
            names = watched.inside(old), watched.inside(new)
            if names[0] is not None and names[1] is not None:
                do(names[0], names[1])

        return note

    notes = {
        "mkdir": on_one(lambda name: watched.add("mkdir", name)),
        "rmdir": on_one(lambda name: watched.remove("rmdir", name)),
        "unlink": on_one(lambda name: watched.remove("unlink", name)),
        "remove": on_one(lambda name: watched.remove("unlink", name)),
        "rename": on_two(watched.rename),
        "replace": on_two(watched.rename),
        "link": on_two(watched.link),
        "fsync": watched.fsync,
    }
    with mock.patch.object(shutil, "_use_fd_functions", False):  # deletes by paths, not by open folders
        patches = [mock.patch.object(os, name, seeing(getattr(os, name), note)) for name, note in notes.items()]
        for patch in patches:
            patch.start()
        try:
            yield watched.changes
        finally:
            for patch in patches:
                patch.stop()
            watched.look()
