"""Experts that an architecture keeps as one tensor: frozen one by one, adapted on request, as transformers computes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from architectures import settings
from core.training.test_architectures_loss import CPU, examples
from graftkit.exporting.model_folder import write_model
from graftkit.model.adapt import AdaptedModel, adapt
from graftkit.model.dense_model import load_dense_model
from graftkit.model.experts import ExpertStack
from graftkit.model.load import load_base_model
from graftkit.model.model_plan import plan_base_model
from graftkit.model.packing import choose_packing, use_packing
from graftkit.model.targets import match_targets
from graftkit.testing import tiny_model_folder
from graftkit.training.batch import pack
from graftkit.training.loss import TokenLoss
from graftkit_adapters.config import LoraConfig
from graftkit_adapters.lora import Lora
from graftkit_models.huggingface import HuggingFaceSource
from graftkit_quantizers.config import Nf4Config
from graftkit_quantizers.dense import Dense
from graftkit_quantizers.nf4 import Nf4
from reference import move_from_start
from torch.func import functional_call
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM

MIXTURES = ["mixtral", "qwen2_moe", "qwen3_moe", "gpt_oss", "deepseek_v3", "granitemoe", "jamba", "qwen3_next"]
QUANTIZERS = {"none": Dense(), "nf4": Nf4(Nf4Config())}
IDS = torch.tensor([[5, 9, 200, 31, 7, 7, 90]])


class NoTokenizer:
    """Saves nothing."""

    def save(self, folder: Path) -> None:
        """The model alone is looked at."""


def opened(name: str, folder: Path) -> Any:
    return HuggingFaceSource().open(str(tiny_model_folder(folder, **settings(name))))


def adapted_model(files: Any, quantizer: Any) -> AdaptedModel:
    """Loads a model with LoRA, not at its start, on every layer and every expert."""
    planned = plan_base_model(files)
    stacks = [stack.path for stack in planned.stacks]
    targets = match_targets(["all-linear", "experts"], [layer.path for layer in planned.layers], experts=stacks)
    network: Any = load_base_model(files, quantizer, device=CPU)
    method = Lora(LoraConfig(rank=4, dropout=0.0))
    adapted = adapt(network, method, targets, seed=0)
    move_from_start(adapted)
    return AdaptedModel(network, files.reference, files.config, NoTokenizer(), method, adapted)  # type: ignore[arg-type]


def reference(dense: Any, model: AdaptedModel, rows: Any) -> tuple[float, dict[str, torch.Tensor]]:
    """The loss of transformers' eager model whose matrices are `W + scale B A`, and the gradients of `A` and `B`."""
    dense.set_attn_implementation("eager")
    dense.set_experts_implementation("eager")
    leaves = {name: p.detach().clone().requires_grad_() for name, p in model.trainable_parameters().items()}
    scale = 32 / 4
    own = dict(dense.named_parameters())
    deltas = {path: scale * leaves[f"{path}.lora_B"] @ leaves[f"{path}.lora_A"] for path in model.adapted}
    weights = {}
    for path in model.adapted:
        owner = path.rpartition(".")[0]
        if f"{path}.weight" in own:
            weights[f"{path}.weight"] = own[f"{path}.weight"] + deltas[path]
        else:
            experts = [deltas[f"{owner}.{expert}"] for expert in range(own[owner].shape[0])]
            transposed = model.network.get_submodule(owner).transposed
            weights[owner] = own[owner] + torch.stack([e.T if transposed else e for e in experts])
    total = torch.zeros(())
    for example in rows:
        ids = torch.from_numpy(example.ids)
        labels = ids.where(torch.from_numpy(example.loss_mask), -100)[1:]
        logits = functional_call(dense, weights, kwargs={"input_ids": ids[None], "use_cache": False}).logits
        total = total + cross_entropy(logits[0, :-1], labels, reduction="sum")
    total.backward()  # type: ignore[no-untyped-call]
    return total.item(), {name: leaf.grad for name, leaf in leaves.items() if leaf.grad is not None}


@pytest.mark.parametrize("quantizer", QUANTIZERS)
@pytest.mark.parametrize("name", MIXTURES)
def test_loss_and_gradient_are_those_of_transformers_eager_experts(name: str, quantizer: str, tmp_path: Path) -> None:
    files = opened(name, tmp_path / "model")
    model, rows = adapted_model(files, QUANTIZERS[quantizer]), examples()
    if quantizer == "none":
        dense = AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.float32)
    else:
        dense = load_dense_model(files, QUANTIZERS[quantizer])
    assert len(model.expert_targets) == len(plan_base_model(files).stacks) > 0
    expected, gradients = reference(dense.eval(), model, rows)

    packing = choose_packing(files.config)
    use_packing(model.network, packing)
    loss = TokenLoss(model.network, packed=packing.packed)
    passes = [rows] if packing.packed else [[example] for example in rows]
    found = sum(loss.backward(pack(group, CPU), 1.0).item() for group in passes)
    assert found == pytest.approx(expected, rel=1e-4)
    largest = max(float(gradient.abs().max()) for gradient in gradients.values())
    reached = 0
    for parameter_name, parameter in model.trainable_parameters().items():
        gradient = gradients[parameter_name]
        if parameter.grad is None:  # an expert that no token was sent to
            assert not gradient.any()
        else:
            torch.testing.assert_close(parameter.grad, gradient, rtol=1e-3, atol=1e-4 * largest)
            reached += parameter_name.split(".")[-2].isdigit()
    assert reached > 0


@pytest.mark.parametrize("name", ["mixtral", "gpt_oss", "qwen2_moe"])
@torch.no_grad()
def test_merged_experts_are_the_architectures_own_tensors(name: str, tmp_path: Path) -> None:
    model = adapted_model(opened(name, tmp_path / "model"), QUANTIZERS["nf4"])
    (tmp_path / "merged").mkdir()
    write_model(
        tmp_path / "merged",
        model.merged_tensors(),
        model.config,
        NoTokenizer(),  # type: ignore[arg-type]
        published=model.published,
    )
    merged, info = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", output_loading_info=True)
    assert not any(info.values()), info
    expected = model.network(input_ids=IDS, use_cache=False).logits
    torch.testing.assert_close(merged(input_ids=IDS, use_cache=False).logits, expected, atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("name", ["mixtral", "qwen2_moe", "qwen3_moe", "gpt_oss"])
def test_experts_take_a_quarter_of_bfloat16_under_nf4(name: str, tmp_path: Path) -> None:
    wide = {**settings(name), "moe_intermediate_size": 64}  # rows of whole blocks
    files = HuggingFaceSource().open(str(tiny_model_folder(tmp_path / "model", **wide)))
    network = load_base_model(files, QUANTIZERS["nf4"], device=CPU, dtype=torch.bfloat16)
    stacks = plan_base_model(files).stacks
    numbers = sum(stack.experts * stack.out_features * stack.in_features for stack in stacks)
    stored = sum(p.nbytes for m in network.modules() if isinstance(m, ExpertStack) for p in m.parameters())
    assert 0.25 <= stored / (2 * numbers) < 0.32  # four bits, and a scale a block
    assert not [p for n, p in network.named_parameters() if p.ndim == 3]


def test_experts_that_the_code_does_not_take_one_by_one_stay_dense(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from graftkit.model import experts

    files = opened("mixtral", tmp_path / "model")
    assert not plan_base_model(files).dense_experts
    monkeypatch.setattr(experts, "_computes", lambda config, *more: False)
    planned = plan_base_model(files)
    assert not planned.stacks and len(planned.dense_experts) == 4
    network: Any = load_base_model(files, Dense(), device=CPU)
    expected = AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.float32)(input_ids=IDS).logits
    torch.testing.assert_close(network(input_ids=IDS).logits, expected, atol=1e-5, rtol=1e-5)


def test_experts_are_targets_only_where_they_are_named() -> None:
    layers = ["model.layers.0.self_attn.q_proj", "model.layers.0.mlp.shared_expert.down_proj"]
    stacks = [f"model.layers.0.mlp.experts.{name}" for name in ("gate_up_proj", "down_proj")]
    for pattern, expected in {
        "all-linear": layers,
        "down_proj": layers[1:],
        "*": layers,
        "*_proj": layers,
        "experts": stacks,
        "experts.down_proj": stacks[1:],
        "*.experts.gate_up_proj": stacks[:1],
        stacks[0]: stacks[:1],
    }.items():
        assert match_targets([pattern], layers, experts=stacks) == expected, pattern
