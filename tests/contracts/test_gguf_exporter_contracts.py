"""The exporter of GGUF files keeps the contract that everybody's do; llama.cpp is what loads them."""

from __future__ import annotations

import pytest
from graftkit.testing import ExporterContract

pytestmark = pytest.mark.usefixtures("forked_children")


class TestGguf(ExporterContract):
    provider = "gguf"
    options = {"type": "f32"}


class TestGgufInBlocks(ExporterContract):
    provider = "gguf"
    options = {"type": "q4_0"}


class TestGgufInHalfPrecision(ExporterContract):
    provider = "gguf"
    options = {"type": "f16"}


class TestGgufInBfloat16(ExporterContract):
    provider = "gguf"
    options = {"type": "bf16"}


class TestGgufLora(ExporterContract):
    provider = "gguf-lora"
