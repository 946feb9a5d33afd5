"""What every metric promises."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import ClassVar

from graftkit.errors import DataError
from graftkit.interfaces.metric import Answered, ChecksRecords, Metric, MetricConfig
from graftkit.interfaces.samples import Completion
from graftkit.testing.contracts.base import Contract

__all__ = ["MetricContract"]

_ODD = (
    "",
    " ",
    "\n\n",
    "A",
    "a" * 10_000,
    "[" * 2_000,
    "{" * 2_000,
    '{"a": NaN}',
    '{"a": 1, "a": 2}',
    "[1e999]",
    '"\\ud800"',
    "\ud800",
    "é 🎉 \u202e",
    "\x00\x1b[31m",
    "((((*+?",
    "true",
    "-0",
)
"""What models answer at times, and worse."""


class MetricContract(Contract):
    """Scores right answers, wrong ones and those of a model gone mad.

    Example:
        >>> class TestOverlap(MetricContract):
        ...     provider = "overlap"

    Attributes:
        expected: Expected answers to score with; the fields under test must be able to score them.
    """

    kind = "metric"
    expected: ClassVar[tuple[str, ...]] = ("42", '{"call": "set_light", "brightness": 30}', "Two words.\nAnd a line.")

    def score(self, answer: str, expected: str) -> float:
        """Scores an answer with the provider."""
        made: Metric = self.make()
        return made.score(self.answered(answer, expected))

    def answered(self, answer: str, expected: str) -> Answered:
        """Returns an answer to a record."""
        return Answered(answer, expected, "a prompt", Completion("a prompt", expected, "records.jsonl:3"))

    def test_every_answer_has_a_finite_score(self) -> None:
        """Whatever a model says: an answer is never an error."""
        for expected in self.expected:
            for answer in (*_ODD, expected, expected[: len(expected) // 2], expected * 3):
                found = self.score(answer, expected)
                number = isinstance(found, int | float) and math.isfinite(found)
                assert number, f"score() of {answer!r:.60} is {found!r}, not a finite number"

    def test_one_answer_always_has_the_same_score(self) -> None:
        """Whatever was scored before, and whatever the process has drawn."""
        made: Metric = self.make()
        pairs = [self.answered(answer, expected) for expected in self.expected for answer in (*_ODD, expected)]
        state = random.getstate()
        first = [made.score(pair) for pair in pairs]
        assert random.getstate() == state, "score() draws from Python's global random state"
        again = [made.score(pair) for pair in reversed(pairs)][::-1]
        assert first == again, "scored in another order, an answer has another score"
        assert [self.score(pair.answer, pair.expected) for pair in pairs] == first, "made anew, it scores otherwise"

    def test_the_expected_answer_is_worth_no_less_than_any_other(self) -> None:
        """A metric that falls where answers get better is reported the wrong way round."""
        for expected in self.expected:
            best = self.score(expected, expected)
            for answer in ("", "nothing of that", expected[: len(expected) // 2]):
                found = self.score(answer, expected)
                assert found <= best, f"{answer!r} scores {found}, the expected answer {best}"

    def test_one_that_needs_no_expected_answer_looks_at_none(self) -> None:
        """Else the same answer would be worth something else where a record has none."""
        config = self.choice.config
        if not isinstance(config, MetricConfig) or config.needs_expected:
            return
        for answer in (*_ODD, *self.expected):
            found = {self.score(answer, expected) for expected in ("", *self.expected)}
            assert len(found) == 1, f"the score of {answer!r:.60} depends on the expected answer"

    def test_a_record_passes_its_check_where_it_can_be_scored(self) -> None:
        """Or else a run is refused that could be trained, or ends with the first such record."""
        made = self.make()
        if not isinstance(made, ChecksRecords):
            return
        for expected in (*self.expected, *_ODD):
            record = self.answered("", expected)
            checked, scored = (_refusal(method, record) for method in (made.check, made.score))  # type: ignore[attr-defined]
            assert checked == scored, f"{expected!r:.60} expected: check() {checked}, score() {scored}"


def _refusal(method: Callable[[Answered], object], record: Answered) -> str:
    """Returns what a metric says of a record."""
    try:
        method(record)
    except DataError as error:
        return f"refuses it: {error}"
    return "takes it"
