"""The built-in adapters keep the contract that everybody's do, on every quantizer that is installed."""

from __future__ import annotations

from graftkit.testing import AdapterContract


class TestLora(AdapterContract):
    provider = "lora"


class TestLoraWithDropout(AdapterContract):
    provider = "lora"
    options = {"rank": 3, "alpha": 7.0, "dropout": 0.25}


class TestQlora(AdapterContract):
    provider = "qlora"


class TestAdapterThatReplacesTheFrozenWeight(AdapterContract):
    provider = "plugins_of_others.pissa:Pissa"


class TestAdapterThatStartsFromTheOriginalWeight(AdapterContract):
    provider = "plugins_of_others.pissa:PlainPissa"
