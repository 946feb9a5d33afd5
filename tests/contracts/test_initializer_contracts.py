"""The built-in initializers keep the contract that everybody's do."""

from __future__ import annotations

from graftkit.testing import InitializerContract


class TestMean(InitializerContract):
    provider = "mean"


class TestWeighted(InitializerContract):
    provider = "weighted"


class TestWeightedSteeplyFromTheFirst(InitializerContract):
    provider = "graftkit:weighted"
    options = {"ratio": 0.001, "end": "first"}


class TestFocus(InitializerContract):
    provider = "focus"


class TestFocusOnLittle(InitializerContract):
    provider = "focus"
    options = {"corpus_tokens": 90, "window": 1, "dimensions": 2, "min_count": 1}


class TestRandom(InitializerContract):
    provider = "random"
