"""The processes that prove exports: each is started or forked, waited for within its limits, and ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from graftkit.errors import ProofStoppedError
from graftkit.flow.exports.proof_forks import FORKS, ProofForks
from graftkit.flow.exports.prove import TRUSTED
from graftkit.flow.memory.free_memory import free_memory, memory_of
from graftkit.host.discovery import disabled_by_environment
from graftkit.interfaces.exporter import Exporter

__all__ = ["ProofProcess", "end_proof", "forks_for", "most_memory", "start_proof", "wait_for_proof"]

_SECONDS, _BYTES_A_SECOND = 1800, 2_000_000
"""How long a proof may take: half an hour, and a second for each two megabytes to load."""

_SHARE_OF_FREE = 0.9
"""How much of the memory that is free may be taken by the proof of an export that this run has not written."""

_PROVE = (sys.executable, "-P", "-m", "graftkit.flow.exports.prove")


class ProofProcess(Protocol):
    """What is used of `subprocess.Popen`, which `ForkedProcess` has, too."""

    @property
    def pid(self) -> int:
        """Its number, which is that of its session and group, too."""

    @property
    def returncode(self) -> int | None:
        """What it ended with; None until then."""

    def poll(self) -> int | None:
        """Returns what it ended with, or None."""

    def communicate(self, *, timeout: float) -> tuple[str, str]:
        """Waits for its end, and returns what it has printed; raises `subprocess.TimeoutExpired` where it goes on."""

    def kill(self) -> None:
        """Ends it."""

    def __enter__(self) -> ProofProcess: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...


def most_memory() -> int | None:
    """Returns how many bytes the proof of an export may take that this run has not written, where the system tells."""
    free = free_memory()
    return None if free is None else int(free * _SHARE_OF_FREE)


def forks_for(exporters: Sequence[Exporter], disable: Iterable[str]) -> AbstractContextManager[ProofForks | None]:
    """Gives what starts the processes that prove several exports; None where each starts by itself.

    That is so for one export alone, and for systems other than Linux, whose libraries may not bear to be forked.

    Args:
        exporters: What wrote the exports.
        disable: Plugins to leave out.
    """
    if len(exporters) < 2 or sys.platform != "linux":
        return nullcontext()
    packages = {name for exporter in exporters for name in getattr(exporter, "proved_with", ())}
    return ProofForks([*_PROVE, FORKS, str(os.getpid()), *sorted(packages)], _environment(disable))


def start_proof(
    folder: Path, probes: Path, poll: Any, *, trusted: bool, disable: Iterable[str], forks: ProofForks | None
) -> ProofProcess:
    """Starts the process of a proof: a fork where there is what starts one, else a new one.

    Args:
        folder: The export.
        probes: The probes' file.
        poll: Called while waiting; raises to stop.
        trusted: Whether this run has just written the export.
        disable: Plugins to leave out.
        forks: What starts forks, or None.
    """
    arguments, trust = [str(folder), str(probes)], [TRUSTED] if trusted else []
    forked = forks.start([*arguments, *trust], poll) if forks else None
    if forked:
        return forked
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [*_PROVE, *arguments, str(os.getpid()), *trust],
        stdin=subprocess.DEVNULL,
        stdout=pipe,
        stderr=pipe,
        text=True,
        encoding="utf-8",
        env=_environment(disable),
        start_new_session=True,
    )


def _environment(disable: Iterable[str]) -> dict[str, str]:
    """Returns the variables of a proof's process."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    # What an export or its manifest names is opened where it lies on this machine, or not at all.
    environment |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    environment |= {"GGML_NO_BACKTRACE": "1"}  # llama.cpp starts a debugger where it aborts
    return environment | {"GRAFTKIT_DISABLE_PLUGINS": ",".join({*disable, *disabled_by_environment()})}


def wait_for_proof(process: ProofProcess, poll: Any, folder: Path, limit: int | None) -> tuple[str, str]:
    """Waits until a proof's process ends, and returns what it has printed on standard output and error.

    Args:
        process: The process.
        poll: Called while waiting; raises to stop.
        folder: The export, whose size says how long it may take.
        limit: The most bytes of memory that it may take, or None.

    Raises:
        ProofStoppedError: It was killed, or took too long or too much memory.
    """
    said = _output(process, poll, folder, limit)
    if process.returncode == -signal.SIGKILL:
        raise ProofStoppedError(
            "its proof was killed (SIGKILL), as systems do where memory runs out",
            where=str(folder),
            hint="The export is as it was written. Prove it with more memory free, or on another machine.",
        )
    return said


def _output(process: ProofProcess, poll: Any, folder: Path, limit: int | None) -> tuple[str, str]:
    seconds = _time_limit(folder)
    latest = time.monotonic() + seconds
    while True:
        poll()
        try:
            return process.communicate(timeout=0.2)
        except subprocess.TimeoutExpired as waited:
            if process.poll() is not None:  # something that it has started holds its output open
                end_proof(process)
                with suppress(subprocess.TimeoutExpired):
                    return process.communicate(timeout=1)
                return _text(waited.stdout), _text(waited.stderr)
            if limit is not None and (memory_of(process.pid) or 0) > limit:
                raise ProofStoppedError(
                    f"its proof took more than {limit / 1e9:.1f} GB of memory, most of what was free, and was stopped",
                    where=str(folder),
                    hint="Its configuration claims more than its files hold, or this machine is too small for it.",
                ) from None
            if time.monotonic() > latest:
                raise ProofStoppedError(
                    f"its proof took longer than {seconds / 60:.0f} minutes and was stopped",
                    where=str(folder),
                    hint="The program that loads it hangs, or this machine is too small for it.",
                ) from None


def end_proof(process: ProofProcess) -> None:
    """Kills a proof's process and whatever it started, where that still runs."""
    if os.name == "posix":  # the process leads a session, and with it a group, of its own
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    if process.poll() is None:
        process.kill()


def _text(output: str | bytes | None) -> str:
    """Returns what was read of a process's output by then, which is bytes whatever the stream's mode."""
    return output.decode("utf-8", "replace") if isinstance(output, bytes) else output or ""


def _time_limit(folder: Path) -> float:
    """Returns how many seconds a proof may take: an adapter's loads its base model too, which half an hour is for."""
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return _SECONDS + size / _BYTES_A_SECOND
