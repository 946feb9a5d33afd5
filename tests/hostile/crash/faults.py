"""Has the system refuse the Nth call by which a run changes its folder, for each N, and has the run go on afterwards.

    python tests/hostile/crash/faults.py [CALLS]

Prints a table; with a number, a random sample of so many calls of each kind of refusal.
"""

from __future__ import annotations

import builtins
import errno
import fcntl
import gc
import io
import json
import os
import random
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from unittest import mock

import graftkit
import safetensors.torch
from graftkit.errors import GraftkitError
from graftkit.flow.folders.own_files import LOCK
from graftkit.store.temporaries import TEMPORARY
from hostile.crash.remember import Ends
from hostile.crash.tiny_run import go, left_over, make_recipe
from memory_folder import memory_folder
from safetensors import SafetensorError

__all__ = ["REFUSALS", "Kept", "Refusal", "Refusals", "count_calls", "refuse_each", "refusing"]

Refusal = tuple[int, bool]
"""An error's number, and whether all calls from the first on get it."""

REFUSALS: tuple[Refusal, ...] = (
    (errno.ENOSPC, False),
    (errno.ENOSPC, True),
    (errno.EIO, False),
    (errno.EIO, True),
    (errno.EACCES, False),
)
"""What the system says, and whether it says so from then on."""

_FREEING = ("unlink", "remove", "rmdir")
"""What a full disk does not refuse."""


_NOT_REMOVED = re.compile(rf"^checkpoints/|(^|/){TEMPORARY.pattern}(/|$)")
"""What a run deletes in the end and may leave where the system refuses that."""


class Refusals:
    """Counts the calls that change something below a folder, and refuses one, or all from one on.

    Args:
        root: The folder.
        call: Which is refused, from 1; 0: none.
        code: The error's number.
        lasting: Whether all that follow are refused, too.

    Attributes:
        calls: How many there were, by name.
        refused: The first that was refused.
    """

    def __init__(self, root: Path, call: int = 0, code: int = errno.EIO, *, lasting: bool = False) -> None:
        self.calls: list[str] = []
        self.refused = ""
        self._root = f"{root.resolve()}{os.sep}"
        self._call, self._code, self._lasting = call, code, lasting

    def watches(self, path: Any) -> bool:
        """Whether a path, or what an open handle belongs to, lies below the folder."""
        try:
            name = _name_of(path) if isinstance(path, int) else Path(os.fsdecode(path)).absolute()
        except (OSError, TypeError):
            return False
        return f"{name}{os.sep}".startswith(self._root)

    @property
    def code(self) -> int:
        """The number of the error that is given."""
        return self._code

    def meet(self, call: str, path: Any) -> None:
        """Counts a call, or refuses it.

        Raises:
            OSError: It is refused.
        """
        if not self.watches(path):
            return
        self.calls.append(f"{call} metrics" if str(path).endswith("metrics.jsonl") else call)
        due = len(self.calls) == self._call or (self._lasting and 0 < self._call < len(self.calls))
        if due and not (self._code == errno.ENOSPC and call in _FREEING):
            self.refused = self.refused or f"{call} {path}"
            raise OSError(self._code, os.strerror(self._code), None if isinstance(path, int) else os.fsdecode(path))


def _name_of(handle: int) -> Path:
    """Returns the path of an open file."""
    return Path(f"/proc/self/fd/{handle}").readlink()


class _File:
    """An open file whose writes are counted."""

    def __init__(self, file: Any, path: Any, refusals: Refusals) -> None:
        self._file, self._path, self._refusals = file, path, refusals

    def write(self, data: Any) -> Any:
        self._refusals.meet("write", self._path)
        return self._file.write(data)

    def flush(self) -> None:
        self._refusals.meet("flush", self._path)
        self._file.flush()

    def __enter__(self) -> _File:
        return self

    def __exit__(self, *error: Any) -> None:
        self._file.close()

    def __iter__(self) -> Iterator[Any]:
        return iter(self._file)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


@contextmanager
def refusing(refusals: Refusals) -> Iterator[None]:
    """Has the calls of this process counted and refused while it lasts."""

    def watched(name: str) -> Callable[..., Any]:
        original = getattr(os, name)

        def called(path: Any, *arguments: Any, **named: Any) -> Any:
            refusals.meet(name, path)
            return original(path, *arguments, **named)

        return called

    opened, made, serialized = io.open, os.open, safetensors.torch.serialize_file

    def open_file(path: Any, mode: str = "r", *arguments: Any, **named: Any) -> Any:
        writes = bool(set(mode) & set("wax+")) and refusals.watches(path)
        if writes and not isinstance(path, int):
            refusals.meet("open", path)
        file = opened(path, mode, *arguments, **named)
        return _File(file, _name_of(path) if isinstance(path, int) else path, refusals) if writes else file

    def open_handle(path: Any, flags: int, *arguments: Any, **named: Any) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            refusals.meet("open", path)
        return made(path, flags, *arguments, **named)

    def serialize_file(tensors: Any, path: Any, *arguments: Any, **named: Any) -> None:
        try:
            refusals.meet("serialize", path)
        except OSError as error:  # as the library says it
            code = error.errno or 0
            raise SafetensorError(
                f"Error while serializing: I/O error: {os.strerror(code)} (os error {code})"
            ) from None
        serialized(tensors, path, *arguments, **named)

    names = ("mkdir", "rmdir", "unlink", "remove", "rename", "replace", "link", "fsync")
    patches = [mock.patch.object(os, name, watched(name)) for name in names]
    patches += [
        mock.patch.object(io, "open", open_file),
        mock.patch.object(builtins, "open", open_file),
        mock.patch.object(os, "open", open_handle),
        mock.patch.object(safetensors.torch, "serialize_file", serialize_file),
        mock.patch.object(shutil, "_use_fd_functions", False),
    ]
    for patch in patches:
        patch.start()
    try:
        yield
    finally:
        for patch in reversed(patches):
            patch.stop()


def count_calls(recipe: dict[str, Any], folder: Path, host: graftkit.PluginHost) -> list[str]:
    """Returns the calls by which a run changes its folder, in their order."""
    refusals = Refusals(folder)
    with refusing(refusals):
        go(recipe, folder / "runs" / "x", host)
    return refusals.calls


class Kept:
    """What lies in a folder, to be put back after another process has changed it: the very files, which may be open.

    Args:
        root: The folder.
    """

    def __init__(self, root: Path) -> None:
        self._root, self._links = root, root.with_name(f"{root.name}-kept")
        self._links.mkdir()
        self._folders: list[tuple[Path, int]] = []
        self._files: list[tuple[Path, Path, bytes]] = []
        for number, path in enumerate(sorted(root.rglob("*"))):
            if path.is_dir():
                self._folders.append((path, path.stat().st_mode))
            else:
                link = self._links / str(number)
                os.link(path, link)
                self._files.append((path, link, path.read_bytes()))
        self._offsets = {handle: os.lseek(handle, 0, os.SEEK_CUR) for handle in self._open_files()}
        self._locks = [os.dup(handle) for handle in self._open_files(LOCK)]

    def let_go(self) -> None:
        """Frees in a forked process what its parent holds locked and it does not any more."""
        mine = self._open_files(LOCK)
        for lock in self._locks:
            if sum(os.fstat(handle).st_ino == os.fstat(lock).st_ino for handle in mine) == 1:
                fcntl.flock(lock, fcntl.LOCK_UN)

    def _open_files(self, name: str | None = None) -> list[int]:
        inodes = {link.stat().st_ino for path, link, _ in self._files if name in (None, path.name)}
        found = []
        for handle in [int(path.name) for path in Path("/proc/self/fd").iterdir()]:
            with suppress(OSError):
                found += [handle] if os.fstat(handle).st_ino in inodes else []
        return found

    def put_back(self) -> None:
        """Has the folder be as it was; open files are, too, and at the places where they were."""
        for entry in self._root.iterdir():
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        for folder, mode in self._folders:
            folder.mkdir()
            folder.chmod(mode)
        for path, link, data in self._files:
            os.link(link, path)
            if link.read_bytes() != data:
                link.write_bytes(data)
        for handle, offset in self._offsets.items():
            os.lseek(handle, offset, os.SEEK_SET)
        for lock in self._locks:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.close(lock)
        shutil.rmtree(self._links)


class _Branches(Refusals):
    """Forks the process before each call that is to be refused: the child is refused it, the parent's run goes on.

    Args:
        root: The folder.
        cases: How each call is refused, by its number.

    Attributes:
        ends: What became of each case, in the parent.
        answer: Where a child says what became of it; None in the parent.
        kept: What its folder was like when it was forked.
        known: How runs that went on have ended.
    """

    def __init__(self, root: Path, cases: Mapping[int, Sequence[Refusal]]) -> None:
        super().__init__(root)
        self.ends: dict[tuple[int, Refusal], str] = {}
        self.answer: int | None = None
        self.kept: Kept | None = None
        self.known = Ends()
        self._folder, self._cases, self._busy = root, cases, False

    def watches(self, path: Any) -> bool:
        return not self._busy and super().watches(path)

    def meet(self, call: str, path: Any) -> None:
        if self.answer is None and self.watches(path):
            number = len(self.calls) + 1
            for refusal in self._cases.get(number, ()):
                if self._in_child(number, refusal):
                    self._call, (self._code, self._lasting) = number, refusal
                    break
        super().meet(call, path)

    def _in_child(self, number: int, refusal: Refusal) -> bool:
        self._busy = True
        kept = Kept(self._folder)
        answers, answer = os.pipe()
        child = os.fork()
        if not child:
            os.close(answers)
            self.answer, self.kept, self._busy = answer, kept, False
            return True
        os.close(answer)
        with os.fdopen(answers) as pipe:
            said = pipe.read()
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if said:
            end, met, repeated = json.loads(said)
            self.known.learn(end, met, repeated)
            self.ends[number, refusal] = end
        else:
            self.ends[number, refusal] = f"the process ended with {status}"
        kept.put_back()
        self._busy = False
        return False


def refuse_each(
    recipe: dict[str, Any],
    expected: dict[str, Any],
    folder: Path,
    host: graftkit.PluginHost,
    cases: Mapping[int, Sequence[Refusal]],
) -> dict[tuple[int, Refusal], str]:
    """Refuses calls of a run, each in a run of its own, which goes on afterwards.

    What those runs do before that call, they do together: each forks from one that is refused nothing.

    Args:
        recipe: What is run.
        expected: What it comes to.
        folder: Where; it is missing, before and afterwards.
        host: The plugins.
        cases: How each call is refused, by its number, from 1.

    Returns:
        "told" where the run failed with an error that names a file of its folder, "unharmed" where it finished all the
        same, or what is wrong.
    """
    folder.mkdir()
    branches = _Branches(folder, cases)
    gc.freeze()  # what there is by now need not be copied into every fork
    try:
        told = _refused(recipe, expected, folder, host, branches)
        if branches.answer is not None:
            if told == "told" and branches.kept:
                branches.kept.let_go()
                told = branches.known.of(folder, lambda: _went_on(recipe, expected, folder, host))
            refused = "" if told in ("told", "unharmed") else f"refused {branches.refused}, "
            with os.fdopen(branches.answer, "w") as pipe:
                json.dump([refused + told, branches.known.met, branches.known.repeated], pipe)
    finally:
        if branches.answer is not None:
            os._exit(0)
    gc.unfreeze()
    shutil.rmtree(folder)
    assert told == "unharmed", told
    return branches.ends


def _refused(
    recipe: dict[str, Any], expected: dict[str, Any], folder: Path, host: graftkit.PluginHost, refusals: Refusals
) -> str:
    """Runs until a call is refused, and says how that was told."""
    try:
        with refusing(refusals):
            found = go(recipe, folder / "runs" / "x", host)
        wanted = expected["files"]
        found["files"] = {n: d for n, d in found["files"].items() if n in wanted or not _NOT_REMOVED.search(n)}
        return "unharmed" if found == expected else f"finished with another result: {_differing(found, expected)}"
    except GraftkitError as error:
        said = os.strerror(refusals.code) in error.message
        return "told" if said and error.where.startswith(str(folder)) else f"told as: {error}"
    except Exception as error:
        return f"told as: {type(error).__name__}: {error}"


def _differing(found: dict[str, Any], expected: dict[str, Any]) -> list[str]:
    return sorted(key for key in expected if found.get(key) != expected[key])


def _went_on(recipe: dict[str, Any], expected: dict[str, Any], folder: Path, host: graftkit.PluginHost) -> str:
    out = folder / "runs" / "x"
    try:
        if go(recipe, out, host, resume=True) != expected:
            return "then another result"
        return f"then left over: {left_over(out)}" if left_over(out) else "told"
    except Exception as error:
        return f"then {type(error).__name__}: {error}"


def main() -> int:
    """Prints a table, and what went wrong."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else None
    host, start = graftkit.PluginHost(), time.perf_counter()
    with tempfile.TemporaryDirectory(dir=memory_folder()) as place:
        recipe = make_recipe(Path(place))
        expected = go(recipe, Path(place) / "never" / "x", host)
        (Path(place) / "counted").mkdir()
        every = range(1, len(count_calls(recipe, Path(place) / "counted", host)) + 1)
        cases: dict[int, list[Refusal]] = {call: [] for call in every}
        for code, lasting in REFUSALS:
            all_of_them = count is None or count >= len(every)
            for call in every if all_of_them else random.Random(code).sample(every, count or 0):
                cases[call].append((code, lasting))
        ends = refuse_each(recipe, expected, Path(place) / "f", host, cases)
    print(f"{'the system says':40}{'calls':>7}{'told':>7}{'unharmed':>10}{'neither':>9}")
    wrong = 0
    for refusal in REFUSALS:
        name = f"{os.strerror(refusal[0])}{', from then on' if refusal[1] else ''}"
        found = {call: end for (call, other), end in ends.items() if other == refusal}
        bad = {call: end for call, end in found.items() if end not in ("told", "unharmed")}
        print("".join(f"  call {call}: {end}\n" for call, end in sorted(bad.items())), end="")
        told, unharmed = (list(found.values()).count(end) for end in ("told", "unharmed"))
        print(f"{name:40}{len(found):7}{told:7}{unharmed:10}{len(bad):9}")
        wrong += len(bad)
    print(f"{time.perf_counter() - start:.0f} s")
    return min(1, wrong)


if __name__ == "__main__":
    sys.exit(main())
