"""Metrics that break one promise each and keep the others."""

from __future__ import annotations

import json

from graftkit import Answered, MetricConfig
from graftkit.errors import DataError


class FailsOnNoJson:
    def score(self, answered: Answered) -> float:
        return float(json.loads(answered.answer) is not None)


class DividesByLength:
    def score(self, answered: Answered) -> float:
        right = sum(one == other for one, other in zip(answered.answer, answered.expected, strict=False))
        return right / len(answered.answer) if answered.answer else float("nan")


class RemembersAnswers:
    def __init__(self) -> None:
        self._seen = 0

    def score(self, answered: Answered) -> float:
        self._seen += 1
        return float(answered.answer == answered.expected) / self._seen


class CountsErrors:
    def score(self, answered: Answered) -> float:
        return float(answered.answer != answered.expected)


class ChecksNothing:
    def score(self, answered: Answered) -> float:
        if not answered.expected.strip():
            raise DataError("nothing is expected", where=answered.record.where)
        return float(answered.answer == answered.expected)

    def check(self, answered: Answered) -> None:
        return None


class NoneExpected(MetricConfig):
    @property
    def needs_expected(self) -> bool:
        return False


class ComparesNevertheless:
    config_class = NoneExpected

    def __init__(self, config: NoneExpected) -> None: ...

    def score(self, answered: Answered) -> float:
        return float(answered.answer == answered.expected)
