"""Measures what reading a file of a stranger takes: time, and memory beyond that of the idle program."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["MAX_BYTES", "MAX_SECONDS", "Outcome", "measure"]

MAX_SECONDS = 5.0
MAX_BYTES = 512 << 20
_KILL_SECONDS = 60
_KILL_BYTES = 6 << 30


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one case.

    Attributes:
        error: The class of what was raised, "" where nothing was, or "killed" where nothing ended it but its limits.
        message: What it said, or what the case returned.
        seconds: The time of the processor that it took.
        bytes: The most memory that it took, beyond that of the program before it.
    """

    error: str
    message: str
    seconds: float
    bytes: int

    def assert_within_limits(self) -> None:
        """Asserts that it took no more time and memory than a file of a stranger may."""
        assert self.seconds < MAX_SECONDS, self
        assert self.bytes < MAX_BYTES, self

    @property
    def within_limits(self) -> bool:
        """Whether it took less than 5 seconds and 512 MB."""
        return self.error != "killed" and self.seconds < MAX_SECONDS and self.bytes < MAX_BYTES


def measure(code: str, cases: Mapping[str, Any] | Sequence[Any]) -> dict[Any, Outcome]:
    """Runs cases, each in a process of its own that is forked from one that has executed `code`.

    Args:
        code: Python that defines `case(value)`, with the imports that it needs.
        cases: Name -> value, or values; JSON.

    Returns:
        Name or number of each case -> what became of it.
    """
    named = cases if isinstance(cases, Mapping) else dict(enumerate(cases))
    request = json.dumps({"code": code, "cases": list(named.values())})
    done = subprocess.run([sys.executable, __file__], input=request, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return {name: Outcome(*line) for name, line in zip(named, json.loads(done.stdout), strict=True)}


def _serve() -> None:
    request = json.load(sys.stdin)
    names: dict[str, Any] = {}
    exec(request["code"], names)
    json.dump([_measured(names["case"], value) for value in request["cases"]], sys.stdout)


def _measured(case: Any, value: Any) -> tuple[str, str, float, int]:
    idle = _resident()
    reader, writer = os.pipe()
    process = os.fork()
    if process == 0:
        os.close(reader)
        resource.setrlimit(resource.RLIMIT_AS, (_KILL_BYTES, _KILL_BYTES))
        with os.fdopen(writer, "w") as answer:
            try:
                json.dump(("", str(case(value))[:100_000]), answer)
            except BaseException as error:
                json.dump((type(error).__name__, str(error)[:100_000_000]), answer)
        os._exit(0)
    os.close(writer)
    signal.signal(signal.SIGALRM, lambda *_: os.kill(process, signal.SIGKILL))
    signal.alarm(_KILL_SECONDS)
    started = time.monotonic()
    with os.fdopen(reader) as answer:
        said = answer.read()
    _, _, used = os.wait4(process, 0)
    signal.alarm(0)
    seconds = min(used.ru_utime + used.ru_stime, time.monotonic() - started)
    error, message = json.loads(said) if said else ("killed", "")
    return error, message, seconds, max(0, used.ru_maxrss * 1024 - idle)


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


if __name__ == "__main__":
    _serve()
