"""The exporters for mlx-lm keep the contract that everybody's do."""

from __future__ import annotations

import pytest
from graftkit.testing import ExporterContract

pytestmark = pytest.mark.usefixtures("forked_children")


class TestMlx(ExporterContract):
    provider = "mlx"
    options = {"bits": 4, "dtype": "float16"}


class TestMlxLora(ExporterContract):
    provider = "mlx-lora"
