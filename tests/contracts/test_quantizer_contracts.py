"""The built-in quantizers keep the contract that everybody's do."""

from __future__ import annotations

from graftkit.testing import QuantizerContract


class TestNone(QuantizerContract):
    provider = "none"


class TestNf4(QuantizerContract):
    provider = "nf4"


class TestNf4WithDoubleQuantization(QuantizerContract):
    provider = "nf4"
    options = {"double_quant": True}


class TestNf4InLargeBlocks(QuantizerContract):
    provider = "nf4"
    options = {"blocksize": 256}


class TestInt8(QuantizerContract):
    provider = "graftkit:int8"


class TestInt8WithRoundedProducts(QuantizerContract):
    provider = "graftkit:int8"
    options = {"products": "int8"}


class TestStored(QuantizerContract):
    provider = "stored"
