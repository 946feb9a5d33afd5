"""The built-in adapters keep the contract that everybody's do, on every quantizer that is installed."""

from __future__ import annotations

from typing import Any

import torch
from graftkit.recipe.bind import Choice
from graftkit.testing import AdapterContract
from graftkit.testing.contracts.adapter import doubled
from graftkit.testing.contracts.base import deviates
from graftkit.testing.contracts.samples import normal


class TestLora(AdapterContract):
    provider = "lora"


class TestLoraWithDropout(AdapterContract):
    provider = "lora"
    options = {"rank": 3, "alpha": 7.0, "dropout": 0.25}


class TestDora(AdapterContract):
    provider = "lora"
    options = {"dora": True, "rank": 3, "alpha": 7.0}

    @deviates("the norms of the rows are constants to the gradient, as in section 4.3 of the paper")
    def test_gradients_are_those_of_finite_differences(self, quantizer: Choice) -> None:
        adapted: Any = doubled(self.trained(self.frozen(quantizer, 4, 6)))
        norms = adapted._norms(torch.float64)
        adapted._norms = lambda dtype: norms
        names, parameters = zip(*adapted.trainable_parameters().items(), strict=True)

        def forward(x: torch.Tensor, *values: torch.Tensor) -> Any:
            return torch.func.functional_call(adapted, dict(zip(names, values, strict=True)), (x,))

        inputs = (normal(2, 6, seed=3, dtype=torch.float64).requires_grad_(), *parameters)
        assert torch.autograd.gradcheck(forward, inputs, atol=1e-5, rtol=1e-3)


class TestDoraFromPissa(TestDora):
    options = {"dora": True, "rank": 2, "alpha": 2.0, "rslora": True, "init": "pissa", "dropout": 0.25}


class TestPissa(AdapterContract):
    provider = "lora"
    options = {"rank": 4, "alpha": 5.0, "init": "pissa"}


class TestEva(AdapterContract):
    provider = "lora"
    options = {"rank": 2, "alpha": 4.0, "init": "eva", "eva_tokens": 300}


class TestQpissa(AdapterContract):
    provider = "lora"
    options = {"rank": 4, "alpha": 4.0, "init": "qpissa"}


class TestQlora(AdapterContract):
    provider = "qlora"


class TestAdapterThatReplacesTheFrozenWeight(AdapterContract):
    provider = "plugins_of_others.pissa:Pissa"


class TestAdapterThatStartsFromTheOriginalWeight(AdapterContract):
    provider = "plugins_of_others.pissa:PlainPissa"


class TestFull(AdapterContract):
    provider = "full"


class TestBitFit(AdapterContract):
    provider = "bitfit"
