"""LoRA against PEFT's and published figures; tests/contracts holds what every adapter promises."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from graftkit import FrozenWeight, Layer, LayerInfo
from graftkit.recipe.schema.training import TrainingSection
from graftkit.training.optimizers import Optimizers, RowTraining
from graftkit_adapters.config import LoraConfig, QloraConfig
from graftkit_adapters.lora import Lora
from graftkit_adapters.lora_weight import LoraWeight
from graftkit_quantizers.dense import Dense
from torch import nn


def frozen(weight: torch.Tensor) -> FrozenWeight:
    return Dense().quantize(weight, LayerInfo("layer", "linear", *weight.shape))


def attached(
    lora: Lora, weight: FrozenWeight, generator: torch.Generator | None = None, path: str = "layer"
) -> LoraWeight:
    info = LayerInfo(path, "linear", weight.out_features, weight.in_features)
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


class Block(nn.Module):
    """Layers whose paths PEFT sees as those of a model."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.ModuleDict({name: nn.Linear(16, 16, bias=False) for name in ("q_proj", "o_proj", "up_proj")})
            for _ in range(2)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            for linear in layer.values():  # type: ignore[operator]
                x = torch.tanh(linear(x))
        return x


PATTERNS = [
    {},
    {"rank_pattern": {"q_proj": 2, r"layers\.1\.o_proj": 6}, "alpha_pattern": {r"layers\.\d\.o_proj": 3.0}},
    {"rank_pattern": {"0.q_proj": 2, "q_proj|up_proj": 5}, "alpha_pattern": {"1.*": 9.0, "up_proj": 2.0}},
    {"rank_pattern": {"layers.0.q_proj": 3, "roj": 7, "": 8}, "alpha_pattern": {"q_proj": 1.0}},
]


@pytest.mark.filterwarnings("ignore:The following rank_pattern keys did not match")
@pytest.mark.parametrize("rslora", [False, True])
@pytest.mark.parametrize("patterns", PATTERNS)
def test_ranks_and_scales_of_single_layers_are_those_of_peft(patterns: dict[str, Any], rslora: bool) -> None:
    """What patterns give is computed, differentiated and merged as peft does."""
    from peft import LoraConfig as PeftConfig
    from peft import get_peft_model

    torch.manual_seed(0)
    lora = Lora(LoraConfig(rank=4, alpha=20.0, rslora=rslora, **patterns))
    own: Any = Block()
    weights = {name: module.weight.detach() for name, module in own.named_modules() if isinstance(module, nn.Linear)}
    given = {**lora.peft_config(), "target_modules": list(weights)}
    assert given["use_rslora"] == rslora and given["rank_pattern"] == patterns.get("rank_pattern", {})
    base = Block()
    base.load_state_dict(own.state_dict())
    theirs: Any = get_peft_model(base, PeftConfig(**{k: v for k, v in given.items() if k != "peft_type"}))
    adapted = {}
    for path, weight in weights.items():
        adapted[path] = trained(attached(lora, frozen(weight), path=path))
        own.set_submodule(path, adapted[path])
        module = theirs.base_model.model.get_submodule(path)
        with torch.no_grad():
            adapted[path].lora_B.mul_(0.02)
            module.lora_A["default"].weight.copy_(adapted[path].lora_A)
            module.lora_B["default"].weight.copy_(adapted[path].lora_B)
    x = torch.randn(4, 16)
    torch.testing.assert_close(own(x), theirs(x))
    own(x).square().sum().backward()
    theirs(x).square().sum().backward()
    for path, weight in adapted.items():
        module = theirs.base_model.model.get_submodule(path)
        torch.testing.assert_close(weight.lora_A.grad, module.lora_A["default"].weight.grad)
        torch.testing.assert_close(weight.lora_B.grad, module.lora_B["default"].weight.grad)
    merged = theirs.merge_and_unload()
    for path, weight in adapted.items():
        torch.testing.assert_close(weights[path] + weight.delta(), merged.get_submodule(path).weight)


def test_a_pattern_that_holds_for_no_layer_is_told() -> None:
    config = LoraConfig(rank_pattern={"q_proj": 2, "layers.0.q_proj": 3, "k_proj": 4}, alpha_pattern={"o_proj": 1.0})
    found = list(config.idle_patterns(["layers.0.q_proj", "layers.1.o_proj"]))
    assert found == [("rank_pattern", "layers.0.q_proj"), ("rank_pattern", "k_proj")]


@pytest.mark.parametrize("pattern", ["down_proj", "experts.down_proj", r"layers\.0\.mlp\..*"])
def test_a_pattern_that_names_a_stack_holds_for_each_of_its_experts(pattern: str) -> None:
    """What `idle_patterns` is asked of, the stack's path, is what an expert's rank and scale are told by."""
    config = LoraConfig(rank=2, alpha=8.0, rank_pattern={pattern: 7}, alpha_pattern={pattern: 21.0})
    stack = "layers.0.mlp.experts.down_proj"
    assert not list(config.idle_patterns([stack]))
    expert = LayerInfo(f"{stack}.3", "experts", 8, 6)
    assert (config.rank_of(expert), config.scale_of(expert)) == (7, 3.0)
    assert config.trainable_parameters(expert) == 7 * (8 + 6)


@pytest.mark.parametrize("pattern", ["(q_proj", "(?i)Q_PROJ"])
def test_a_pattern_that_peft_could_not_read_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match="is no regular expression"):
        LoraConfig(rank_pattern={pattern: 4})


def test_lora_plus_trains_as_pefts_optimizer_does() -> None:
    """Steps of AdamW, weight decay among them, with rates that follow the schedule."""
    from peft import LoraConfig as PeftConfig
    from peft import get_peft_model
    from peft.optimizers import create_loraplus_optimizer

    torch.manual_seed(0)
    linear = nn.Linear(12, 8, bias=False)
    ours = attached(Lora(LoraConfig(rank=4, alpha=8.0, lora_plus_ratio=16.0)), frozen(linear.weight))
    theirs: Any = get_peft_model(nn.Sequential(linear), PeftConfig(r=4, lora_alpha=8, target_modules=["0"]))
    module = theirs.base_model.model[0]
    with torch.no_grad():
        module.lora_A["default"].weight.copy_(ours.lora_A)
    section = TrainingSection(steps=6, learning_rate=1e-2, weight_decay=0.1, max_grad_norm=1e9)
    own = Optimizers(ours.trainable_parameters(), section, RowTraining(), ours.rate_scales())
    peft = create_loraplus_optimizer(
        theirs, torch.optim.AdamW, lr=1e-2, loraplus_lr_ratio=16.0, loraplus_weight_decay=0.1
    )
    x, wanted = torch.randn(20, 12), torch.randn(20, 8)
    for step in range(1, 7):
        rate = own.begin(step, 6)
        for group, ratio in zip(peft.param_groups, (1, 1, 16, 16), strict=True):
            group["lr"] = rate * ratio
        for model, optimizer in ((ours, own), (theirs, peft)):
            nn.functional.mse_loss(model(x), wanted).backward()
            optimizer.step()
        own.forget_gradients()
        peft.zero_grad()
        torch.testing.assert_close(ours.lora_A, module.lora_A["default"].weight)
        torch.testing.assert_close(ours.lora_B, module.lora_B["default"].weight)
