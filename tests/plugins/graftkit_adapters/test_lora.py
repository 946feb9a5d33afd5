"""LoRA against PEFT's and published figures; tests/contracts holds what every adapter promises."""

from __future__ import annotations

import pytest
import torch
from graftkit import FrozenWeight, Layer, LayerInfo
from graftkit_adapters.config import LoraConfig, QloraConfig
from graftkit_adapters.lora import Lora, LoraWeight
from graftkit_quantizers.dense import Dense
from torch import nn


def frozen(weight: torch.Tensor) -> FrozenWeight:
    return Dense().quantize(weight, LayerInfo("layer", "linear", *weight.shape))


def attached(lora: Lora, weight: FrozenWeight, generator: torch.Generator | None = None) -> LoraWeight:
    info = LayerInfo("layer", "linear", weight.out_features, weight.in_features)
    return lora.attach(Layer(info, weight, None, generator or torch.Generator()))


def trained(adapted: LoraWeight) -> LoraWeight:
    with torch.no_grad():
        adapted.lora_B.normal_(generator=torch.Generator().manual_seed(3))
    return adapted


def test_it_computes_and_starts_as_peft_does() -> None:
    from peft import LoraConfig as PeftConfig
    from peft import get_peft_model

    linear = nn.Linear(64, 48, bias=False)
    wrapped = get_peft_model(
        nn.Sequential(linear), PeftConfig(r=8, lora_alpha=20, target_modules=["0"], init_lora_weights=True)
    )
    theirs = dict(wrapped.named_parameters())
    ours = attached(Lora(LoraConfig(rank=8, alpha=20.0)), frozen(linear.weight))
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


def test_in_16_bits_it_learns_what_it_learns_in_32() -> None:
    """As under autocast: products in bfloat16, parameters and their gradients in float32."""
    random = torch.Generator().manual_seed(0)
    stored = frozen(torch.randn(192, 256, generator=random) / 16)
    weight = trained(attached(Lora(LoraConfig(rank=16)), stored, random))
    x, wanted = torch.randn(500, 256, generator=random), torch.randn(500, 192, generator=random)
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        weight.zero_grad()
        weight(x.to(dtype)).backward(wanted.to(dtype))
        found.append([p.grad.clone() for p in (weight.lora_A, weight.lora_B) if p.grad is not None])
    for exact, short in zip(*found, strict=True):
        assert short.dtype == torch.float32
        assert (short - exact).norm() < 0.01 * exact.norm()


def test_dropout_acts_in_training_only_and_keeps_the_mean() -> None:
    weight = trained(attached(Lora(LoraConfig(rank=4, dropout=0.5)), frozen(torch.zeros(4, 50))))
    x = torch.ones(1, 50)
    weight.eval()
    expected = weight(x)
    weight.train()
    torch.manual_seed(0)
    mean = torch.stack([weight(x) for _ in range(4000)]).mean(0)
    assert not torch.equal(weight(x), expected)
    torch.testing.assert_close(mean, expected, rtol=0.2, atol=0.1)


def test_its_tensors_are_called_as_peft_calls_them() -> None:
    adapted = attached(Lora(), frozen(torch.zeros(12, 70)))
    assert set(Lora().peft_tensors(adapted)) == {"lora_A.weight", "lora_B.weight"}


def test_the_published_parameter_counts() -> None:
    """LLaMA-7B has 32 layers of 4096 x 4096 projections; rank 8 on q and v trains 4,194,304 parameters."""
    stored = frozen(torch.zeros(4096, 1))
    stored.in_features = 4096
    weight = attached(Lora(LoraConfig(rank=8)), stored)
    assert sum(p.numel() for p in weight.trainable_parameters().values()) * 2 * 32 == 4_194_304


def test_qlora_is_lora_with_another_preset() -> None:
    assert issubclass(QloraConfig, LoraConfig)
    assert QloraConfig.preset["quantizer"] == {"use": "nf4", "double_quant": True}
