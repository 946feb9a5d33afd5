"""Starts several processes of one command as torchrun does, without torchrun, which takes seconds itself."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch.distributed import TCPStore

__all__ = ["Started", "start_together"]


@dataclass(frozen=True)
class Started:
    """Processes that run one command together, by their ranks; and the store that they share, where it is kept here."""

    processes: Sequence[subprocess.Popen[str]]
    store: Any = None

    def wait(self, seconds: float = 120) -> list[tuple[int, str]]:
        """Returns each one's exit code and what it wrote to standard error, once all have ended."""
        found = []
        for process in self.processes:
            _, errors = process.communicate(timeout=seconds)
            found.append((process.returncode, errors))
        return found


def start_together(
    count: int,
    arguments: Sequence[str],
    folder: Path,
    more: Mapping[int, Sequence[str]] | None = None,
    ranks: Sequence[int] | None = None,
    here: int | None = None,
    program: Sequence[str] = ("-m", "graftkit"),
    store_apart: bool = False,
) -> Started:
    """Starts `python -m graftkit ARGUMENTS` so many times.

    Args:
        count: How many processes.
        arguments: Of the command.
        folder: Where they run.
        more: Further arguments of some, by their ranks.
        ranks: Which of them are started; all where left out.
        here: How many of them each machine has, as they are told; all of them when left out.
        program: What Python runs in the place of graftkit.
        store_apart: Whether this process keeps the store of all, as torchrun does, in the place of rank 0's.
    """
    store = TCPStore("localhost", 0, is_master=True, wait_for_workers=False) if store_apart else None
    kept = {"TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": "0"} if store_apart else {}
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = store.port if store else free.getsockname()[1]
    return Started(
        [
            subprocess.Popen(
                [sys.executable, *program, *arguments, *(more or {}).get(rank, ())],
                env={
                    **os.environ,
                    "RANK": str(rank),
                    "LOCAL_RANK": str(rank),
                    "WORLD_SIZE": str(count),
                    "LOCAL_WORLD_SIZE": str(here or count),
                    "MASTER_ADDR": "localhost",
                    "MASTER_PORT": str(port),
                    **kept,
                },
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for rank in (range(count) if ranks is None else ranks)
        ],
        store,
    )
