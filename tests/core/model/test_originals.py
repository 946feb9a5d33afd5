"""What adapters are told of a layer's weight before it was quantized, and how they store another in its place."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from architectures import settings
from core.model.test_stored_weights import DOUBLE, QuantizedFiles
from graftkit import AdaptedWeight, Layer
from graftkit.errors import ExportError, ModelError, TrainingError
from graftkit.model.adapt import AdaptedModel, adapt, adapters_disabled
from graftkit.model.load import load_base_model
from graftkit.model.model_plan import plan_base_model
from graftkit.model.originals import FileOriginals
from graftkit.testing import tiny_model_folder
from graftkit_adapters.lora import Lora
from graftkit_models.huggingface import HuggingFaceSource
from graftkit_quantizers.dense import Dense
from graftkit_quantizers.nf4 import Nf4
from plugins_of_others.pissa import RANK, Pissa, PissaWeight, PlainPissa, RandomResidual, principal
from transformers import AutoModelForCausalLM

CPU = torch.device("cpu")
IDS = torch.tensor([[5, 9, 20, 31, 7, 7, 12]])


class CountingFiles:
    """Files that remember what was read of them by name."""

    def __init__(self, folder: Path) -> None:
        self.files = HuggingFaceSource().open(str(folder))
        self.asked: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.files, name)

    def tensor(self, name: str) -> Any:
        self.asked.append(name)
        return self.files.tensor(name)


class Keeping:
    """Keeps what it is told, and adapts as another does."""

    def __init__(self, adapter: Any, *, read: bool = True) -> None:
        self.adapter, self.read = adapter, read
        self.originals: dict[str, torch.Tensor] = {}

    def attach(self, layer: Layer) -> AdaptedWeight:
        if self.read:
            self.originals[layer.info.path] = layer.original()
        adapted: AdaptedWeight = self.adapter.attach(layer)
        return adapted

    def __getattr__(self, name: str) -> Any:
        return getattr(self.adapter, name)


def adapted_model(
    files: Any, quantizer: Any, adapter: Any, dtype: torch.dtype = torch.float32, seed: int = 0
) -> tuple[Any, dict[str, AdaptedWeight]]:
    planned = plan_base_model(files)
    network: Any = load_base_model(files, quantizer, device=CPU, dtype=dtype)
    targets = [layer.path for layer in planned.layers] + [stack.path for stack in planned.stacks]
    originals = FileOriginals(files, quantizer, CPU, dtype)
    return network, adapt(network, adapter, targets, seed=seed, originals=originals)


def folder_of(name: str, folder: Path) -> Path:
    return tiny_model_folder(folder / "model", **settings(name))


KINDS = ["llama", "gpt2", "phi3", "mixtral", "gpt_oss"]
"""Plain layers, `[in, out]`, fused ones, experts of which the file has one tensor each, stacks stored `[in, out]`."""


@pytest.mark.parametrize("name", KINDS)
def test_the_original_weight_is_that_of_transformers(name: str, tmp_path: Path) -> None:
    folder = folder_of(name, tmp_path)
    adapter = Keeping(Lora())
    _, adapted = adapted_model(HuggingFaceSource().open(str(folder)), Nf4(), adapter)
    reference = dict(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).named_parameters())
    assert adapter.originals.keys() == adapted.keys() and adapted
    for path, weight in adapted.items():
        found, (stack, _, expert) = adapter.originals[path], path.rpartition(".")
        expected = reference[stack][int(expert)] if weight.info.kind == "experts" else reference[f"{path}.weight"]
        turned = weight.info.kind == "conv1d" or (name == "gpt_oss" and weight.info.kind == "experts")
        assert found.dtype == torch.float32 and found.is_contiguous()
        assert torch.equal(found, expected.T if turned else expected)


@pytest.mark.parametrize("name", KINDS)
@torch.no_grad()
def test_pissa_starts_as_the_model_that_the_files_hold(name: str, tmp_path: Path) -> None:
    folder = folder_of(name, tmp_path)
    expected = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()(input_ids=IDS).logits
    network, adapted = adapted_model(HuggingFaceSource().open(str(folder)), Dense(), Pissa())
    assert all(weight.replaced for weight in adapted.values())
    assert (network.eval()(input_ids=IDS).logits - expected).abs().max() <= 1e-4 * expected.abs().max()


@pytest.mark.parametrize("name", KINDS)
@torch.no_grad()
def test_on_nf4_pissa_starts_nearer_to_the_files_than_the_quantized_model(name: str, tmp_path: Path) -> None:
    """The quantizer's error is that of a matrix without its largest singular values."""
    files = HuggingFaceSource().open(str(folder_of(name, tmp_path)))
    adapter = Keeping(Pissa())
    _, adapted = adapted_model(files, Nf4(), adapter)
    plain: Any = load_base_model(files, Nf4(), device=CPU)
    for path, weight in adapted.items():
        original, quantized = adapter.originals[path], plain.get_submodule(path).frozen.dequantize()
        assert (weight.frozen.dequantize() + weight.delta() - original).norm() < (quantized - original).norm()


def test_pissa_starts_as_pefts(tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    folder = folder_of("llama", tmp_path)
    _, adapted = adapted_model(HuggingFaceSource().open(str(folder)), Dense(), Pissa())
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    config = LoraConfig(r=RANK, lora_alpha=RANK, init_lora_weights="pissa", target_modules="all-linear")
    peft = get_peft_model(model, config).get_base_model()
    for path, weight in adapted.items():
        assert isinstance(weight, PissaWeight)
        theirs = peft.get_submodule(path)
        product = theirs.lora_B["default"].weight @ theirs.lora_A["default"].weight
        torch.testing.assert_close(weight.delta(), product.detach(), atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(weight.frozen.dequantize(), theirs.base_layer.weight.data, atol=1e-5, rtol=1e-4)


def test_nothing_is_read_for_an_adapter_that_does_not_ask(tmp_path: Path) -> None:
    files = CountingFiles(folder_of("llama", tmp_path))
    adapted_model(files, Dense(), Keeping(Lora(), read=False))
    assert files.asked == []


def test_each_tensor_is_read_once_where_its_layers_follow_one_another(tmp_path: Path) -> None:
    files = CountingFiles(folder_of("mixtral", tmp_path))
    adapter = Keeping(Lora())
    adapted_model(files, Dense(), adapter)
    assert len(files.asked) == len(set(files.asked)) > len(adapter.originals) - 1


def test_requantizing_the_original_gives_the_frozen_weight(tmp_path: Path) -> None:
    """In the type of the computation, too, which weights are rounded to first."""

    class Requantizing(Lora):
        def attach(self, layer: Layer) -> Any:
            again = layer.requantize(layer.original())
            assert again.meta() == layer.weight.meta()
            own = layer.weight.state()
            assert all(torch.equal(tensor, own[name]) for name, tensor in again.state().items())
            with pytest.raises(ValueError, match="has a weight"):
                layer.requantize(layer.original()[1:])
            return super().attach(layer)

    for dtype in (torch.float32, torch.bfloat16):
        for name in ("gpt2", "mixtral"):
            files = HuggingFaceSource().open(str(folder_of(name, tmp_path / name / str(dtype))))
            adapted_model(files, Nf4(), Requantizing(), dtype)


@pytest.mark.parametrize("dequantizes", [True, False])
def test_the_original_of_a_weight_that_the_file_holds_quantized_is_what_it_stands_for(
    dequantizes: bool, tmp_path: Path
) -> None:
    files: Any = QuantizedFiles(folder_of("llama", tmp_path), dequantizes=dequantizes)
    adapter = Keeping(Lora())
    _, adapted = adapted_model(files, Nf4(DOUBLE), adapter)
    for path, weight in adapted.items():
        assert torch.equal(adapter.originals[path], weight.frozen.dequantize())


def test_without_files_the_error_says_what_to_do(tmp_path: Path) -> None:
    files = HuggingFaceSource().open(str(folder_of("llama", tmp_path)))
    network = load_base_model(files, Dense(), device=CPU)
    with pytest.raises(ModelError, match="made without its files\nGive `originals`"):
        adapt(network, Pissa(), ["model.layers.0.mlp.up_proj"], seed=0)


def model_with(files: Any, adapter: Any, seed: int = 0) -> AdaptedModel:
    network, adapted = adapted_model(files, Dense(), adapter, seed=seed)
    return AdaptedModel(network, files.reference, files.config, None, adapter, adapted)  # type: ignore[arg-type]


def test_a_replaced_weight_is_merged_and_refused_as_a_base(tmp_path: Path) -> None:
    files = HuggingFaceSource().open(str(folder_of("llama", tmp_path)))
    model = model_with(files, Pissa())
    for name, tensor in model.merged_tensors():
        torch.testing.assert_close(tensor, files.tensor(name), atol=1e-5, rtol=1e-4)
    with pytest.raises(ExportError, match="other frozen weights in the place of the base model's, on 14 layers"):
        model.base_tensors()
    with adapters_disabled(model.network), pytest.raises(TrainingError, match="would not compute what the base model"):
        model.network(input_ids=IDS)


def test_a_frozen_weight_that_is_replaced_in_secret_is_refused(tmp_path: Path) -> None:
    class Secret(Pissa):
        def attach(self, layer: Layer) -> AdaptedWeight:
            adapted = super().attach(layer)
            adapted.replaced = False
            return adapted

    class OnPeftsBase(Pissa):
        def peft_config(self) -> Mapping[str, Any] | None:
            return {"peft_type": "LORA"}

    files = HuggingFaceSource().open(str(folder_of("llama", tmp_path)))
    with pytest.raises(TrainingError, match=r"another frozen weight than .*\nIt must say so with replace_frozen"):
        model_with(files, Secret())
    with pytest.raises(TrainingError, match=r"which PEFT would put it on\npeft_config.. must return None"):
        model_with(files, OnPeftsBase())


def test_a_state_is_refused_on_another_frozen_weight_than_it_was_trained_on(tmp_path: Path) -> None:
    files = HuggingFaceSource().open(str(folder_of("llama", tmp_path)))
    states = [model_with(files, RandomResidual(), seed).adapter_state() for seed in (0, 0, 1)]
    model = model_with(files, RandomResidual(), 0)
    model.load_adapter_state(states[1])
    with pytest.raises(TrainingError, match="made is not the one that it was trained on") as caught:
        model.load_adapter_state(states[2])
    assert caught.value.where == next(iter(model.adapted))
    for name, tensor in model.adapter_state().items():
        assert torch.equal(tensor, states[0][name])


def test_a_plain_one_keeps_the_base(tmp_path: Path) -> None:
    files = HuggingFaceSource().open(str(folder_of("llama", tmp_path)))
    model = model_with(files, PlainPissa())
    weight = files.tensor("model.layers.0.mlp.up_proj.weight")
    assert torch.equal(model.adapted["model.layers.0.mlp.up_proj"].lora_A, principal(weight)[0])
    assert all(torch.equal(tensor, files.tensor(name)) for name, tensor in model.base_tensors())
