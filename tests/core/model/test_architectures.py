"""Every architecture of the list: loaded, adapted, trained a step, merged and loaded by transformers again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from graftkit.exporting.model_folder import write_model
from graftkit.interfaces.architecture import model_class
from graftkit.model.adapt import AdaptedModel, adapt
from graftkit.model.dense_model import load_dense_model
from graftkit.model.layers import linear_layers
from graftkit.model.linear import FrozenLinear
from graftkit.model.load import load_base_model
from graftkit.model.model_plan import check_base_model
from graftkit.model.targets import match_targets
from graftkit.testing import tiny_model_folder
from graftkit.testing.architectures import ARCHITECTURES
from graftkit_adapters.config import LoraConfig
from graftkit_adapters.lora import Lora
from graftkit_models.huggingface import HuggingFaceSource
from graftkit_quantizers.dense import Dense
from safetensors import safe_open
from transformers import AutoConfig

CPU = torch.device("cpu")
IDS = torch.tensor([[5, 9, 200, 31, 7, 7, 90]])
ROUTERS = ("gate", "router", "shared_expert_gate")


class NoTokenizer:
    """Saves nothing."""

    def save(self, folder: Path) -> None:
        """The model alone is looked at."""


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    model.set_attn_implementation("eager")
    found: torch.Tensor = model.eval()(input_ids=IDS).logits
    return found


def theirs(folder: Path) -> Any:
    """Loads with transformers, which has nothing to remark."""
    kind: Any = model_class(AutoConfig.from_pretrained(folder))
    model, info = kind.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    assert not any(info.values()), info
    return model


def train_a_step(model: Any, adapted: AdaptedModel) -> None:
    """Runs forward and backward as training does, and moves what is trained."""
    model.train()(input_ids=IDS, use_cache=False).logits.square().sum().backward()
    generator = torch.Generator().manual_seed(0)
    for name, parameter in adapted.trainable_parameters().items():
        assert parameter.grad is not None, name
        with torch.no_grad():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))


def stored_shapes(folder: Path) -> dict[str, list[int]]:
    """Returns the shape of every tensor of a model's folder."""
    with safe_open(folder / "model.safetensors", "pt") as file:
        return {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_an_architecture_is_loaded_adapted_and_merged(name: str, tmp_path: Path) -> None:
    folder = tiny_model_folder(tmp_path / "model", **ARCHITECTURES[name])
    files = HuggingFaceSource().open(str(folder))
    layers = check_base_model(files)
    model: Any = load_base_model(files, Dense(), device=CPU)
    expected = logits(theirs(folder))
    torch.testing.assert_close(logits(model), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(logits(load_dense_model(files, Dense())), expected, atol=1e-5, rtol=1e-5)

    targets = match_targets(["all-linear"], [layer.path for layer in layers])
    weights = adapt(model, Lora(LoraConfig(rank=4, dropout=0.0)), targets, seed=0)
    trained = AdaptedModel(model, str(folder), files.config, NoTokenizer(), Lora(), weights)  # type: ignore[arg-type]
    train_a_step(model, trained)
    expected = logits(model)
    (tmp_path / "merged").mkdir()
    named = trained.published(trained.merged_tensors())
    write_model(tmp_path / "merged", named, files.config, NoTokenizer())  # type: ignore[arg-type]
    assert stored_shapes(tmp_path / "merged") == stored_shapes(folder)  # the names that other programs know
    again = load_base_model(HuggingFaceSource().open(str(tmp_path / "merged")), Dense(), device=CPU)
    for merged in (theirs(tmp_path / "merged"), again):
        torch.testing.assert_close(logits(merged), expected, atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("name", ["mixtral", "qwen2_moe", "deepseek_v3", "granitemoe", "phimoe", "jamba"])
def test_what_chooses_between_experts_is_neither_adapted_nor_frozen_in_fewer_bits(name: str, tmp_path: Path) -> None:
    folder = tiny_model_folder(tmp_path / "model", **ARCHITECTURES[name])
    model: Any = load_base_model(HuggingFaceSource().open(str(folder)), Dense(), device=CPU)
    frozen = [path for path, module in model.named_modules() if isinstance(module, FrozenLinear)]
    assert frozen and not any(path.endswith(ROUTERS) or "router" in path for path in frozen)


def test_layers_are_described_as_the_model_computes_them(tmp_path: Path) -> None:
    folder = tiny_model_folder(tmp_path / "model", **ARCHITECTURES["gpt2"])
    found = {layer.path: layer for layer in check_base_model(HuggingFaceSource().open(str(folder)))}
    assert len(found) == 2 * 4
    layer = found["transformer.h.1.attn.c_attn"]
    assert (layer.kind, layer.out_features, layer.in_features, layer.bias) == ("conv1d", 192, 64, True)


def test_a_layer_that_does_more_than_a_product_is_none() -> None:
    class Doubled(torch.nn.Linear):
        def forward(self, input: torch.Tensor) -> torch.Tensor:
            return 2 * super().forward(input)

    class Same(torch.nn.Linear):
        def forward(self, input: torch.Tensor) -> torch.Tensor:
            return input @ self.weight.T + self.bias

    model = torch.nn.ModuleDict(
        {"h": torch.nn.ModuleList([torch.nn.ModuleDict({"a": Doubled(2, 2), "b": Same(2, 2)})])}
    )
    assert [layer.path for layer in linear_layers(model)] == ["h.0.b"]


def test_a_matrix_that_two_layers_share_is_none() -> None:
    first, second, third = (torch.nn.Linear(2, 2) for _ in range(3))
    second.weight = first.weight
    model = torch.nn.ModuleDict({"h": torch.nn.ModuleList([first, second, third])})
    wrapped = torch.nn.ModuleDict({"layers": torch.nn.ModuleList([model])})
    assert [layer.path for layer in linear_layers(wrapped)] == ["layers.0.h.2"]
