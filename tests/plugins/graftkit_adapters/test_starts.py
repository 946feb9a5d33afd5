"""What LoRA starts as, against PEFT's own starts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from graftkit import Layer, LayerInfo
from graftkit.testing.contracts.adapter import SampleOriginals, original_of
from graftkit_adapters.config import LoraConfig
from graftkit_adapters.lora import Lora
from graftkit_adapters.lora_weight import LoraWeight
from graftkit_quantizers.dense import Dense
from graftkit_quantizers.int8 import Int8
from graftkit_quantizers.nf4 import Nf4
from torch import nn


def attached(config: LoraConfig, rows: int, columns: int, quantizer: Any = None, seed: int = 1) -> LoraWeight:
    """Adapts `original_of(rows, columns, seed)`, as a quantizer stores it."""
    quantizer = quantizer or Dense()
    info = LayerInfo("layer", "linear", rows, columns)
    frozen = quantizer.quantize(original_of(rows, columns, seed), info)
    generator = torch.Generator().manual_seed(5)
    return Lora(config).attach(Layer(info, frozen, None, generator, SampleOriginals(quantizer, seed)))


def of_peft(config: LoraConfig, weight: torch.Tensor) -> Any:
    from peft import LoraConfig as PeftConfig
    from peft import get_peft_model

    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    linear.weight = nn.Parameter(weight.clone())
    given: dict[str, Any] = {"init_lora_weights": config.init, "use_rslora": config.rslora, "use_dora": config.dora}
    return get_peft_model(
        nn.Sequential(linear), PeftConfig(r=config.rank, lora_alpha=config.alpha, target_modules=["0"], **given)
    )


@pytest.mark.parametrize("fields", [{}, {"rslora": True}, {"dora": True}])
@pytest.mark.parametrize("start", ["pissa", "olora"])
@pytest.mark.parametrize("shape", [(24, 10), (10, 24)])
def test_a_start_from_the_weight_learns_as_pefts_does(start: Any, shape: tuple[int, int], fields: Any) -> None:
    """Steps of plain gradient descent, which the signs of singular vectors don't matter to."""
    config = LoraConfig(rank=4, alpha=6.0, init=start, **fields)
    ours, weight = attached(config, *shape), original_of(*shape)
    theirs, random = of_peft(config, weight), torch.Generator().manual_seed(0)
    x, wanted = (torch.randn(30, size, generator=random) for size in (shape[1], shape[0]))
    torch.testing.assert_close(ours(x), x @ weight.T)
    optimizers = [torch.optim.SGD([p for p in m.parameters() if p.requires_grad], lr=0.05) for m in (ours, theirs)]
    for _ in range(4):
        for model, optimizer in zip((ours, theirs), optimizers, strict=True):
            optimizer.zero_grad()
            nn.functional.mse_loss(model(x), wanted).backward()
            optimizer.step()
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-4, atol=1e-4)
    assert (ours(x) - x @ weight.T).abs().max() > 1e-2
    torch.testing.assert_close(weight + ours.delta(), theirs.merge_and_unload()[0].weight, rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("ignore:PiSSA changes the base weights")
def test_peft_converts_its_own_to_what_ours_is_to_peft(tmp_path: Path) -> None:
    """`path_initial_model_for_weight_conversion`: the same update on the original weights, of the same rank."""
    from safetensors.torch import load_file

    config = LoraConfig(rank=3, alpha=6.0, init="pissa")
    ours, theirs = attached(config, 12, 20), of_peft(config, original_of(12, 20))
    theirs.peft_config["default"].init_lora_weights = True
    theirs.save_pretrained(tmp_path / "start")
    theirs.peft_config["default"].init_lora_weights = "pissa"
    with torch.no_grad():
        ours.lora_A.mul_(1.5)
        theirs.base_model.model[0].lora_A["default"].weight.mul_(1.5)
    theirs.save_pretrained(tmp_path / "made", path_initial_model_for_weight_conversion=str(tmp_path / "start"))
    converted = load_file(tmp_path / "made" / "adapter_model.safetensors")
    made = json.loads((tmp_path / "made" / "adapter_config.json").read_bytes())
    tensors, fields = Lora(config).peft_tensors(ours), Lora(config).peft_config()
    assert fields is not None
    assert [made[key] for key in ("r", "lora_alpha")] == [fields[key] for key in ("r", "lora_alpha")] == [6, 12]
    products = [
        found["lora_B.weight"] @ found["lora_A.weight"]
        for found in (tensors, {name.removeprefix("base_model.model.0."): t for name, t in converted.items()})
    ]
    torch.testing.assert_close(*products, rtol=1e-4, atol=1e-5)


def test_orthogonal_and_gaussian_are_drawn_as_peft_draws_them() -> None:
    for config in (LoraConfig(rank=8, init="gaussian"), LoraConfig(rank=8, init="orthogonal")):
        ours, module = attached(config, 300, 500), of_peft(config, original_of(300, 500)).base_model.model[0]
        pairs = ((ours.lora_A, module.lora_A), (ours.lora_B, module.lora_B))
        for own, other in pairs:
            assert own.std().item() == pytest.approx(other["default"].weight.std().item(), rel=0.1, abs=1e-9)
        assert ours.delta().abs().max() < 1e-6
    with pytest.raises(ValueError, match="orthogonal takes an even rank, not 5"):
        LoraConfig(rank=8, init="orthogonal", rank_pattern={"q_proj": 5})


@pytest.mark.parametrize("quantizer", [Nf4(), Int8()])
def test_a_start_that_is_taken_off_leaves_the_quantized_model_as_it_is(quantizer: Any) -> None:
    ours = attached(LoraConfig(rank=4, init="pissa"), 40, 70, quantizer)
    x = torch.randn(5, 70)
    assert (ours(x) - ours.frozen(x)).abs().max() <= 2e-6 * ours.frozen(x).abs().max()


def test_qpissa_starts_nearer_to_the_original_weight_than_quantizing_it() -> None:
    """It is off by 39% of what NF4 is, on a matrix whose singular values fall."""
    left, _, right = torch.linalg.svd(original_of(96, 128), full_matrices=False)
    weight = left @ torch.diag(torch.arange(1, 97.0) ** -0.7) @ right
    info = LayerInfo("layer", "linear", *weight.shape)

    class Originals(SampleOriginals):
        def original(self, layer: LayerInfo) -> torch.Tensor:
            return weight

    frozen = Nf4().quantize(weight, info)
    layer = Layer(info, frozen, None, torch.Generator(), Originals(Nf4()))
    ours = Lora(LoraConfig(rank=16, alpha=32.0, init="qpissa")).attach(layer)
    assert ours.replaced
    off = (ours.frozen.dequantize() + ours.delta() - weight).norm() / (frozen.dequantize() - weight).norm()
    assert 0.3 < off < 0.5


def test_a_rank_above_the_weights_own_is_filled_up() -> None:
    ours = attached(LoraConfig(rank=16, init="pissa"), 6, 9)
    assert ours.lora_A.shape == (16, 9) and ours.lora_B.shape == (6, 16)
    assert ours.delta().abs().max() < 1e-6
