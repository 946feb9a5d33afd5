"""What an answer is worth, compared with the expected one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from graftkit.interfaces.config import ProviderConfig
from graftkit.interfaces.samples import Sample

__all__ = ["Answered", "ChecksRecords", "Metric", "MetricConfig"]


@dataclass(frozen=True, slots=True)
class Answered:
    """What a model answered to a holdout record.

    Attributes:
        answer: The answer's text, without special tokens.
        expected: What the record answers; "" where it is a prompt without an answer, of which a metric is asked alone
            that needs none (`MetricConfig.needs_expected`).
        prompt: The text that the model went on with, as it was laid out.
        record: The record; its `where` names file and line for errors.
    """

    answer: str
    expected: str
    prompt: str
    record: Sample


class MetricConfig(ProviderConfig):
    """The fields of a metric that says whether it needs an expected answer; one of other fields, or none, needs one."""

    @property
    def needs_expected(self) -> bool:
        """Whether an answer's score depends on the expected one; records that have none are refused then."""
        return True


class Metric(Protocol):
    """Scores answers. Built from its own config model: `Class(config)`, or `Class()`."""

    def score(self, answered: Answered) -> float:
        """Returns what an answer is worth, a finite number; reported is the mean over all answers.

        The same answer has the same score each time, whatever was scored before. By convention 1 is a right answer and
        0 a wrong one.

        Raises:
            DataError: The record is none that can be scored; with its place.
        """


@runtime_checkable
class ChecksRecords(Protocol):
    """A metric that can't score answers to every record.

    A run asks it before any work, and so do `toolkit plan` and `toolkit evaluate`: about the records that are to be
    answered. Where a run learns from what it says, these are all holdout records, and it asks about each training
    record that a step sees, too, before anything is trained.
    """

    def check(self, answered: Answered) -> None:
        """Makes sure that answers to a record can be scored.

        Args:
            answered: The record, and an empty answer.

        Raises:
            DataError: They can't, as `score` raises it; with the record's place.
        """
