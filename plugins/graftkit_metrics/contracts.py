"""The contract of metrics, with fields and answers for those that need some."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from graftkit.testing import MetricContract

__all__ = ["JsonEqualContract", "RegexContract"]


class RegexContract(MetricContract):
    """With a pattern."""

    options: ClassVar[Mapping[str, Any]] = {"pattern": r"\d+"}


class JsonEqualContract(MetricContract):
    """With expected answers that are JSON."""

    expected = ('{"call": "set_light", "brightness": 30}', "[1, true, null]")
