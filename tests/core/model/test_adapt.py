"""What quantizers and adapters are told about a model's layers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from graftkit import AdaptedWeight, FrozenWeight, Layer, LayerInfo
from graftkit.model.adapt import adapt
from graftkit.model.linear import FrozenLinear
from graftkit.model.load import check_base_model, load_base_model
from graftkit.testing import TINY_SHAPES, tiny_model_folder
from graftkit_adapters.lora import Lora
from graftkit_models.huggingface import HuggingFaceSource
from graftkit_quantizers.dense import Dense

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
