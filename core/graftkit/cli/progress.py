"""Shows a run's events: a live display on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import islice
from typing import TYPE_CHECKING, Any

import click

from graftkit.cli.terminal import above, console, is_terminal
from graftkit.flow.estimate import describe_chosen
from graftkit.flow.events import (
    Chosen,
    Event,
    HoldoutMeasured,
    Notice,
    OnEvent,
    PassFinished,
    Progress,
    StageFinished,
    StageStarted,
    StepFinished,
)
from graftkit.host.lifecycle import StepInfo
from graftkit.visible import further_lines_indented

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

__all__ = ["show_progress", "time_left"]


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
        BarColumn(bar_width=28),
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


def time_left(step: StepInfo, seconds: float, taken: int) -> str:
    """Returns the time that the steps still to come will take at the speed so far, as m:ss or h:mm:ss.

    Args:
        step: The last step.
        seconds: How long the steps took that this process has taken.
        taken: How many those are: fewer than the step's number where the run goes on.
    """
    left = round(seconds / taken * (step.steps - step.step))
    minutes, rest = divmod(left, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _chosen(values: Mapping[str, Any]) -> str:
    return f"chosen by the records and the model: {describe_chosen(values)}"


_METRICS = 2
"""How many of an objective's metrics stand in a line, the first ones that it names."""


def _measured(event: HoldoutMeasured) -> str:
    return f"step {event.step}/{event.steps}  holdout loss {event.loss:.4f}  ({event.examples} examples)"


class _Speed:
    """Adds up the steps that this process has taken."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.tokens = 0
        self.steps = 0

    def line(self, step: StepInfo) -> str:
        self.seconds += step.seconds
        self.tokens += step.tokens
        self.steps += 1
        rate = self.tokens / self.seconds
        left = time_left(step, self.seconds, self.steps)
        said = "".join(f"  {name} {value:.3g}" for name, value in islice(step.metrics.items(), _METRICS))
        return f"step {step.step}/{step.steps}  loss {step.loss:.4f}{said}  {rate:.0f} tokens/s  {left} left"


class PlainLines:
    """Writes a line a stage, and lines of training about every twentieth of the way or ten seconds."""

    every_seconds = 10.0

    def __init__(self) -> None:
        self._speed = _Speed()
        self._last = time.monotonic()

    def show(self, event: Event) -> None:
        """Writes what is worth a line."""
        match event:
            case StageStarted(stage):
                self._last = time.monotonic()
                self._write(f"{stage} ...")
            case Chosen(values):
                self._write(_chosen(values))
            case StageFinished(stage, seconds):
                self._write(f"{stage}: {seconds:.1f} s")
            case Notice(stage, message):
                self._write(further_lines_indented(f"{stage}: note: {message}"))
            case StepFinished(step):
                line = self._speed.line(step)
                share = max(1, step.steps // 20)
                if step.step in (1, step.steps) or step.step % share == 0 or self._due():
                    self._write(f"  {line}")
            case HoldoutMeasured():
                self._write(f"  {_measured(event)}")
            case PassFinished(step, steps, done, total):
                if self._due():
                    self._write(f"  step {step}/{steps}: {done} of {total} passes")
            case Progress(stage, what, done, total):
                if self._due():
                    self._write(f"  {stage}: {done} of {total} {what}")

    def _due(self) -> bool:
        return time.monotonic() - self._last > self.every_seconds

    def _write(self, line: str) -> None:
        self._last = time.monotonic()
        with suppress(OSError):  # nobody listens any more; the run goes on
            click.echo(line, err=True)


class LiveBars:
    """Keeps a bar a stage."""

    def __init__(self, bars: Bars) -> None:
        self._bars = bars
        self._task: TaskID | None = None
        self._speed = _Speed()

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
                self._update(total=step.steps, completed=step.step, text=self._speed.line(step))
            case HoldoutMeasured():
                self._bars.console.print(_measured(event), markup=False)
            case PassFinished(step, steps, done, total):
                text = f"step {step}/{steps}  {done}/{total} passes"
                self._update(total=steps, completed=step - 1 + done / total, text=text)
            case Progress(_, what, done, total):
                self._update(total=total, completed=done, text=f"{done}/{total} {what}")

    def _update(self, **fields: object) -> None:
        if self._task is not None:
            self._bars.update(self._task, **fields)  # type: ignore[arg-type]
