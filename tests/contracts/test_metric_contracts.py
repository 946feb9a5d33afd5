"""The built-in metrics keep the contract that everybody's do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from graftkit.testing import MetricContract
from graftkit_metrics.contracts import JsonEqualContract, RegexContract


class TestExactMatch(MetricContract):
    provider = "exact-match"


class TestContains(MetricContract):
    provider = "contains"


class TestContainsAText(MetricContract):
    provider = "graftkit:contains"
    options: ClassVar[Mapping[str, Any]] = {"text": "set_light", "ignore_case": True}


class TestRegex(RegexContract):
    provider = "regex"


class TestRegexFindsTheSame(MetricContract):
    provider = "regex"
    options: ClassVar[Mapping[str, Any]] = {"pattern": "[a-z0-9]+", "match": "same", "ignore_case": True}


class TestRegexOfTheWhole(MetricContract):
    provider = "regex"
    options: ClassVar[Mapping[str, Any]] = {"pattern": "[0-9]+", "match": "whole"}


class TestJsonValid(MetricContract):
    provider = "json-valid"


class TestJsonEqual(JsonEqualContract):
    provider = "json-equal"
