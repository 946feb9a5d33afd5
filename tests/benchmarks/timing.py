"""Runs commands, or the sides of a script, in turn and compares their medians."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence

__all__ = ["interleaved", "medians_of_sides", "report"]


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


def medians_of_sides(
    script: str, sides: Sequence[str], arguments: Sequence[str], rounds: int
) -> dict[str, dict[str, float]]:
    """Runs a script in a fresh process for every side, once a round each; returns the medians of a side's figures.

    Args:
        script: A file that, given `--side NAME`, prints one JSON object of figures as its last line.
        sides: The names.
        arguments: What else it is given.
        rounds: How often each side runs.
    """
    found: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
    for _ in range(rounds):
        for side in sides:
            command = [sys.executable, script, "--side", side, *arguments]
            out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            found[side].append(json.loads(out.splitlines()[-1]))
    return {side: {key: statistics.median(one[key] for one in runs) for key in runs[0]} for side, runs in found.items()}
