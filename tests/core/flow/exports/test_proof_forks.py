"""Proofs are forks of one process: what one of them does, or leaves behind, is nothing to the next."""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from graftkit.errors import ExportError
from graftkit.flow.exports import proof, proof_process
from graftkit.flow.exports.proof_forks import ProofForks

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere each proof has a process of its own")

SERVES = """
import json, os, sys, time
from graftkit.flow.exports.proof_forks import serve_forks
from graftkit.flow.exports.prove import TRUSTED

def prove():
    folder, probes, parent, *trust = sys.argv[1:]
    assert int(parent) == os.getppid() and trust == [TRUSTED] and os.getsid(0) == os.getpid()
    assert sys.stdin.read() == ""
    name = os.path.basename(folder)
    if name == "crash":
        os.abort()
    if name == "raises":
        raise RuntimeError("no such layer")
    if name == "asker":
        os.kill(os.getppid(), 9)
        time.sleep(60)
    left, os.environ["LEFT"] = os.environ.get("LEFT"), name
    taken = b"x" * (200 << 20)
    if name == "hang":
        time.sleep(600)
    print(json.dumps({"warnings": [f"{name} warns"]}))
    print(json.dumps({"status": "not possible", "reason": f"{left} {os.getppid()}"}))

serve_forks(prove, os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb"))
"""


@pytest.fixture
def forks() -> Iterator[ProofForks]:
    path = os.pathsep.join(filter(None, sys.path))
    with ProofForks([sys.executable, "-c", SERVES], os.environ | {"PYTHONPATH": path}) as forks:
        yield forks


def proved(folder: Path, name: str, forks: ProofForks, **named: Any) -> str:
    """Returns what a fork says that it has found."""
    told: list[str] = []
    (folder / name).mkdir(exist_ok=True)
    found = proof.prove(folder / name, folder / "probes", trusted=True, forks=forks, report=told.append, **named)
    assert told == [f"{name} warns"]
    return str(found["reason"])


def test_what_a_proof_does_is_nothing_to_the_next(
    tmp_path: Path, forks: ProofForks, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = proved(tmp_path, "first", forks)
    assert first.startswith("None ")
    with pytest.raises(ExportError, match="it can't be loaded again: the process ended with -6"):
        proved(tmp_path, "crash", forks)
    with pytest.raises(ExportError, match="it can't be loaded again: RuntimeError: no such layer"):
        proved(tmp_path, "raises", forks)
    with monkeypatch.context() as patch, pytest.raises(ExportError, match="was stopped"):
        patch.setattr(proof_process, "_time_limit", lambda folder: 0.5)
        proved(tmp_path, "hang", forks)
    assert proved(tmp_path, "last", forks) == first, "the process was started again, or what one had left was there"


def test_a_process_that_ends_is_started_again(
    tmp_path: Path, forks: ProofForks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program may have more files open than `select` takes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    many = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]
    try:
        first = proved(tmp_path, "first", forks)
        with pytest.raises(ExportError, match=r"its proof was killed \(SIGKILL\)"):
            proved(tmp_path, "asker", forks)
        again = proved(tmp_path, "again", forks)
    finally:
        for number in many:
            os.close(number)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert again.startswith("None ") and again != first


def test_a_proof_that_is_stopped_stops_its_fork(tmp_path: Path, forks: ProofForks) -> None:
    pids: list[int] = []

    class Stopped(Exception):
        pass

    def poll() -> None:
        found = Path(f"/proc/{(asked := first.split()[1])}/task/{asked}/children").read_text().split()
        if found:
            pids.append(int(found[0]))
            raise Stopped

    first = proved(tmp_path, "first", forks)
    with pytest.raises(Stopped):
        proved(tmp_path, "hang", forks, poll=poll)
    with pytest.raises(ProcessLookupError):
        os.kill(pids[0], 0)
    assert proved(tmp_path, "last", forks) == first
