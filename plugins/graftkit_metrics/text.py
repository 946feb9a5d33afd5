"""Metrics that look at an answer's characters."""

from __future__ import annotations

import re

from graftkit import Answered
from graftkit.errors import DataError

from graftkit_metrics.config import ContainsConfig, RegexConfig, TextConfig

__all__ = ["Contains", "ExactMatch", "Regex"]


class ExactMatch:
    """Whether the answer is the expected one, but for white space around it."""

    def __init__(self, config: TextConfig) -> None:
        self._ignore_case = config.ignore_case

    def score(self, answered: Answered) -> float:
        """Returns 1 or 0."""
        return float(_folded(answered.answer, self._ignore_case) == _folded(answered.expected, self._ignore_case))


class Contains:
    """Whether the answer contains the expected one, or a text."""

    def __init__(self, config: ContainsConfig) -> None:
        self._text, self._ignore_case = config.text, config.ignore_case

    def score(self, answered: Answered) -> float:
        """Returns 1 or 0."""
        wanted = answered.expected if self._text is None else self._text
        return float(_folded(wanted, self._ignore_case) in _folded(answered.answer, self._ignore_case))


class Regex:
    """Whether a regular expression matches the answer, or finds the same in the answer and the expected one."""

    def __init__(self, config: RegexConfig) -> None:
        self._match, self._ignore_case = config.match, config.ignore_case
        self._pattern = re.compile(config.pattern, re.IGNORECASE if config.ignore_case else 0)

    def score(self, answered: Answered) -> float:
        """Returns 1 or 0.

        Raises:
            DataError: What is compared is what the pattern finds, and it finds nothing in the expected answer.
        """
        if self._match == "whole":
            return float(self._pattern.fullmatch(answered.answer.strip()) is not None)
        found = self._found(answered.answer)
        if self._match == "anywhere":
            return float(found is not None)
        return float(found == self._expected(answered))

    def check(self, answered: Answered) -> None:
        """Makes sure that the pattern finds something in the expected answer, where that is compared.

        Raises:
            DataError: It finds nothing.
        """
        if self._match not in ("whole", "anywhere"):
            self._expected(answered)

    def _expected(self, answered: Answered) -> str:
        """Returns what the pattern finds in the expected answer.

        Raises:
            DataError: It finds nothing.
        """
        expected = self._found(answered.expected)
        if expected is None:
            raise DataError(
                f"the metric regex finds {self._pattern.pattern!r:.60} nowhere in the expected answer",
                where=answered.record.where,
                hint="Write evaluation.metrics so that its pattern matches every expected answer.",
            )
        return expected

    def _found(self, text: str) -> str | None:
        match = self._pattern.search(text)
        if match is None:
            return None
        found = match[1] if self._pattern.groups else match[0]
        return _folded(found or "", self._ignore_case)


def _folded(text: str, ignore_case: bool) -> str:
    return text.strip().casefold() if ignore_case else text.strip()
