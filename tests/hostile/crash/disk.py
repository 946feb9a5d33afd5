"""What a disk may hold after a machine has died at any moment of what `recorder` recorded.

The model, stricter than common file systems: a file's content is on the disk as of its last flush, and any part of what
was written since may be there, too. A name is on the disk for certain once its folder has been flushed; of the changes
of names since, any may be there and any missing, in whatever order, as long as none lacks what it builds on (the name
that it changes, the folder that it lies in). A rename is there as a whole or not at all.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from graftkit.store.temporaries import TEMPORARY
from hostile.crash.recorder import ROOT, Change

__all__ = ["State", "states", "whole"]

_NAMES = ("mkdir", "create", "link", "rename", "unlink", "rmdir")

Tree = Mapping[str, bytes | None]


@dataclass(frozen=True, slots=True)
class State:
    """What a disk may hold.

    Attributes:
        changes: After how many changes the machine died.
        variant: What was lost.
        tree: Every file's content by its relative path, None for a folder.
    """

    changes: int
    variant: str
    tree: Tree

    def write(self, folder: Path) -> None:
        """Lays the state out in a folder that is missing."""
        folder.mkdir(parents=True)
        for name, data in sorted(self.tree.items()):
            if data is None:
                (folder / name).mkdir()
            else:
                (folder / name).write_bytes(data)

    @property
    def key(self) -> str:
        """Equal for states that differ only in what half-written temporary files hold."""
        shown: dict[str, str | None] = {}
        for name, data in self.tree.items():
            temporary = [part for part in name.split("/") if TEMPORARY.fullmatch(part) and part.endswith(".partial")]
            plain = "/".join(m[1] + m[2] if (m := TEMPORARY.fullmatch(part)) else part for part in name.split("/"))
            shown[plain] = None if data is None else _digest(b"" if temporary else data)
        return hashlib.sha256(repr(sorted(shown.items(), key=lambda item: item[0])).encode()).hexdigest()


@lru_cache(maxsize=4096)
def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def whole(changes: Sequence[Change]) -> Tree:
    """Returns what there is when nothing is lost."""
    return _tree(changes, set(range(len(changes))), _contents(changes)[0])


def states(changes: Sequence[Change], start: int = 0) -> Iterator[State]:
    """Yields what a disk may hold after each prefix of the changes, each state once.

    Args:
        changes: What was recorded.
        start: The first prefix.
    """
    seen: set[str] = set()
    needs = _needs(changes)
    forced: set[int] = set()
    for count in range(len(changes) + 1):
        if count:
            forced |= _forced(changes, count - 1, needs)
        if count < start:
            continue
        for state in _states(changes[:count], needs, forced):
            if state.key not in seen:
                seen.add(state.key)
                yield state


def _states(changes: Sequence[Change], needs: Sequence[set[int]], forced: set[int]) -> Iterator[State]:
    now, flushed = _contents(changes)
    dirty = [node for node, data in now.items() if data != flushed.get(node, b"")]
    lost = {node: flushed.get(node, b"") for node in dirty}
    cut = {node: _cut(lost[node], now[node]) for node in dirty}
    torn = {node: _torn(lost[node], now[node]) for node in dirty}
    names = [number for number, change in enumerate(changes) if change.kind in _NAMES]
    every, free = set(names), [number for number in names if number not in forced]
    kept = every & forced
    contents = {"kept": {}, "dropped": lost, "truncated": cut, "reordered": torn}
    for said, some in contents.items():
        yield State(len(changes), f"names kept, data {said}", _tree(changes, every, now | some))
    for said in ("kept", "dropped"):
        yield State(len(changes), f"names dropped, data {said}", _tree(changes, kept, now | contents[said]))
    for number in free:
        without = {other for other in every if number not in needs[other] and other != number}
        yield State(len(changes), f"name {number} dropped", _tree(changes, without, now))
        only = kept | {number} | needs[number]
        yield State(len(changes), f"name {number} kept alone", _tree(changes, only, now | lost))


def _contents(changes: Sequence[Change]) -> tuple[dict[int, bytes], dict[int, bytes]]:
    """Returns each file's content, and the content as of its last flush."""
    now: dict[int, bytes] = {}
    flushed: dict[int, bytes] = {}
    for change in changes:
        if change.kind == "create":
            now.setdefault(change.node, b"")
        elif change.kind == "write":
            now[change.node] = change.data
        elif change.kind == "fsync" and change.node in now:
            flushed[change.node] = now[change.node]
    return now, flushed


def _cut(old: bytes, new: bytes) -> bytes:
    """Returns the content with half of what is new in it."""
    start = len(old) if new.startswith(old) else 0
    return new[: start + (len(new) - start) // 2]


def _torn(old: bytes, new: bytes) -> bytes:
    """Returns the content with the second half of what is new, and zeros in place of the first."""
    start = len(old) if new.startswith(old) else 0
    middle = start + (len(new) - start) // 2
    return new[:start] + bytes(middle - start) + new[middle:]


def _needs(changes: Sequence[Change]) -> list[set[int]]:
    """Returns for each change of a name those that it builds on."""
    needs: list[set[int]] = []
    last: dict[tuple[int, str], int] = {}
    made: dict[int, int] = {}
    within: dict[int, set[int]] = {}
    for number, change in enumerate(changes):
        direct: set[int] = set()
        if change.kind in _NAMES:
            places = [change.place, change.source] if change.kind == "rename" else [change.place]
            direct = {last[place] for place in places if place in last}
            direct |= {made[folder] for folder, _ in places if folder in made}
            if change.kind == "link" and change.node in made:
                direct.add(made[change.node])
            if change.kind == "rmdir":
                direct |= within.get(change.node, set())
            for place in places:
                last[place] = number
                within.setdefault(place[0], set()).add(number)
            if change.kind in ("mkdir", "create"):
                made[change.node] = number
        needs.append(direct.union(*(needs[other] for other in direct)))
    return needs


def _forced(changes: Sequence[Change], flush: int, needs: Sequence[set[int]]) -> set[int]:
    """Returns the changes of names that a flush of a folder has put on the disk."""
    if changes[flush].kind != "fsync":
        return set()
    folder = changes[flush].node
    found: set[int] = set()
    for number, change in enumerate(changes[:flush]):
        touches = change.place[0] == folder or (change.kind == "rename" and change.source[0] == folder)
        if change.kind in _NAMES and touches:
            found |= {number} | needs[number]
    return found


def _tree(changes: Sequence[Change], names: set[int], contents: Mapping[int, bytes]) -> Tree:
    """Returns every path that there is with only some of the changes of names."""
    entries: dict[int, dict[str, int]] = {ROOT: {}}
    folders = {ROOT}
    for number, change in enumerate(changes):
        if number not in names or change.kind not in _NAMES:
            continue
        folder, name = change.place
        if change.kind == "mkdir":
            folders.add(change.node)
        if change.kind in ("unlink", "rmdir"):
            entries.setdefault(folder, {}).pop(name, None)
            continue
        if change.kind == "rename":
            entries.setdefault(change.source[0], {}).pop(change.source[1], None)
        entries.setdefault(folder, {})[name] = change.node
    tree: dict[str, bytes | None] = {}
    waiting = [("", ROOT)]
    while waiting:
        above, folder = waiting.pop()
        for name, node in entries.get(folder, {}).items():
            path = f"{above}/{name}" if above else name
            tree[path] = None if node in folders else contents.get(node, b"")
            if node in folders:
                waiting.append((path, node))
    return tree
