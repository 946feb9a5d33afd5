"""The built-in exporters keep the contract that everybody's do."""

from __future__ import annotations

import pytest
from graftkit.testing import ExporterContract

pytestmark = pytest.mark.usefixtures("forked_children")


class TestPeft(ExporterContract):
    provider = "peft"


class TestMerged(ExporterContract):
    provider = "merged"


class TestMergedInHalfPrecisionAndShards(ExporterContract):
    provider = "merged"
    options = {"dtype": "bfloat16", "shard_gigabytes": 0.0001}


class TestExtendedBase(ExporterContract):
    provider = "extended-base"
    settings = {"vocabulary": "extended"}
