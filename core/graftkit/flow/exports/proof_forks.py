"""Has the exports of a run proved by forks of one process that has imported what each would import first.

A fork shares nothing with the others but those modules: no model, no thread, no open file. What it takes of memory goes
with it, and so does what it leaves behind, hangs in or breaks.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import IO, Any

__all__ = ["FORKS", "ForkedProcess", "ProofForks", "serve_forks"]

FORKS = "--forks"
"""Says that a proof's process proves nothing itself, but is forked for each line that it reads."""

_MOST_BYTES = 4 << 20
"""The most that is kept of each stream of a fork: of its errors the end matters."""


class ForkedProcess:
    """A fork that proves an export; it has what is used of `subprocess.Popen` (`ProofProcess`).

    Attributes:
        pid: Its number, which is that of its session and group, too.
        returncode: What it ended with, as `subprocess.Popen` says it; None until then.
    """

    def __init__(self, pid: int, ended: Callable[[float], Mapping[str, Any] | None]) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._ended, self._written = ended, ("", "")

    def poll(self) -> int | None:
        """Returns what it ended with, or None."""
        return self._wait(0)

    def communicate(self, timeout: float) -> tuple[str, str]:
        """Waits for its end, and returns what it has written.

        Raises:
            subprocess.TimeoutExpired: It goes on.
        """
        if self._wait(timeout) is None:
            raise subprocess.TimeoutExpired("a proof", timeout)
        return self._written

    def kill(self) -> None:
        """Ends it."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def __enter__(self) -> ForkedProcess:
        return self

    def __exit__(self, *_: object) -> None:
        while self._wait(1) is None:
            self.kill()

    def _wait(self, timeout: float) -> int | None:
        if self.returncode is None and (found := self._ended(timeout)):
            self.returncode, self._written = found["code"], (found["out"], found["err"])
        return self.returncode


class ProofForks:
    """Starts forks, each once the one before has ended, of a process that is started with the first.

    Args:
        command: What starts a process that calls `serve_forks`.
        environment: Its variables.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self._command, self._environment = list(command), dict(environment)
        self._process: subprocess.Popen[bytes] | None = None
        self._read = b""

    def start(self, arguments: Sequence[str], poll: Callable[[], object]) -> ForkedProcess | None:
        """Starts a fork; where that is the first, or the process to fork has ended, that is started before.

        Args:
            arguments: What the fork is given.
            poll: Called while waiting; raises to stop.

        Returns:
            The fork; None where the process to fork ends instead, or the system refuses another process.
        """
        try:
            process = self._process or self._start()
            assert process.stdin is not None
            process.stdin.write(json.dumps(list(arguments)).encode() + b"\n")
            process.stdin.flush()
        except OSError:
            self.close()
            return None
        while (found := self._answer(0.2)) is None:
            poll()
        return ForkedProcess(found["pid"], self._answer) if "pid" in found else None

    def close(self) -> None:
        """Ends the process to fork, and with it what it has forked."""
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        for stream in (process.stdin, process.stdout):
            with suppress(OSError):
                assert stream is not None
                stream.close()
        process.wait()

    def __enter__(self) -> ProofForks:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start(self) -> subprocess.Popen[bytes]:
        self._read = b""
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=self._environment,
            start_new_session=True,
        )
        return self._process

    def _answer(self, timeout: float) -> dict[str, Any] | None:
        """Returns what the next line says; None where none comes in time, and a killed fork's end where none will."""
        if self._process is None or self._process.stdout is None:
            return {"code": -signal.SIGKILL, "out": "", "err": ""}
        end = time.monotonic() + timeout
        while b"\n" not in self._read:
            with selectors.DefaultSelector() as selector:  # unlike select(), it takes any number of open files
                selector.register(self._process.stdout, selectors.EVENT_READ)
                if not selector.select(max(0, end - time.monotonic())):
                    return None
            data = os.read(self._process.stdout.fileno(), 1 << 16)
            if not data:
                self.close()
                return self._answer(0)
            self._read += data
        line, _, self._read = self._read.partition(b"\n")
        found: dict[str, Any] = json.loads(line)
        return found


def serve_forks(prove: Callable[[], object], requests: IO[bytes], answers: IO[bytes]) -> None:
    """Forks for each request a process that proves; a line says its number, and the next what it ended with.

    Args:
        prove: Proves as `sys.argv` says.
        requests: Lines of JSON: the arguments of each, to which this process's number is added as the third.
        answers: What the lines are written to.
    """
    for line in requests:
        streams, arguments, asking = [os.memfd_create(name) for name in ("out", "err")], json.loads(line), os.getpid()
        pid = os.fork()
        if pid == 0:
            answers.close()
            sys.argv[1:] = [*arguments[:2], str(asking), *arguments[2:]]
            _become(prove, *streams)
        _say(answers, {"pid": pid})
        _, status = os.waitpid(pid, 0)
        out, err = map(_end_of, streams)
        _say(answers, {"code": os.waitstatus_to_exitcode(status), "out": out, "err": err})


def _become(prove: Callable[[], object], out: int, err: int) -> None:
    """Proves in a session of its own, with streams of its own, and ends this process."""
    code = 1
    try:
        os.setsid()
        for number, stream in enumerate((os.open(os.devnull, os.O_RDONLY), out, err)):
            os.dup2(stream, number)
        prove()
        sys.stdout.flush()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def _say(answers: IO[bytes], what: Mapping[str, Any]) -> None:
    answers.write(json.dumps(what).encode() + b"\n")
    answers.flush()


def _end_of(stream: int) -> str:
    """Returns the end of what a fork has written, and lets go of it."""
    with os.fdopen(stream, "rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - _MOST_BYTES))
        return file.read().decode("utf-8", "replace")
