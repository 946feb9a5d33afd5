"""The line that says how training goes: a pure function of what has happened so far and of the line's width."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import islice

from graftkit.flow.events import HoldoutMeasured, SampleAnswered
from graftkit.flow.memory.measured_memory import memory_in_use
from graftkit.host.lifecycle import StepInfo
from graftkit.visible import one_line

__all__ = ["TrainingLine", "sample_lines", "time_left"]

_METRICS = 2
"""How many of an objective's metrics stand in a line, the first ones that it names."""

_LOOK_EVERY = 0.5
"""Seconds between two looks at the memory."""

_SHOWN = 100
"""Characters of a question or an answer that are shown."""


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


class TrainingLine:
    """Says of the last step its loss and learning rate, the last holdout loss, the speed, the time left and the memory.

    Args:
        memory: Tells how many bytes are in use; None where the system does not tell.
    """

    def __init__(self, memory: Callable[[], int | None] = memory_in_use) -> None:
        self._memory, self._looked = memory, float("-inf")
        self._bytes: int | None = None
        self._seconds, self._tokens, self._steps = 0.0, 0, 0
        self._holdout: float | None = None
        self._last: StepInfo | None = None

    def add(self, event: StepInfo | HoldoutMeasured) -> None:
        """Takes note of a step, or of an evaluation while the model is trained."""
        if isinstance(event, HoldoutMeasured):
            self._holdout = event.loss
            return
        self._last = event
        self._seconds += event.seconds
        self._tokens += event.tokens
        self._steps += 1
        now = time.monotonic()
        if now - self._looked >= _LOOK_EVERY:
            self._looked, self._bytes = now, self._memory()

    def text(self, width: int | None = None) -> str:
        """Returns the line, without what does not fit into a width.

        Args:
            width: Characters that there is room for; as many as it takes when left out.
        """
        step = self._last
        if step is None:
            return ""
        rate = self._tokens / self._seconds if self._seconds else 0.0
        metrics = "  ".join(f"{name} {value:.3g}" for name, value in islice(step.metrics.items(), _METRICS))
        parts = [  # in their order on the line, and which goes first where there is no room
            (f"step {step.step}/{step.steps}", 0),
            (f"loss {step.loss:.4f}", 1),
            (metrics, 4),
            (f"holdout {self._holdout:.4f}" if self._holdout is not None else "", 3),
            (f"rate {step.learning_rate:.1e}", 6),
            (f"{rate:.0f} tokens/s", 5),
            (f"{time_left(step, self._seconds, self._steps)} left", 2),
            (f"{self._bytes / 1e9:.1f} GB" if self._bytes is not None else "", 7),
        ]
        shown = [part for part in parts if part[0]]
        while width is not None and len(shown) > 1 and len("  ".join(text for text, _ in shown)) > width:
            shown.remove(max(shown, key=lambda part: part[1]))
        return "  ".join(text for text, _ in shown)


def sample_lines(event: SampleAnswered) -> list[str]:
    """Returns what the model answered to a holdout record: a line for the question, the expected and its answer."""
    parts = {"asked": event.question, "expected": event.expected, "answered": event.answer}
    said = [f"{name:8}  {one_line(text.strip(), _SHOWN)}" for name, text in parts.items() if text or name == "answered"]
    return [f"step {event.step}/{event.steps}  {one_line(event.where)}", *(f"  {line}" for line in said)]
