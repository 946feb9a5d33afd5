"""What quantizers and adapters are told about a model's layers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from graftkit import AdaptedWeight, FrozenWeight, Layer, LayerInfo
from graftkit.errors import PluginCallError, TrainingError
from graftkit.model.adapt import AdaptedModel, adapt, adapters_disabled
from graftkit.model.linear import FrozenLinear
from graftkit.model.load import load_base_model
from graftkit.model.model_plan import check_base_model
from graftkit.model.outer_layers import hidden_matrices
from graftkit.testing import TINY_SHAPES, tiny_model_folder
from graftkit_adapters.config import LoraConfig
from graftkit_adapters.lora import Lora
from graftkit_adapters.lora_weight import LoraWeight
from graftkit_models.huggingface import HuggingFaceSource
from graftkit_quantizers.dense import Dense
from graftkit_quantizers.nf4 import Nf4
from transformers import AutoModelForCausalLM

CPU = torch.device("cpu")


class ListeningQuantizer(Dense):
    def __init__(self) -> None:
        self.told: dict[str, tuple[LayerInfo, tuple[int, ...]]] = {}

    def quantize(self, weight: torch.Tensor, layer: LayerInfo) -> Any:
        self.told[layer.path] = (layer, tuple(weight.shape))
        return super().quantize(weight, layer)


class ListeningAdapter(Lora):
    def __init__(self) -> None:
        super().__init__()
        self.told: dict[str, Layer] = {}

    def attach(self, layer: Layer) -> Any:
        self.told[layer.info.path] = layer
        return super().attach(layer)


@pytest.fixture(params=["llama", "llama-biased", "gpt2"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    if request.param == "gpt2":
        from transformers import GPT2Config, GPT2LMHeadModel

        GPT2LMHeadModel(GPT2Config(n_layer=2, n_embd=32, n_head=2, vocab_size=64)).save_pretrained(tmp_path / "model")
        return tmp_path / "model"
    return tiny_model_folder(tmp_path / "model", **TINY_SHAPES[request.param])


def test_both_are_told_the_layer_as_the_model_has_it(folder: Path) -> None:
    files, quantizer, adapter = HuggingFaceSource().open(str(folder)), ListeningQuantizer(), ListeningAdapter()
    layers = {info.path: info for info in check_base_model(files)}
    network = load_base_model(files, quantizer, device=CPU)
    adapted = adapt(network, adapter, list(layers), seed=0)
    assert len(layers) > 4
    assert quantizer.told == {path: (info, (info.out_features, info.in_features)) for path, info in layers.items()}
    assert {path: layer.info for path, layer in adapter.told.items()} == layers
    for path, info in layers.items():
        module, told, weight = network.get_submodule(path), adapter.told[path], adapted[path]
        assert isinstance(module, FrozenLinear) and isinstance(told.weight, FrozenWeight)
        assert isinstance(weight, AdaptedWeight) and weight.info == info
        assert told.weight is weight.frozen is module.frozen
        assert told.bias is module.bias and (told.bias is not None) == info.bias


def moved(adapted: dict[str, AdaptedWeight]) -> None:
    with torch.no_grad():
        for weight in adapted.values():
            for parameter in weight.trainable_parameters().values():
                parameter.normal_(std=0.1, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
@pytest.mark.parametrize("quantizer", [Dense(), Nf4()])
def test_with_adapters_disabled_the_logits_are_the_base_models_bit_for_bit(folder: Path, quantizer: Any) -> None:
    files = HuggingFaceSource().open(str(folder))
    network: Any = load_base_model(files, quantizer, device=CPU)
    ids = torch.tensor([[5, 9, 20, 31, 7, 7]])
    network.eval()
    base = network(input_ids=ids).logits
    adapted = adapt(network, Lora(LoraConfig(dropout=0.5)), [info.path for info in check_base_model(files)], seed=0)
    moved(adapted)
    trained = network.eval()(input_ids=ids).logits
    assert not torch.equal(trained, base)
    for weight in adapted.values():
        weight.train()  # dropout is the adapter's: without it there is none
    with adapters_disabled(network):
        assert torch.equal(network(input_ids=ids).logits, base)
    with pytest.raises(KeyError), adapters_disabled(network):
        raise KeyError
    assert torch.equal(network.eval()(input_ids=ids).logits, trained)


def test_matrices_of_hidden_layers_are_those_outside_of_embedding_and_output_layer(tmp_path: Path) -> None:
    """By their names among all that is trained; magnitudes are no matrices."""
    files = HuggingFaceSource().open(str(tiny_model_folder(tmp_path / "model")))
    network = load_base_model(files, Dense(), device=CPU)
    layers = ["model.layers.0.self_attn.q_proj", "lm_head"]
    adapted = adapt(network, Lora(LoraConfig(dora=True)), layers, seed=0)
    found, trained = hidden_matrices(network, adapted), adapted[layers[0]].trainable_parameters()
    assert {*found} == {f"{layers[0]}.{name}" for name, parameter in trained.items() if parameter.dim() == 2}
    assert len(found) == 2 and len(trained) == 3
    assert all(found[f"{layers[0]}.{name}"] is trained[name] for name in trained if trained[name].dim() == 2)


def test_what_was_disabled_before_stays_disabled(tmp_path: Path) -> None:
    files = HuggingFaceSource().open(str(tiny_model_folder(tmp_path / "model")))
    network = load_base_model(files, Dense(), device=CPU)
    first, second = adapt(network, Lora(), [info.path for info in check_base_model(files)][:2], seed=0).values()
    first.enabled = False
    with adapters_disabled(network):
        assert not first.enabled and not second.enabled
    assert not first.enabled and second.enabled


class RaisedBias(Lora):
    """Adds a tenth to each layer's bias."""

    def attach(self, layer: Layer) -> Any:
        return RaisedBiasWeight(layer, LoraConfig())


class RaisedBiasWeight(LoraWeight):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = super().forward(x)
        return y if self.bias is None else y + 0.1

    def bias_delta(self) -> torch.Tensor | None:
        return None if self.bias is None else torch.full((self.info.out_features,), 0.1)


@torch.no_grad()
def test_a_change_of_the_bias_is_merged_and_left_out_of_the_base(folder: Path) -> None:
    files = HuggingFaceSource().open(str(folder))
    network: Any = load_base_model(files, Dense(), device=CPU)
    before = {name: tensor.clone() for name, tensor in network.named_parameters() if name.endswith(".bias")}
    adapter, layers = RaisedBias(), {info.path: info for info in check_base_model(files)}
    adapted = adapt(network, adapter, list(layers), seed=0)
    model = AdaptedModel(network.eval(), "", files.config, None, adapter, adapted)  # type: ignore[arg-type]
    merged, base = dict(model.merged_tensors()), dict(model.base_tensors())
    assert {f"{path}.bias" for path, info in layers.items() if info.bias} == {
        name for name in before if not torch.equal(merged[name], base[name])
    }
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    ids = torch.tensor([[5, 9, 20, 31, 7, 7]])
    torch.testing.assert_close(plain(input_ids=ids).logits, _logits_of(plain, base, ids))
    torch.testing.assert_close(network(input_ids=ids).logits, _logits_of(plain, merged, ids), atol=1e-5, rtol=0)


def _logits_of(model: Any, tensors: dict[str, torch.Tensor], ids: torch.Tensor) -> torch.Tensor:
    model.load_state_dict(tensors, strict=False)
    found: torch.Tensor = model(input_ids=ids).logits
    return found


class Wrong(Lora):
    def __init__(self, scales: dict[str, float]) -> None:
        super().__init__()
        self.scales = scales

    def attach(self, layer: Layer) -> Any:
        adapted = super().attach(layer)
        adapted.rate_scales = lambda: self.scales  # type: ignore[method-assign]
        return adapted


@pytest.mark.parametrize("scales", [{"lora_C": 2.0}, {"lora_B": 0.0}, {"lora_B": -1.0}, {"lora_B": float("nan")}])
def test_a_wrong_factor_on_the_learning_rate_is_refused(tmp_path: Path, scales: dict[str, float]) -> None:
    files, adapter = HuggingFaceSource().open(str(tiny_model_folder(tmp_path / "model"))), Wrong(scales)
    network = load_base_model(files, Dense(), device=CPU)
    adapted = adapt(network, adapter, ["model.layers.0.self_attn.q_proj"], seed=0)
    model = AdaptedModel(network, "", files.config, None, adapter, adapted)  # type: ignore[arg-type]
    with pytest.raises(TrainingError, match="it trains lora_A, lora_B") as told:
        model.rate_scales()
    assert told.value.where == "model.layers.0.self_attn.q_proj"


def test_factors_of_one_are_none(tmp_path: Path) -> None:
    files = HuggingFaceSource().open(str(tiny_model_folder(tmp_path / "model")))
    network = load_base_model(files, Dense(), device=CPU)
    for ratio, expected in ((1.0, {}), (8.0, {"model.layers.0.mlp.up_proj.lora_B": 8.0})):
        adapter = Lora(LoraConfig(lora_plus_ratio=ratio))
        adapted = adapt(network, adapter, ["model.layers.0.mlp.up_proj"], seed=0)
        assert AdaptedModel(network, "", files.config, None, adapter, adapted).rate_scales() == expected  # type: ignore[arg-type]


class Sharing(Lora):
    """Has every layer of a shape train what the first one does."""

    def __init__(self) -> None:
        super().__init__()
        self.first: dict[tuple[int, ...], Any] = {}

    def attach(self, layer: Layer) -> Any:
        made: Any = super().attach(layer)
        made.lora_B = self.first.setdefault(tuple(made.lora_B.shape), made.lora_B)
        return made


def test_layers_that_share_a_parameter_are_refused_before_training(folder: Path) -> None:
    files = HuggingFaceSource().open(str(folder))
    layers, network = [info.path for info in check_base_model(files)], load_base_model(files, Dense(), device=CPU)
    with pytest.raises(
        PluginCallError, match=r"attach\(\) of .*Sharing gave the layers .* the same parameter, 'lora_B'"
    ):
        adapt(network, Sharing(), layers, seed=0)
