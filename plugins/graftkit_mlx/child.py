"""What mlx-lm is asked, in a process of its own: importing it changes limits and variables of its process."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import subprocess
import sys
import traceback
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

from graftkit.errors import ExportError
from graftkit.interfaces.end_with_parent import end_with_parent
from graftkit.interfaces.json_file import read_json_object, write_json
from graftkit.interfaces.temporary import is_no_room

__all__ = ["ask", "mlx_is_there"]

_MINUTES = 60
"""After so many an answer is not awaited any more."""
_LARGEST = 1 << 28
"""Bytes of an answer at most."""
_TOLD = 400
"""Characters of what the process said that an error repeats."""
_NO_ROOM, _NOT_LOADED = 90, 91
"""What the process exits with where a disk is full, and where mlx-lm can't be imported."""
_INSTALL = "Install the release that graftkit is tested with: pip install --upgrade 'graftkit[mlx]'."
_UNWRITTEN = "[write] Unable to write"
"""What the RuntimeError begins with that mlx raises where a file finds no room."""


def mlx_is_there() -> bool:
    """Tells whether mlx-lm and mlx are installed."""
    return bool(find_spec("mlx_lm") and find_spec("mlx"))


def ask(what: str, folder: Path, workspace: Path, **settings: Any) -> dict[str, Any]:
    """Has another process do something with a model's folder.

    Args:
        what: The name of one of the functions of `answers`.
        folder: The model's folder, which is its first argument.
        workspace: A folder for the answer.
        settings: Its other ones.

    Returns:
        What it returned.

    Raises:
        ExportError: It failed, or took an hour.
        OSError: There was no room for what it writes.
    """
    answer = workspace / "answer.json"
    command = [sys.executable, "-P", "-m", __name__, str(os.getpid()), what, str(folder), json.dumps(settings)]
    path = os.pathsep.join(path for path in sys.path if path)
    own = {"PYTHONPATH": path, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    try:
        done = subprocess.run(
            [*command, str(answer)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env={**os.environ, **own},
            timeout=60 * _MINUTES,
            check=False,
            start_new_session=True,  # a terminal's Ctrl-C is for the process that asks, which ends this one
        )
    except subprocess.TimeoutExpired:
        raise ExportError(f"mlx-lm took more than {_MINUTES} minutes") from None
    if done.returncode == _NO_ROOM:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(settings.get("target", workspace)))
    told = _error_in(done.stderr.decode(errors="replace"))
    if done.returncode == _NOT_LOADED:
        raise ExportError(f"mlx-lm can't be imported: {told}", hint=_INSTALL)
    if done.returncode or not answer.is_file():
        raise ExportError(f"mlx-lm: {told or _end_of(done.returncode)}")
    found = read_json_object(answer, _LARGEST, ExportError)
    answer.unlink()
    return found


def _error_in(told: str) -> str:
    """Returns the error that a traceback ends with."""
    lines = told.strip().splitlines()
    starts = [number for number, line in enumerate(lines) if re.match(r"\w[\w.]*(Error|Exception|Exit)\b", line)]
    return " ".join(line.strip() for line in lines[starts[-1] if starts else -1 :])[:_TOLD]


def _end_of(code: int) -> str:
    """Returns what a process ended with that said nothing."""
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def main(parent: str, what: str, folder: str, settings: str, answer: str) -> None:
    """Answers one request, as long as the process lives that asks."""
    end_with_parent(int(parent))
    try:
        from graftkit_mlx import answers
    except Exception:  # whatever a release does that is not the one for this version of mlx or Python
        _exit_telling(_NOT_LOADED)
    try:
        found: Mapping[str, Any] = getattr(answers, what)(Path(folder), **json.loads(settings))
        write_json(Path(answer), found)
    except (OSError, RuntimeError) as error:
        if str(error).startswith(_UNWRITTEN) or (isinstance(error, OSError) and is_no_room(error)):
            _exit_telling(_NO_ROOM)
        raise


def _exit_telling(code: int) -> NoReturn:
    """Exits with a code, once the error that is handled is on standard error."""
    traceback.print_exc()
    sys.exit(code)


if __name__ == "__main__":
    main(*sys.argv[1:])
