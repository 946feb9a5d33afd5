"""Runs commands in turn and compares their medians."""

from __future__ import annotations

import statistics
import subprocess
import time
from collections.abc import Mapping, Sequence

__all__ = ["interleaved", "report"]


def interleaved(commands: Mapping[str, Sequence[str]], rounds: int) -> dict[str, list[float]]:
    """Runs every command once a round, so that a machine's drift hits all alike; returns the seconds of each."""
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(rounds):
        for name, command in commands.items():
            start = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            seconds[name].append(time.perf_counter() - start)
    return seconds


def report(seconds: Mapping[str, Sequence[float]], against: str) -> str:
    """Returns a line a command: its median, and the ratio to one of them."""
    base = statistics.median(seconds[against])
    lines = [f"{'':44}{'median':>10}{'ratio':>8}"]
    for name, values in seconds.items():
        median = statistics.median(values)
        lines.append(f"{name:44}{median:9.3f}s{median / base:8.2f}")
    return "\n".join(lines)
