"""The one place that everything the command writes passes through: no character of data is obeyed by a terminal.

Both standard streams are replaced while a command runs. What is written to them, by whomever, has its controls,
overrides of direction and characters of no width written out. Colours are the command's own alone: they are given to
`say`, or to rich through `console`, beside the text, and so never mistaken for the text's. Everyone else is told that
there is no terminal and writes none.
"""

from __future__ import annotations

import io
import json
import logging
import os
import re
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TextIO, cast

from graftkit.errors import StorageError
from graftkit.visible import further_lines_indented, visible

if TYPE_CHECKING:
    from rich.console import Console
    from rich.segment import Segment

__all__ = [
    "NobodyReads",
    "Styled",
    "above",
    "console",
    "ending_with",
    "guarded_streams",
    "is_terminal",
    "json_line",
    "open_closed_streams",
    "say",
    "say_answer",
]

_CODES = {"bold": "1", "green": "32"}

_REDRAWN = re.compile(r"\r[^\n]*|(?:\x1b\[A)+")
"""What a progress bar of tqdm's writes at once: a line from its beginning, without an end, or the way up to it."""

_NOT_ASCII = re.compile(r"[^\x20-\x7e]")


@dataclass(frozen=True, slots=True)
class Styled:
    """A text and how it looks on a terminal: "bold" or "green"."""

    text: str
    style: str


class NobodyReads(Exception):
    """Whoever read standard output has heard enough, as `head` does: the command ends, and nothing went wrong.

    It is no BrokenPipeError, of which click makes an exit without a word, wherever it comes from.

    Attributes:
        code: What the command ends with: what it has found stays found.
    """

    code = 0


@contextmanager
def ending_with(code: int) -> Iterator[None]:
    """Has the command end with a code after what is written meanwhile, whether or not somebody reads all of that.

    Args:
        code: 1 where what the command has found is that something is amiss, 0 else.
    """
    try:
        yield
    except NobodyReads as error:
        error.code = code
        raise
    if code:
        sys.exit(code)


@contextmanager
def _writing(stream: TextIO) -> Iterator[None]:
    """Says of an error in writing to standard output that it is one.

    Standard error tells how far a command has come: where it can't be written, the command goes on unheard.

    Raises:
        StorageError: Standard output can't be written.
        NobodyReads: Nobody reads it any more.
    """
    try:
        yield
    except OSError as error:
        if stream is _unguarded(sys.stderr):
            return
        if isinstance(error, BrokenPipeError):
            raise NobodyReads from error
        raise StorageError(f"can't be written: {error.strerror or error}", where="standard output") from error


class _Guarded(io.TextIOBase):
    """A text stream that writes out what a terminal would obey.

    Args:
        stream: Where it writes.
        bars: Whether lines that a progress bar draws again are let through to a terminal.
    """

    def __init__(self, stream: TextIO, *, bars: bool) -> None:
        super().__init__()
        self.unguarded = stream
        self._bars = bars and _isatty(stream)

    def write(self, text: str) -> int:
        if not isinstance(text, str):
            raise TypeError(f"a text is written here, not {type(text).__name__}")
        start = ""
        if self._bars and _REDRAWN.fullmatch(text):
            start, text = (text, "") if text.startswith("\x1b") else ("\r", text[1:])
        with _writing(self.unguarded):
            self.unguarded.write(start + _encodable(visible(text), self.unguarded))
        return len(text)

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """As click and others ask for it: any text can be written."""
        return "utf-8"

    @property
    def errors(self) -> str:  # type: ignore[override]
        return "backslashreplace"

    def __getattr__(self, name: str) -> Any:
        return getattr(self.unguarded, name)

    def flush(self) -> None:
        with _writing(self.unguarded):
            self.unguarded.flush()

    def fileno(self) -> int:
        return self.unguarded.fileno()

    def isatty(self) -> bool:
        return False

    def writable(self) -> bool:
        return True

    def close(self) -> None:
        """Leaves the stream open: it is the process's."""


def _isatty(stream: Any) -> bool:
    try:
        return bool(stream.isatty())
    except (AttributeError, ValueError):  # none, or closed
        return False


def _encodable(text: str, stream: TextIO) -> str:
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


class _ToldRecord(logging.LogRecord):
    """A message of a library's log, whose further lines look like none of ours."""

    def getMessage(self) -> str:
        return further_lines_indented(super().getMessage())


class _NamedHandler(logging.StreamHandler[Any]):
    """Writes what no handler of a library's own takes, with whose it is, to what is standard error then."""

    def __init__(self, level: int) -> None:
        logging.Handler.__init__(self, level)
        self.setFormatter(logging.Formatter("%(name)s: %(message)s"))

    @property
    def stream(self) -> Any:
        return sys.stderr


def _told_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    return f"{category.__name__}: {further_lines_indented(str(message))}\n"


def open_closed_streams() -> None:
    """Opens nothing in the place of each standard stream that this process was started without.

    The next file that somebody opens would take its number otherwise, and whatever is printed by C code or a child
    process would go into that file.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
            os.set_inheritable(number, True)
            setattr(sys, name, io.open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115, UP020


@contextmanager
def guarded_streams() -> Iterator[None]:
    """Puts a guard before both standard streams for a while, and has logs and warnings name themselves there."""
    records, warning, last = logging.getLogRecordFactory(), warnings.formatwarning, logging.lastResort
    logging.setLogRecordFactory(_ToldRecord)
    warnings.formatwarning = _told_warning
    logging.lastResort = _NamedHandler(logging.WARNING)
    try:
        with _guards():
            yield
    finally:
        logging.setLogRecordFactory(records)
        warnings.formatwarning, logging.lastResort = warning, last


@contextmanager
def _guards() -> Iterator[None]:
    former = sys.stdout, sys.stderr
    if sys.stdout is not None:  # it is under pythonw
        sys.stdout = cast(TextIO, _Guarded(_unguarded(sys.stdout), bars=False))
    if sys.stderr is not None:
        sys.stderr = cast(TextIO, _Guarded(_unguarded(sys.stderr), bars=True))
    try:
        yield
    finally:
        sys.stdout, sys.stderr = former


@contextmanager
def above(live: Console) -> Iterator[None]:
    """Has what is written to the guarded streams meanwhile appear above what a console draws again and again.

    rich's own redirection would take colours and links out of the text.
    """
    from rich.file_proxy import FileProxy

    streams: tuple[Any, ...] = (sys.stdout, sys.stderr)
    guards = [stream for stream in streams if isinstance(stream, _Guarded)]
    former = [guard.unguarded for guard in guards]
    for guard in guards if live.is_terminal else ():
        guard.unguarded = cast(TextIO, FileProxy(live, guard.unguarded))
    try:
        yield
    finally:
        for guard, stream in zip(guards, former, strict=True):
            guard.unguarded.flush()
            guard.unguarded = stream


def _unguarded(stream: Any) -> TextIO:
    found: TextIO = stream.unguarded if isinstance(stream, _Guarded) else stream
    return found


def _stream(err: bool) -> TextIO:
    return _unguarded(sys.stderr if err else sys.stdout)


def is_terminal(*, err: bool = False) -> bool:
    """Tells whether standard output, or standard error, is a terminal."""
    return _isatty(_stream(err))


def _codes() -> Mapping[str, str]:
    """Returns the codes that standard output may be given: none but on a terminal, colours where they are wanted.

    As rich has it, a terminal that calls itself dumb gets none, and the variable NO_COLOR leaves bold letters.
    """
    if not is_terminal() or os.environ.get("TERM", "").lower() in ("dumb", "unknown"):
        return {}
    return {"bold": _CODES["bold"]} if os.environ.get("NO_COLOR") else _CODES


def say(parts: Iterable[str | Styled], *, end: str = "\n") -> None:
    """Writes to standard output, styled parts in their colours where that is a terminal which shows them.

    Args:
        parts: What is written, one after the other.
        end: What follows.
    """
    stream, codes = _stream(False), _codes()
    with _writing(stream):
        for part in parts:
            code = codes.get(part.style, "") if isinstance(part, Styled) else ""
            text = _encodable(visible(part.text if isinstance(part, Styled) else part), stream)
            stream.write(f"\x1b[{code}m{text}\x1b[0m" if code else text)
        stream.write(end)
        stream.flush()


def say_answer(text: str) -> None:
    """Writes a piece of a model's answer to standard output: as it is to a file or a program, guarded to a terminal.

    A terminal shows each piece at once, a file or a program is given whole lines.
    """
    stream, shown = _stream(False), is_terminal()
    with _writing(stream):
        stream.write(_encodable(visible(text) if shown else text, stream))
        if shown or "\n" in text:
            stream.flush()


def json_line(data: Any) -> str:
    """Returns JSON on one line that means the data exactly and has no character that a terminal would obey."""
    return _NOT_ASCII.sub(_in_json, json.dumps(data, ensure_ascii=False))


def _in_json(found: re.Match[str]) -> str:
    return found[0] if visible(found[0]) == found[0] else json.dumps(found[0])[1:-1]


def console(*, err: bool = False) -> Console:
    """Returns rich's console of a standard stream. Texts are no markup, and what they hold is written out."""
    from rich.console import Console

    class GuardedConsole(Console):
        def _render_buffer(self, buffer: Iterable[Segment]) -> str:
            return super()._render_buffer(_guarded(segment) for segment in buffer)

    return GuardedConsole(file=_stream(err), markup=False, emoji=False, highlight=False)


def _guarded(segment: Segment) -> Segment:
    return segment if segment.control else segment._replace(text=visible(segment.text))
