"""The line that says how training goes."""

from __future__ import annotations

import time

import pytest
from graftkit.cli.progress import LiveBars, PlainLines
from graftkit.cli.training_line import TrainingLine, sample_lines
from graftkit.flow.events import HoldoutMeasured, SampleAnswered, StageStarted, StepFinished
from graftkit.host.lifecycle import StepInfo

SAMPLE = SampleAnswered(4, 40, "say\x1b[2J 8\nerror: mine", "8!", "x" * 5000, "records.jsonl:9")


def step(number: int, of: int = 40, seconds: float = 2.0) -> StepInfo:
    return StepInfo(number, of, 1.5, 100, 50, seconds, 1e-3, 0.5, {"accuracy": 0.5, "margin": 2.0, "third": 1.0})


def line_of(*events: StepInfo | HoldoutMeasured) -> TrainingLine:
    line = TrainingLine(lambda: 3_000_000_000)
    for event in events:
        line.add(event)
    return line


def test_a_line_says_everything_where_there_is_room() -> None:
    line = line_of(step(1), HoldoutMeasured(1, 40, 1.25, 12), step(2))
    assert line.text() == (
        "step 2/40  loss 1.5000  accuracy 0.5  margin 2  holdout 1.2500  rate 1.0e-03  50 tokens/s  1:16 left  3.0 GB"
    )


@pytest.mark.parametrize("width", range(20, 120))
def test_a_line_never_is_wider_than_its_room(width: int) -> None:
    text = line_of(HoldoutMeasured(1, 40, 1.25, 12), step(2)).text(width)
    assert len(text) <= width or text == "step 2/40"
    assert text.startswith("step 2/40") and ("loss" in text) == (width >= len("step 2/40  loss 1.5000"))


def test_a_sample_is_short_and_on_lines_of_its_own() -> None:
    lines = sample_lines(SAMPLE)
    assert lines[:3] == ["step 4/40  records.jsonl:9", r"  asked     say\x1b[2J 8\nerror: mine", "  expected  8!"]
    assert max(map(len, lines)) < 120


def test_plain_lines_are_bounded_however_long_a_run_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A day of 20,000 steps of 4 seconds each, evaluated after every one."""
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    lines = PlainLines()
    lines.show(StageStarted("training"))
    for number in range(1, 20_001):
        now += 4.0
        lines.show(StepFinished(step(number, 20_000, 4.0)))
        lines.show(HoldoutMeasured(number, 20_000, 1.0, 3))
    told = capsys.readouterr().err.splitlines()
    assert 40 <= len(told) <= 150
    assert "step 20000/20000" in told[-2] and "holdout loss" in told[-1]


def test_telling_of_a_step_takes_less_than_a_hundredth_of_a_short_one(capsys: pytest.CaptureFixture[str]) -> None:
    """A step of 50 ms is a short one; the best of a few times, since other programs run on the machine, too."""
    lines, count = PlainLines(), 500
    taken = []
    for _ in range(5):
        start = time.perf_counter()
        for number in range(count):
            lines.show(StepFinished(step(number + 1, 100_000)))
        taken.append((time.perf_counter() - start) / count)
    assert min(taken) < 0.05 / 100


def test_the_bar_of_training_shows_the_line_and_samples_above_it() -> None:
    import io

    from rich.console import Console
    from rich.progress import Progress as Bars

    screen = io.StringIO()
    bars = Bars(console=Console(file=screen, width=100), disable=True)
    shown = LiveBars(bars)
    for event in (StageStarted("training"), StepFinished(step(3)), HoldoutMeasured(3, 40, 1.25, 12), SAMPLE):
        shown.show(event)
    [task] = bars.tasks
    assert "holdout 1.2500" in task.fields["text"] and len(task.fields["text"]) <= 100 - 8 - 14
    assert "expected  8!" in screen.getvalue() and max(map(len, screen.getvalue().splitlines())) <= 100
