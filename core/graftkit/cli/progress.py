"""Shows a run's events: a live display on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import click

from graftkit.cli.terminal import above, console, is_terminal
from graftkit.cli.training_line import TrainingLine, sample_lines
from graftkit.flow.events import (
    Chosen,
    Event,
    HoldoutMeasured,
    Notice,
    OnEvent,
    PassFinished,
    Progress,
    SampleAnswered,
    StageFinished,
    StageStarted,
    StepFinished,
)
from graftkit.flow.records.training_numbers import describe_chosen
from graftkit.visible import further_lines_indented

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

__all__ = ["show_progress"]


@contextmanager
def show_progress() -> Iterator[OnEvent]:
    """Gives a listener that writes to standard error; where nobody reads that any more, the run goes on."""
    if not is_terminal(err=True):
        yield PlainLines().show
        return
    from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    live = console(err=True)
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),  # a stage may be called after an export, and an export anything
        BarColumn(bar_width=_bar_width(live.width)),
        TextColumn("{task.fields[text]}", markup=False),
        TimeElapsedColumn(),
    )
    bars = Bars(*columns, console=live, redirect_stdout=False, redirect_stderr=False)
    with above(live):
        bars.start()
        try:
            yield LiveBars(bars).show
        finally:
            with suppress(OSError):  # the terminal has been closed
                bars.stop()


_WIDE = 110
"""Columns from which on a terminal has room for a long bar."""


_BESIDE = 14
"""Columns that the spinner, the time and what is between them take."""


def _bar_width(width: int) -> int:
    return 28 if width >= _WIDE else 8


def _chosen(values: Mapping[str, Any]) -> str:
    return f"chosen by the records and the model: {describe_chosen(values)}"


def _measured(event: HoldoutMeasured) -> str:
    return f"step {event.step}/{event.steps}  holdout loss {event.loss:.4f}  ({event.examples} examples)"


class PlainLines:
    """Writes a line a stage, and few of training: about every twentieth of the way, and else ever more rarely.

    However long a run is, and however many steps it takes, they stay about a hundred.
    """

    every_seconds = 10.0
    every_share = 0.1
    """The share of the stage's time so far that passes between two lines, where that is longer."""
    evaluations = 20
    """How many evaluations are told one by one; of later ones the lines of steps tell."""

    def __init__(self) -> None:
        self._line = TrainingLine()
        self._last = self._start = time.monotonic()
        self._evaluations = 0

    def show(self, event: Event) -> None:
        """Writes what is worth a line."""
        match event:
            case StageStarted(stage):
                self._start = time.monotonic()
                self._write(f"{stage} ...")
            case Chosen(values):
                self._write(_chosen(values))
            case StageFinished(stage, seconds):
                self._write(f"{stage}: {seconds:.1f} s")
            case Notice(stage, message):
                self._write(further_lines_indented(f"{stage}: note: {message}"))
            case StepFinished(step):
                self._line.add(step)
                share = -(-step.steps // 20)
                if step.step in (1, step.steps) or step.step % share == 0 or self._due():
                    self._write(f"  {self._line.text()}")
            case HoldoutMeasured(step, steps):
                self._line.add(event)
                self._evaluations += 1
                if self._evaluations <= self.evaluations or step == steps:
                    self._write(f"  {_measured(event)}")
            case SampleAnswered():
                for line in sample_lines(event):
                    self._write(f"  {line}")
            case PassFinished(step, steps, done, total):
                if self._due():
                    self._write(f"  step {step}/{steps}: {done} of {total} passes")
            case Progress(stage, what, done, total):
                if self._due():
                    self._write(f"  {stage}: {done} of {total} {what}")

    def _due(self) -> bool:
        now = time.monotonic()
        return now - self._last > max(self.every_seconds, self.every_share * (now - self._start))

    def _write(self, line: str) -> None:
        self._last = time.monotonic()
        click.echo(line, err=True)


class LiveBars:
    """Keeps a bar a stage."""

    def __init__(self, bars: Bars) -> None:
        self._bars = bars
        self._task: TaskID | None = None
        self._line = TrainingLine()

    def show(self, event: Event) -> None:
        """Moves the bars."""
        with suppress(OSError):  # the terminal has been closed; the run goes on
            self._show(event)

    def _show(self, event: Event) -> None:
        match event:
            case StageStarted(stage):
                self._task = self._bars.add_task(stage, total=None, text="")
            case Chosen(values):
                self._bars.console.print(_chosen(values), markup=False)
            case StageFinished():
                self._update(total=1, completed=1)
            case Notice(stage, message):
                self._bars.console.print(further_lines_indented(f"note: {stage}: {message}"), style="yellow")
            case StepFinished(step):
                self._line.add(step)
                self._update(total=step.steps, completed=step.step, text=self._line.text(self._room()))
            case HoldoutMeasured():
                self._line.add(event)
                self._update(text=self._line.text(self._room()))
            case SampleAnswered():
                for line in sample_lines(event):
                    self._bars.console.print(line, markup=False, style="dim", overflow="ellipsis", no_wrap=True)
            case PassFinished(step, steps, done, total):
                text = f"step {step}/{steps}  {done}/{total} passes"
                self._update(total=steps, completed=step - 1 + done / total, text=text)
            case Progress(_, what, done, total):
                self._update(total=total, completed=done, text=f"{done}/{total} {what}")

    def _room(self) -> int:
        """Returns how many characters the line of training has beside what else stands on its line."""
        width = self._bars.console.width
        names = [task.description for task in self._bars.tasks]
        return width - max(map(len, names), default=0) - _bar_width(width) - _BESIDE

    def _update(self, **fields: object) -> None:
        if self._task is not None:
            self._bars.update(self._task, **fields)  # type: ignore[arg-type]
