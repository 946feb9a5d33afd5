"""Runs many inputs through a parser, in processes that are watched and replaced when they die or hang."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from forked_children import ForkingPopen, fork_with

from hostile.parsers import parser_named
from hostile.worker import SECONDS, Verdict

__all__ = ["Tally", "run"]

_WAITS = 10.0
"""How long an input may take that uses no processor time: one that waits for something hangs."""

_START = 180.0
"""How long a process may take to start, in seconds."""


@dataclass
class Tally:
    """What became of a parser's inputs.

    Attributes:
        parser: Its name.
        outcomes: How many were accepted, refused and failed.
        kinds: How often each kind of change was made.
        slowest: The input that took longest.
        largest: The input that took most memory.
        failures: Those that failed.
        seconds: How long all took together.
    """

    parser: str
    outcomes: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    slowest: Verdict = field(default_factory=lambda: Verdict(-1, ""))
    largest: Verdict = field(default_factory=lambda: Verdict(-1, ""))
    failures: list[Verdict] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def tried(self) -> int:
        """How many inputs there were."""
        return sum(self.outcomes.values())

    def add(self, verdict: Verdict) -> None:
        """Counts one input."""
        self.outcomes[verdict.outcome] += 1
        self.kinds.update(verdict.kinds)
        self.slowest = max(self.slowest, verdict, key=lambda one: one.seconds)
        self.largest = max(self.largest, verdict, key=lambda one: one.memory)
        if verdict.outcome == "failed":
            self.failures.append(verdict)


def run(parser: str, seeds: range, workers: int = 1, until: float | None = None, most: int | None = None) -> Tally:
    """Gives the inputs of some seeds to a parser.

    Args:
        parser: Its name.
        seeds: The inputs' numbers.
        workers: Processes side by side.
        until: When to stop, as `time.monotonic` counts; None for no limit.
        most: Failures after which no more inputs are tried; None for no limit.
    """
    start, tally = time.monotonic(), Tally(parser)

    def enough() -> bool:
        late = until is not None and time.monotonic() > until
        return late or (most is not None and len(tally.failures) >= most)

    shares = [range(seeds.start + worker * len(seeds) // workers, seeds.start + (worker + 1) * len(seeds) // workers)
              for worker in range(workers)]  # fmt: skip
    with ThreadPoolExecutor(workers) as pool:
        for _ in pool.map(lambda share: _share(parser, share, tally.add, enough), shares):
            pass
    tally.failures.sort(key=lambda verdict: verdict.seed)
    tally.seconds = time.monotonic() - start
    return tally


def _share(parser: str, seeds: range, add: Callable[[Verdict], None], enough: Callable[[], bool]) -> None:
    following, stop = seeds.start, seeds.stop
    while following < stop and not enough():
        with tempfile.TemporaryDirectory(prefix="hostile-", ignore_cleanup_errors=True) as folder:
            following = _one_process(parser, range(following, stop), Path(folder), add, enough)


def _one_process(
    parser: str, seeds: range, folder: Path, add: Callable[[Verdict], None], enough: Callable[[], bool]
) -> int:
    """Tries inputs until the process ends, hangs or has tried them all; returns the first seed that is left."""
    with (folder / "errors").open("wb") as errors, _started(parser, folder, errors) as process:
        try:
            assert process.stdin and process.stdout
            lines = _Lines(process)
            if lines.next(_START) != "ready":
                said = (folder / "errors").read_text(errors="replace")
                raise RuntimeError(f"the process for {parser} did not start: {said[-3000:]}")
            # Files, caches and fragments of memory that a library keeps are not the last input's.
            end = min(seeds.stop, seeds.start + parser_named(parser).at_once)
            process.stdin.write(f"{seeds.start} {end}\n".encode())
            process.stdin.flush()
            for seed in range(seeds.start, end):
                line = lines.next(SECONDS)
                add(Verdict(**json.loads(line)) if line else _ended(seed, process, lines.ended, folder / "errors"))
                if not line or enough():
                    return seed + 1
            return end
        finally:
            process.kill()


def _started(parser: str, folder: Path, errors: object) -> subprocess.Popen[bytes]:
    environment = os.environ | {
        "GGML_NO_BACKTRACE": "1",  # as in a proof
        "RUST_BACKTRACE": "0",  # its symbols take more memory than a worker may have
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "TRANSFORMERS_VERBOSITY": "error",
        "TOKENIZERS_PARALLELISM": "false",
        "OMP_NUM_THREADS": "1",
        "PYTHONFAULTHANDLER": "1",
    }
    fork_with(environment)
    return ForkingPopen(
        [sys.executable, "-m", "hostile.worker", parser, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,  # type: ignore[arg-type]
        env=environment,
        cwd=folder,
    )


class _Lines:
    """The lines that a process writes, with a limit on how long each may take."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout
        self._process, self._pipe, self._read = process, process.stdout.fileno(), b""
        self.ended = False

    def next(self, seconds: float) -> str:
        """Returns the next line; an empty one where the process ended, or took more processor time, or waited."""
        start, used = time.monotonic(), _processor_time(self._process.pid)
        while b"\n" not in self._read:
            ready, _, _ = select.select([self._pipe], [], [], 0.25)
            if ready:
                more = os.read(self._pipe, 1 << 16)
                if not more:
                    self.ended = True
                    return ""
                self._read += more
            elif time.monotonic() - start > seconds:
                spent = _processor_time(self._process.pid) - used
                if spent > seconds or time.monotonic() - start > seconds + _WAITS:
                    return ""
        line, _, self._read = self._read.partition(b"\n")
        return line.decode()


def _processor_time(process: int) -> float:
    with suppress(OSError, IndexError, ValueError):
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return time.monotonic()


def _ended(seed: int, process: subprocess.Popen[bytes], ended: bool, errors: Path) -> Verdict:
    if ended:
        code = process.wait(_WAITS)
        said = errors.read_text(errors="replace")[-4000:]
        return Verdict(seed, "failed", problem=f"the process ended with {code}", details=said)
    return Verdict(seed, "failed", seconds=SECONDS, problem=f"it took more than {SECONDS:g} seconds")
