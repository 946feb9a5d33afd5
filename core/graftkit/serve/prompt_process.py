"""Lays out long prompts in a process of their own, which has limits: what a tokenizer does in one call has none.

A tokenizer's regular expression may take time that grows with the square of a text's length, in a call that nothing can
interrupt, and its replacements may make a text a thousand times as long. The process is a fork, so that it has the
tokenizer at once, and only on Linux; elsewhere every prompt is laid out where it is asked for.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import selectors
import signal
import sys
import time
import traceback
from array import array
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from graftkit.errors import RequestError
from graftkit.flow.answering.reloaded_model import LayOut
from graftkit.redact import without_secrets
from graftkit.serve.api_error import ApiError, invalid, stopping
from graftkit.tokenization.bounds import CHARACTERS

__all__ = ["MOST_MEMORY", "lay_out_within"]

MOST_MEMORY = 4 << 30
"""Bytes that the process may take besides what it has when it begins."""

_POLL = 0.1
"""Seconds between looks at whether the prompt is still wanted."""

_PART = 1 << 20
_IDS, _REFUSED, _FAILED, _NO_MEMORY = b"i", b"r", b"f", b"m"
"""What the first byte of what the process says stands for."""

_log = logging.getLogger(__name__)


def lay_out_within(seconds: float, unwanted: Callable[[], bool]) -> LayOut:
    """Returns what lays out a prompt as tokens within limits of time and memory.

    A short prompt is laid out at once: a tokenizer whose expressions could take long even for that is never loaded.

    Args:
        seconds: How long it may take.
        unwanted: Tells whether nobody wants the prompt any more, which ends it.
    """

    def lay_out(characters: int, work: Callable[[], list[int]]) -> list[int]:
        if characters <= CHARACTERS or sys.platform != "linux":
            return work()
        try:
            process, reader = _fork(work, seconds)
        except OSError as error:
            _log.warning("a prompt is laid out without limits, since no process can be started: %s", error)
            return work()
        try:
            said = _read(reader, time.monotonic() + seconds, unwanted)
        finally:
            os.close(reader)
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
            with suppress(ChildProcessError):  # whoever started the server has it ignore what becomes of children
                os.waitpid(process, 0)
        if said is None:
            raise stopping() if unwanted() else _too_slow(seconds)
        return _ids_of(said)

    return lay_out


def _fork(work: Callable[[], list[int]], seconds: float) -> tuple[int, int]:
    """Starts the process; returns its number, and what is read from it."""
    reader, writer = os.pipe()
    try:
        process = os.fork()
    except OSError:
        os.close(reader)
        os.close(writer)
        raise
    if not process:
        _be_the_process(work, writer, seconds)
    os.close(writer)
    return process, reader


def _be_the_process(work: Callable[[], list[int]], writer: int, seconds: float) -> NoReturn:
    def apart() -> list[int]:
        _set_apart(writer, seconds)
        return work()

    try:
        with open(writer, "wb") as file:
            file.write(_said(apart))
    finally:
        os._exit(0)  # nothing is closed or written that is the server's


def _set_apart(writer: int, seconds: float) -> None:
    """Lets go of the server's connections, and sets the limits, which hold also where the server is gone."""
    import resource  # there is none on other systems

    os.closerange(3, writer)
    os.closerange(writer + 1, os.sysconf("SC_OPEN_MAX"))
    nothing = os.open(os.devnull, os.O_WRONLY)
    gc.disable()  # nor is anything of the server's finalized
    for stream in (1, 2):
        os.dup2(nothing, stream)  # a library that finds no memory says so at length
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGALRM, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, seconds + 1)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # its threads are not in the fork
    pages = int(Path("/proc/self/statm").read_bytes().split()[0])
    most = pages * resource.getpagesize() + MOST_MEMORY
    with suppress(ValueError):  # less is allowed already
        resource.setrlimit(resource.RLIMIT_AS, (most, resource.getrlimit(resource.RLIMIT_AS)[1]))


def _said(work: Callable[[], list[int]]) -> bytes:
    try:
        return _IDS + array("q", work()).tobytes()
    except MemoryError:
        return _NO_MEMORY
    except RequestError as error:
        facts = {"message": error.message, "where": error.where, "hint": error.hint}
        return _REFUSED + json.dumps(facts).encode()
    except BaseException:  # whatever a tokenizer raises is told by the server
        return _FAILED + without_secrets(traceback.format_exc()).encode("utf-8", "replace")


def _read(reader: int, until: float, unwanted: Callable[[], bool]) -> bytes | None:
    """Returns what the process says to its end; None where that is unwanted, or does not come in time."""
    said = bytearray()
    with selectors.DefaultSelector() as selector:
        selector.register(reader, selectors.EVENT_READ)
        while not unwanted() and time.monotonic() < until:
            if selector.select(_POLL):
                part = os.read(reader, _PART)
                if not part:
                    return bytes(said)
                said += part
    return None


def _ids_of(said: bytes) -> list[int]:
    """Returns the ids that the process gave, or raises what it raised."""
    kind, rest = said[:1], said[1:]
    if kind == _IDS:
        return array("q", rest).tolist()
    if kind == _REFUSED:
        raise RequestError(**json.loads(rest))
    if kind == _FAILED:
        raise RuntimeError(f"a prompt was not laid out\n{rest.decode()}")
    message = f"laying out the prompt takes over {MOST_MEMORY >> 30} GiB of memory, or ends its process"
    raise invalid("", f"{message}: it is too long for this model's tokenizer", "prompt_too_large")


def _too_slow(seconds: float) -> ApiError:
    message = f"the prompt was not laid out as tokens within {seconds:g} seconds"
    advice = "this model's tokenizer takes very long for such a text, as for long runs of white space; shorten it"
    return invalid("", f"{message}: {advice}", "prompt_too_slow")
