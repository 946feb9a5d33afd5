"""One process that gives inputs to one parser: `python -m hostile.worker PARSER FOLDER`; `hostile.campaign` starts it.

It reads lines `FIRST END` and answers each with a line of JSON for every seed in that range. Its memory is limited to
what it has after the first, valid input, and 512 MB more.
"""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import sys
import time
import traceback
import warnings
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from graftkit.errors import GraftkitError

from hostile.parsers import LONG_MESSAGES_PENDING, Parser, parser_named

__all__ = ["SECONDS", "Verdict", "judge", "main"]

SECONDS = 5.0
"""How much processor time an input may take."""

MEMORY = 512 << 20
"""How much memory an input may take beyond what the process had before, in bytes."""

SCREEN = 2000
"""The most characters of an error: a screen of 80 x 25."""


@dataclass
class Verdict:
    """What became of one input.

    Attributes:
        seed: Its number.
        outcome: "accepted", "refused" or "failed".
        kinds: What was changed in it.
        seconds: Processor time that the parser took.
        memory: Bytes that the parser took beyond what the process had, at the highest.
        problem: What is wrong, where it failed.
        details: A traceback, where it failed with one.
    """

    seed: int
    outcome: str
    kinds: list[str] = field(default_factory=list)
    seconds: float = 0.0
    memory: int = 0
    problem: str = ""
    details: str = ""


def judge(parser: Parser, seed: int, folder: Path) -> Verdict:
    """Makes the input of a seed in a folder and gives it to its parser.

    Args:
        parser: The parser.
        seed: The input's number.
        folder: An existing, empty folder.
    """
    kinds = parser.make(random.Random(f"{parser.name}:{seed}"), folder)
    verdict = Verdict(seed, "accepted", kinds)
    idle = _start_of_peak()
    start = time.process_time()
    try:
        parser.read(folder)
    except GraftkitError as error:
        verdict.outcome = "refused"
        verdict.problem = _fault_of(error, parser, folder)
    except BaseException as error:  # a panic of Rust's and an exit are none of Exception
        if isinstance(error, KeyboardInterrupt):
            raise
        verdict.problem = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        verdict.details = traceback.format_exc(limit=-8)[-4000:]
    verdict.seconds = time.process_time() - start
    verdict.memory = max(0, _peak() - idle)
    if not verdict.problem and verdict.seconds > SECONDS:
        verdict.problem = f"it took {verdict.seconds:.1f} seconds"
    if not verdict.problem and verdict.memory > MEMORY:
        verdict.problem = f"{verdict.memory >> 20} MB of memory"
    if verdict.problem:
        verdict.outcome = "failed"
    return verdict


def _fault_of(error: GraftkitError, parser: Parser, folder: Path) -> str:
    """Says what is wrong with an error of graftkit's own, if anything is."""
    text = str(error)
    if not LONG_MESSAGES_PENDING and (len(text) > SCREEN or text.count("\n") > 24):
        return f"a message of {len(text):,} characters: {text[:60]!r}..."
    if not any(name in text for name in (str(folder), *parser.named)):
        return f"a message that names no file: {text[:150]!r}"
    return ""


def _status(key: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) << 10
    return 0


def _start_of_peak() -> int:
    """Makes the system measure the peak of memory anew where it can; returns what the process has now."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
        return _status("VmRSS")
    return _peak()


def _peak() -> int:
    with suppress(OSError):
        return _status("VmHWM")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def _limit_memory() -> None:
    """Limits the process to the data that it has now, and `MEMORY` more with some for the allocator's own use."""
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_DATA, (_status("VmData") + MEMORY + (64 << 20),) * 2)


def main() -> None:
    """Answers ranges of seeds until the input ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print
    warnings.simplefilter("ignore")
    parser, place = parser_named(sys.argv[1]), Path(sys.argv[2])

    def answer(seed: int) -> Verdict:
        folder = place / str(seed)
        folder.mkdir()
        try:
            return judge(parser, seed, folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    parser.prepare(place)
    warm = place / "warm"
    warm.mkdir()
    parser.valid(warm)
    parser.read(warm)  # imports what it needs
    _limit_memory()
    answers.write("ready\n")
    answers.flush()
    for line in sys.stdin:
        first, end = map(int, line.split())
        for seed in range(first, end):
            answers.write(json.dumps(asdict(answer(seed))) + "\n")
            answers.flush()


if __name__ == "__main__":
    main()
