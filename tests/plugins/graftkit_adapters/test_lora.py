"""LoRA against PEFT's, and its own promises on every quantizer."""

from __future__ import annotations

import pytest
import torch
from graftkit import Quantizer
from graftkit_adapters.config import LoraConfig, QloraConfig
from graftkit_adapters.lora import Lora, LoraWeight
from graftkit_quantizers.dense import Dense
from graftkit_quantizers.int8 import Int8
from graftkit_quantizers.nf4 import Nf4
from torch import nn

QUANTIZERS: dict[str, Quantizer] = {"none": Dense(), "nf4": Nf4(), "int8": Int8()}


@pytest.fixture(params=QUANTIZERS)
def adapted(request: pytest.FixtureRequest) -> LoraWeight:
    weight = torch.randn(12, 70, generator=torch.Generator().manual_seed(1))
    lora = Lora(LoraConfig(rank=3, alpha=7.0))
    return lora.attach("layer", QUANTIZERS[request.param].quantize(weight), torch.Generator().manual_seed(2))


def trained(adapted: LoraWeight) -> LoraWeight:
    with torch.no_grad():
        adapted.lora_B.normal_(generator=torch.Generator().manual_seed(3))
    return adapted


def test_it_starts_as_the_frozen_weight_alone(adapted: LoraWeight) -> None:
    x = torch.randn(5, 70)
    assert torch.equal(adapted(x), adapted.frozen(x))
    assert not adapted.delta().any()


def test_merging_computes_what_forward_computes(adapted: LoraWeight) -> None:
    x = torch.randn(5, 70)
    merged = adapted.frozen.dequantize() + trained(adapted).delta()
    torch.testing.assert_close(adapted(x), x @ merged.T, rtol=1e-5, atol=1e-4)


def test_gradients_reach_the_adapter_alone_and_are_right(adapted: LoraWeight) -> None:
    x = torch.randn(2, 70, dtype=torch.float64)
    trained(adapted).double()
    a, b = adapted.lora_A, adapted.lora_B

    def loss(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        parameters = {"lora_A": a, "lora_B": b}
        return torch.func.functional_call(adapted, parameters, (x,)).square().sum()

    assert torch.autograd.gradcheck(loss, (a, b), atol=1e-3)
    adapted(x).square().sum().backward()
    assert all(p.grad is None for p in adapted.frozen.parameters())
    assert set(adapted.trainable_parameters()) == {"lora_A", "lora_B"}


def test_it_computes_and_starts_as_peft_does() -> None:
    from peft import LoraConfig as PeftConfig
    from peft import get_peft_model

    linear = nn.Linear(64, 48, bias=False)
    wrapped = get_peft_model(
        nn.Sequential(linear), PeftConfig(r=8, lora_alpha=20, target_modules=["0"], init_lora_weights=True)
    )
    theirs = dict(wrapped.named_parameters())
    ours = Lora(LoraConfig(rank=8, alpha=20.0)).attach("0", Dense().quantize(linear.weight), torch.Generator())
    state = {
        "lora_A": theirs["base_model.model.0.lora_A.default.weight"].detach(),
        "lora_B": torch.randn(48, 8),
    }
    with torch.no_grad():
        theirs["base_model.model.0.lora_B.default.weight"].copy_(state["lora_B"])
    bound = 1 / 8  # 1 / sqrt(64)
    assert ours.lora_A.abs().max() <= bound and state["lora_A"].abs().max() <= bound
    assert ours.lora_A.std().item() == pytest.approx(state["lora_A"].std().item(), rel=0.15)
    ours.load_adapter_state(state)
    x = torch.randn(4, 64)
    torch.testing.assert_close(ours(x), wrapped(x))


def test_dropout_acts_in_training_only_and_keeps_the_mean() -> None:
    frozen = Dense().quantize(torch.zeros(4, 50))
    weight = trained(Lora(LoraConfig(rank=4, dropout=0.5)).attach("l", frozen, torch.Generator()))
    x = torch.ones(1, 50)
    weight.eval()
    expected = weight(x)
    weight.train()
    torch.manual_seed(0)
    mean = torch.stack([weight(x) for _ in range(4000)]).mean(0)
    assert not torch.equal(weight(x), expected)
    torch.testing.assert_close(mean, expected, rtol=0.2, atol=0.1)


def test_one_seed_gives_one_start() -> None:
    frozen = Dense().quantize(torch.zeros(4, 50))
    first, again, other = (Lora().attach("l", frozen, torch.Generator().manual_seed(seed)).lora_A for seed in (5, 5, 6))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_a_state_that_does_not_fit_is_refused_and_changes_nothing(adapted: LoraWeight) -> None:
    before = {name: tensor.clone() for name, tensor in adapted.adapter_state().items()}
    wrong = [
        {"lora_A": before["lora_A"]},
        {**before, "lora_C": torch.zeros(1)},
        {"lora_A": before["lora_A"], "lora_B": torch.zeros(1, 3)},
    ]
    for state in wrong:
        with pytest.raises(ValueError, match=r"fit|shape"):
            adapted.load_adapter_state(state)
    assert all(torch.equal(before[name], tensor) for name, tensor in adapted.adapter_state().items())


def test_peft_names_and_back(adapted: LoraWeight) -> None:
    lora = Lora()
    tensors = lora.peft_tensors(adapted)
    assert set(tensors) == {"lora_A.weight", "lora_B.weight"}
    assert lora.from_peft(tensors).keys() == adapted.adapter_state().keys()


def test_the_published_parameter_counts() -> None:
    """LLaMA-7B has 32 layers of 4096 x 4096 projections; rank 8 on q and v trains 4,194,304 parameters."""
    frozen = Dense().quantize(torch.zeros(4096, 1))
    frozen.in_features = 4096
    weight = Lora(LoraConfig(rank=8)).attach("q", frozen, torch.Generator())
    assert sum(p.numel() for p in weight.trainable_parameters().values()) * 2 * 32 == 4_194_304


def test_qlora_is_lora_with_another_preset() -> None:
    assert issubclass(QloraConfig, LoraConfig)
    assert QloraConfig.preset["quantizer"] == {"use": "nf4", "double_quant": True}
