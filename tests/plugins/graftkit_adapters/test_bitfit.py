"""Training biases alone, against a transformers model of which nothing else has a gradient."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import graftkit
import pytest
import torch
from graftkit import Layer, LayerInfo
from graftkit.errors import TargetError
from graftkit.model.adapt import AdaptedModel, adapt
from graftkit.model.load import load_base_model
from graftkit.model.model_plan import check_base_model
from graftkit.testing import TINY_SHAPES, tiny_model_folder
from graftkit_adapters.bitfit import BitFit, BitFitWeight
from graftkit_models.huggingface import HuggingFaceSource
from graftkit_quantizers.dense import Dense
from transformers import AutoModelForCausalLM

IDS = torch.tensor([[257, 40, 41, 42, 43, 99, 101, 7, 7, 7, 255, 12]])


@pytest.fixture
def biased(tmp_path: Path) -> Path:
    """A model whose attention has biases that are not zero."""
    folder = tiny_model_folder(tmp_path / "model", **TINY_SHAPES["qwen2"])
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    random = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        if name.endswith(".bias"):
            parameter.data = torch.randn(parameter.shape, generator=random)
    model.save_pretrained(folder)
    return folder


def loss_of(model: Any) -> torch.Tensor:
    loss: torch.Tensor = model(input_ids=IDS, labels=IDS).loss
    return loss


def test_biases_learn_as_those_of_the_model_itself(biased: Path) -> None:
    """Loss, gradients and what three steps make of the biases; every other tensor stays bit for bit."""
    theirs: Any = AutoModelForCausalLM.from_pretrained(biased, dtype=torch.float32).eval()
    before = {name: tensor.clone() for name, tensor in theirs.state_dict().items()}
    biases = {name: p for name, p in theirs.named_parameters() if name.endswith(".bias")}
    theirs.requires_grad_(False)
    for parameter in biases.values():
        parameter.requires_grad_()

    files, adapter = HuggingFaceSource().open(str(biased)), BitFit()
    network: Any = load_base_model(files, Dense(), device=torch.device("cpu"))
    targets = [layer.path for layer in check_base_model(files) if layer.bias]
    ours = AdaptedModel(network, "", files.config, None, adapter, adapt(network, adapter, targets, seed=0))  # type: ignore[arg-type]
    own = ours.trainable_parameters()
    assert {name.removesuffix("_change") for name in own} == biases.keys()

    optimizers = [torch.optim.SGD(found, lr=0.05) for found in (biases.values(), own.values())]
    for _ in range(3):
        losses = [loss_of(model) for model in (theirs, network)]
        torch.testing.assert_close(*losses)
        for loss in losses:
            loss.backward()
        for name, parameter in biases.items():
            torch.testing.assert_close(own[f"{name}_change"].grad, parameter.grad, rtol=1e-4, atol=1e-6)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    merged = dict(ours.merged_tensors())
    for name, tensor in theirs.state_dict().items():
        if name in biases:
            assert (tensor - before[name]).abs().max() > 1e-4
            torch.testing.assert_close(merged[name], tensor, rtol=1e-5, atol=1e-6)
        elif name in merged:
            assert torch.equal(merged[name], before[name])


def test_a_layer_without_a_bias_is_refused() -> None:
    info = LayerInfo("model.layers.0.mlp.up_proj", "linear", 4, 3)
    frozen = Dense().quantize(torch.zeros(4, 3), info)
    with pytest.raises(ValueError, match="up_proj' can't be adapted: it has no bias"):
        BitFit().attach(Layer(info, frozen, None, torch.Generator()))


def test_steps_smaller_than_a_bias_is_rounded_to_are_kept() -> None:
    """In bfloat16 1 + 0.001 is 1."""
    info = LayerInfo("layer", "linear", 2, 3, bias=True)
    frozen = Dense().quantize(torch.zeros(2, 3, dtype=torch.bfloat16), info)
    adapted = BitFit().attach(Layer(info, frozen, torch.ones(2, dtype=torch.bfloat16), torch.Generator()))
    with torch.no_grad():
        for _ in range(10):
            adapted.bias_change += 0.001
    assert isinstance(adapted, BitFitWeight)
    torch.testing.assert_close(adapted.bias_delta(), torch.full((2,), 0.01))


def recipe(model: Path, tmp_path: Path, *targets: str) -> dict[str, Any]:
    (tmp_path / "rows.jsonl").write_text('{"text": "to be or not to be"}\n' * 8)
    return {
        "model": str(model),
        "data": {"train": str(tmp_path / "rows.jsonl")},
        "adapter": {"use": "bitfit", **({"targets": list(targets)} if targets else {})},
    }


def test_all_linear_are_those_with_a_bias(biased: Path, tmp_path: Path) -> None:
    plan = graftkit.plan(recipe(biased, tmp_path))
    assert [target.rpartition(".")[2] for target in plan.targets] == ["k_proj", "q_proj", "v_proj"] * 2
    assert plan.forecast["adapter_parameters"] == 2 * (64 + 32 + 32)


def test_targets_without_biases_are_refused_by_name(biased: Path, tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="'bitfit' can go on no layer that the target 'o_proj' names") as told:
        graftkit.plan(recipe(biased, tmp_path, "q_proj", "o_proj"))
    assert "it has no bias" in str(told.value) and "layers that end in: k_proj, q_proj, v_proj" in str(told.value)
    without = tiny_model_folder(tmp_path / "without")
    with pytest.raises(TargetError, match="can go on no layer that the target 'all-linear' names") as told:
        graftkit.plan(recipe(without, tmp_path))
    assert "Take another adapter: lora" in str(told.value)
