"""How much memory the machine has free, and how much a process takes: what Linux says, None elsewhere."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path

__all__ = ["available_memory", "free_memory", "memory_of"]

_CONTAINER = Path("/sys/fs/cgroup/memory.max")


def free_memory() -> int | None:
    """Returns the bytes that may be taken before the machine swaps, or a container's limit where that is lower."""
    free = _sum_of(Path("/proc/meminfo"), "MemAvailable")
    if free is None:
        return None
    with suppress(OSError, ValueError):  # no container, or "max"
        return min(free, int(_CONTAINER.read_text()))
    return free


def available_memory() -> int | None:
    """Returns the bytes that this process may hold in all: what it holds already, and what is free."""
    free = _sum_of(Path("/proc/meminfo"), "MemAvailable")
    if free is None:
        return None
    found = free + (memory_of(os.getpid()) or 0)
    with suppress(OSError, ValueError):
        return min(found, int(_CONTAINER.read_text()))
    return found


def memory_of(process: int) -> int | None:
    """Returns the bytes that a process takes and that are no file's, those swapped out included."""
    return _sum_of(Path(f"/proc/{process}/status"), "RssAnon|RssShmem|VmSwap")


def _sum_of(path: Path, names: str) -> int | None:
    try:
        found = re.findall(rf"^(?:{names}):\s+(\d+) kB$", path.read_text(), re.MULTILINE)
    except OSError:
        return None
    return 1024 * sum(map(int, found)) if found else None
