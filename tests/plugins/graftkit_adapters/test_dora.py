"""DoRA against PEFT's; tests/contracts holds what every adapter promises."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from graftkit import FrozenWeight, Layer, LayerInfo
from graftkit_adapters.config import LoraConfig
from graftkit_adapters.dora import DoraWeight
from graftkit_adapters.lora import Lora
from graftkit_quantizers.config import Nf4Config
from graftkit_quantizers.dense import Dense
from graftkit_quantizers.int8 import Int8
from graftkit_quantizers.nf4 import Nf4
from torch import nn

QUANTIZERS: dict[str, Any] = {"dense": Dense(), "nf4": Nf4(Nf4Config(double_quant=True)), "int8": Int8()}
SIZES = {"up": (24, 10), "down": (10, 24)}


def frozen(weight: torch.Tensor, quantizer: Any = QUANTIZERS["dense"]) -> FrozenWeight:
    found: FrozenWeight = quantizer.quantize(weight.detach(), LayerInfo("layer", "linear", *weight.shape))
    return found


def attached(lora: Lora, weight: FrozenWeight, bias: torch.Tensor | None = None, path: str = "layer") -> DoraWeight:
    info = LayerInfo(path, "linear", weight.out_features, weight.in_features, bias is not None)
    found = lora.attach(Layer(info, weight, bias, torch.Generator().manual_seed(5)))
    assert isinstance(found, DoraWeight)
    return found


class Pair(nn.Module):
    """Two layers of other sizes, one with a bias."""

    def __init__(self, layers: dict[str, nn.Module]) -> None:
        super().__init__()
        self.up, self.down = layers["up"], layers["down"]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.down(torch.tanh(self.up(x)))
        return result


class Biased(nn.Module):
    """What a model's layer does around an adapted weight."""

    def __init__(self, core: DoraWeight) -> None:
        super().__init__()
        self.core = core

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.core(x)
        return y if self.core.bias is None else y + self.core.bias


def both(lora: Lora, quantizer: Any, **fields: Any) -> tuple[Any, Any]:
    """Returns the same two layers adapted here and by peft, with the same start."""
    from peft import LoraConfig as PeftConfig
    from peft import get_peft_model

    torch.manual_seed(0)
    stored, linears = {}, {}
    for name, (rows, columns) in SIZES.items():
        stored[name] = frozen(torch.randn(rows, columns), quantizer)
        linears[name] = nn.Linear(columns, rows, bias=name == "down")
        linears[name].weight = nn.Parameter(stored[name].dequantize())
    ours = {
        name: Biased(attached(lora, weight, None if linears[name].bias is None else linears[name].bias.detach(), name))
        for name, weight in stored.items()
    }
    given = {key: value for key, value in lora.peft_config().items() if key != "peft_type"}
    theirs: Any = get_peft_model(
        Pair(dict(linears)),  # type: ignore[arg-type]
        PeftConfig(**given, target_modules=list(SIZES), **fields),
    )
    for name, layer in ours.items():
        module = getattr(theirs.base_model.model, name)
        with torch.no_grad():
            module.lora_A["default"].weight.copy_(layer.core.lora_A)
    return Pair(dict(ours)), theirs  # type: ignore[arg-type]


def parts(theirs: Any, name: str) -> dict[str, nn.Parameter]:
    module = getattr(theirs.base_model.model, name)
    return {
        "lora_A": module.lora_A["default"].weight,
        "lora_B": module.lora_B["default"].weight,
        "lora_magnitude_vector": module.lora_magnitude_vector["default"].weight,
    }


@pytest.mark.parametrize("quantizer", QUANTIZERS)
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_it_learns_as_peft_does(quantizer: str, dropout: float) -> None:
    """Outputs, gradients and parameters of five steps of AdamW, and the merged weights."""
    config = LoraConfig(rank=4, alpha=9.0, dora=True, dropout=dropout, rank_pattern={"down": 2})
    ours, theirs = both(Lora(config), QUANTIZERS[quantizer])
    optimizers = [
        torch.optim.AdamW([p for p in m.parameters() if p.requires_grad], lr=2e-2)
        for m in (ours.train(), theirs.train())
    ]
    x, wanted = torch.randn(30, 10), torch.randn(30, 10)
    for _ in range(5):
        found = []
        for model, optimizer in zip((ours, theirs), optimizers, strict=True):
            torch.manual_seed(1)
            optimizer.zero_grad()
            found.append(model(x))
            nn.functional.mse_loss(found[-1], wanted).backward()
        torch.testing.assert_close(*found)
        for name in SIZES:
            for key, parameter in parts(theirs, name).items():
                torch.testing.assert_close(getattr(getattr(ours, name).core, key).grad, parameter.grad)
        for optimizer in optimizers:
            optimizer.step()
    for name in SIZES:
        for key, parameter in parts(theirs, name).items():
            torch.testing.assert_close(getattr(getattr(ours, name).core, key), parameter, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x))
    moved = parts(theirs, "up")["lora_magnitude_vector"].detach() - ours.up.core.frozen.dequantize().norm(dim=1)
    assert moved.abs().mean() > 5e-2
    merged = theirs.merge_and_unload()
    for name in SIZES:
        core = getattr(ours, name).core
        torch.testing.assert_close(core.frozen.dequantize() + core.delta(), getattr(merged, name).weight)


def test_in_16_bits_it_learns_what_it_learns_in_32() -> None:
    random = torch.Generator().manual_seed(0)
    ours = attached(Lora(LoraConfig(dora=True)), frozen(torch.randn(192, 256, generator=random) / 16))
    with torch.no_grad():
        ours.lora_B.normal_(generator=random)
        ours.lora_magnitude_vector.mul_(1.5)
    x, wanted = torch.randn(500, 256, generator=random), torch.randn(500, 192, generator=random)
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        ours.zero_grad()
        ours(x.to(dtype)).backward(wanted.to(dtype))
        found.append([p.grad.clone() for p in ours.trainable_parameters().values() if p.grad is not None])
    assert len(found[1]) == 3
    for exact, short in zip(*found, strict=True):
        assert short.dtype == torch.float32
        assert (short - exact).norm() < 0.01 * exact.norm()


def test_the_norms_follow_whatever_changes_and_are_taken_once_in_between(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = attached(Lora(LoraConfig(rank=4, dora=True)), frozen(torch.randn(12, 7)))
    taken: list[int] = []
    original = DoraWeight._norms_of

    def counted(self: DoraWeight, weight: torch.Tensor) -> torch.Tensor:
        taken.append(1)
        return original(self, weight)

    monkeypatch.setattr(DoraWeight, "_norms_of", counted)
    x = torch.randn(3, 7)

    def right() -> None:
        before = len(taken)
        computed, again = ours(x), ours(x)
        assert len(taken) == before + 1 and torch.equal(computed, again)
        torch.testing.assert_close(computed, x @ (ours.frozen.dequantize() + ours.delta()).T)

    right()
    optimizer = torch.optim.AdamW(ours.trainable_parameters().values(), lr=0.1)
    ours(x).square().sum().backward()
    optimizer.step()
    right()
    ours.load_adapter_state({name: t + 0.3 for name, t in ours.adapter_state().items()})
    right()
    ours.frozen = frozen(torch.randn(12, 7))
    right()
    ours.lora_B.data = ours.lora_B.data.clone() * 2
    right()


def test_a_row_of_zeros_stays_one_and_takes_no_gradient_astray() -> None:
    weight = torch.randn(6, 5)
    weight[2] = 0
    ours = attached(Lora(LoraConfig(rank=2, dora=True)), frozen(weight))
    y = ours(torch.randn(4, 5))
    y.square().sum().backward()
    assert not y[:, 2].any() and torch.isfinite(ours.delta()).all()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in ours.trainable_parameters().values())


def test_rows_are_taken_a_block_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the block's size, and without a copy of the whole weight in float32."""
    import graftkit_adapters.dora as module

    weight = frozen(torch.randn(13, 7))
    whole = attached(Lora(LoraConfig(dora=True)), weight).lora_magnitude_vector
    for block in (1, 7, 20, 90, 91):
        monkeypatch.setattr(module, "_BLOCK", block)
        assert torch.equal(attached(Lora(LoraConfig(dora=True)), weight).lora_magnitude_vector, whole)


def test_lora_plus_trains_magnitudes_as_fast_as_b_as_pefts_optimizer_does() -> None:
    from peft.optimizers import create_loraplus_optimizer

    lora = Lora(LoraConfig(rank=4, dora=True, lora_plus_ratio=8.0))
    ours, theirs = both(lora, QUANTIZERS["dense"])
    optimizer = create_loraplus_optimizer(theirs, torch.optim.AdamW, lr=1e-2, loraplus_lr_ratio=8.0)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    scales = {"lora_A": 1.0, **ours.up.core.rate_scales()}
    assert {key: rates[id(p)] / 1e-2 for key, p in parts(theirs, "up").items()} == pytest.approx(scales)
