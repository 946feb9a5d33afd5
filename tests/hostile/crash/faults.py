"""Has the system refuse the Nth call by which a run changes its folder, for each N, and has the run go on afterwards.

    python tests/hostile/crash/faults.py [CALLS]

Prints a table; with a number, a random sample of so many calls of each kind of refusal.
"""

from __future__ import annotations

import builtins
import errno
import io
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import graftkit
import safetensors.torch
from graftkit.errors import GraftkitError
from hostile.crash.tiny_run import go, left_over, make_recipe
from safetensors import SafetensorError

__all__ = ["REFUSALS", "Refusals", "count_calls", "refuse", "refusing"]

REFUSALS = (
    (errno.ENOSPC, False),
    (errno.ENOSPC, True),
    (errno.EIO, False),
    (errno.EIO, True),
    (errno.EACCES, False),
)
"""What the system says, and whether it says so from then on."""

_FREEING = ("unlink", "remove", "rmdir")
"""What a full disk does not refuse."""


class Refusals:
    """Counts the calls that change something below a folder, and refuses one, or all from one on.

    Args:
        root: The folder.
        call: Which is refused, from 1; 0: none.
        code: The error's number.
        lasting: Whether all that follow are refused, too.

    Attributes:
        calls: How many there were, by name.
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


def refuse(
    recipe: dict[str, Any],
    expected: dict[str, Any],
    folder: Path,
    host: graftkit.PluginHost,
    call: int,
    code: int,
    lasting: bool,
) -> str:
    """Refuses one call of a run, and has it go on.

    Returns:
        "told" where the run failed with an error that names a file of its folder, "unharmed" where it finished all the
        same, or what is wrong.
    """
    out = folder / "runs" / "x"
    folder.mkdir()
    refusals, told = Refusals(folder, call, code, lasting=lasting), ""
    try:
        with refusing(refusals):
            go(recipe, out, host)
        told = "unharmed"
    except GraftkitError as error:
        named = error.where.startswith(str(folder)) and os.strerror(code) in error.message
        told = "told" if named else f"refused {refusals.refused}, told as: {error}"
    except Exception as error:
        told = f"refused {refusals.refused}, told as: {type(error).__name__}: {error}"
    try:
        if told not in ("told", "unharmed"):
            return told
        if told == "told" and go(recipe, out, host, resume=True) != expected:
            return f"refused {refusals.refused}: another result"
        if told == "told" and left_over(out):
            return f"refused {refusals.refused}: left over: {left_over(out)}"
        return told
    except Exception as error:
        return f"refused {refusals.refused}, then {type(error).__name__}: {error}"
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main() -> int:
    """Prints a table, and what went wrong."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else None
    host, wrong = graftkit.PluginHost(), 0
    print(f"{'the system says':32}{'calls':>7}{'told':>7}{'unharmed':>10}{'neither':>9}{'seconds':>9}")
    with tempfile.TemporaryDirectory() as place:
        recipe = make_recipe(Path(place))
        expected = go(recipe, Path(place) / "never" / "x", host)
        (Path(place) / "counted").mkdir()
        calls = len(count_calls(recipe, Path(place) / "counted", host))
        for code, lasting in REFUSALS:
            start, every = time.perf_counter(), range(1, calls + 1)
            drawn = every if count is None or count >= calls else sorted(random.Random(code).sample(every, count))
            ends = [refuse(recipe, expected, Path(place) / "f", host, call, code, lasting) for call in drawn]
            bad = [
                f"  call {call}: {end}"
                for call, end in zip(drawn, ends, strict=True)
                if end[:8] not in ("told", "unharmed")
            ]
            print("\n".join(bad), end="\n" if bad else "")
            name = f"{os.strerror(code)}{', from then on' if lasting else ''}"
            figures = f"{len(drawn):7}{ends.count('told'):7}{ends.count('unharmed'):10}{len(bad):9}"
            print(f"{name:32}{figures}{time.perf_counter() - start:9.0f}", flush=True)
            wrong += len(bad)
    return min(1, wrong)


if __name__ == "__main__":
    sys.exit(main())
