"""LoRA on a mixture's experts in PEFT's format, compared with peft itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from architectures import settings
from core.training.test_experts import MIXTURES, opened
from graftkit import Probe, ProofRequest
from graftkit.exporting.peft_experts import refused_experts, target_parameters
from graftkit.flow.exports.refusals import Planned
from graftkit.interfaces.peft_experts import ExpertLayout
from graftkit.model.adapt import AdaptedModel, adapt
from graftkit.model.dense_model import load_dense_model
from graftkit.model.load import load_base_model
from graftkit.model.model_plan import plan_base_model
from graftkit.testing import tiny_model_folder
from graftkit_adapters.config import LoraConfig
from graftkit_adapters.lora import Lora
from graftkit_exporters.peft_folder import PeftExporter
from graftkit_quantizers.dense import Dense
from reference import move_from_start
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM

IDS = torch.tensor([[5, 9, 200, 31, 7, 7, 90]])


class NoTokenizer:
    """Saves nothing."""

    def save(self, folder: Path) -> None:
        """The adapter alone is looked at."""


def trained(files: Any, method: Lora, last: str = "") -> AdaptedModel:
    """A model with LoRA, not at its start, on attention and on every expert of the stacks whose paths end so."""
    planned = plan_base_model(files)
    targets = [layer.path for layer in planned.layers if "attn" in layer.path]
    targets += [stack.path for stack in planned.stacks if stack.path.endswith(last)]
    network: Any = load_base_model(files, Dense(), device=torch.device("cpu"))
    adapted = adapt(network, method, targets, seed=0)
    move_from_start(adapted)
    return AdaptedModel(network, files.reference, files.config, NoTokenizer(), method, adapted)  # type: ignore[arg-type]


def planned(model: AdaptedModel) -> Planned:
    targets = [*model.adapted, *model.expert_targets]
    return Planned(model.config, "m", NoTokenizer(), None, model.adapter, targets, model.expert_targets)  # type: ignore[arg-type]


@pytest.mark.filterwarnings(
    "ignore:The following rank_pattern keys"
)  # peft looks among modules, and takes them all the same
@pytest.mark.parametrize("last", ["", "down_proj"])
@pytest.mark.parametrize("name", MIXTURES)
def test_peft_computes_what_was_trained_on_experts(name: str, last: str, tmp_path: Path) -> None:
    """Logits as the proof computes them; loss as transformers and peft compute it by themselves."""
    from peft import PeftModel

    files = opened(name, tmp_path / "model")
    method = Lora(LoraConfig(rank=2, alpha=8.0, dropout=0.2, rank_pattern={"experts.down_proj": 3}))
    model = trained(files, method, last)
    assert PeftExporter().refusal(planned(model)) is None
    (tmp_path / "adapter").mkdir()
    with torch.no_grad():
        facts = PeftExporter().export(model, tmp_path / "adapter")
        every = Probe(tuple(IDS[0].tolist()), tuple(range(IDS.shape[1])))
        request = ProofRequest(tmp_path / "adapter", [every], lambda: load_dense_model(files, Dense()))
        found = PeftExporter().logits(request)[0]
        expected = model.network.eval()(input_ids=IDS, use_cache=False).logits[0]
        torch.testing.assert_close(found, expected, atol=2e-5, rtol=2e-5)
        base = AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.float32)
        alone = base(input_ids=IDS, use_cache=False).logits[0]
        assert (alone - expected).abs().max() > 1e-2
        loaded = PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
        theirs = loaded(input_ids=IDS, labels=IDS, use_cache=False).loss
        torch.testing.assert_close(theirs, cross_entropy(expected[:-1], IDS[0, 1:]), atol=2e-5, rtol=2e-5)
        merged = loaded.merge_and_unload()
        torch.testing.assert_close(merged(input_ids=IDS, use_cache=False).logits[0], expected, atol=2e-5, rtol=2e-5)
    layouts = {stack: ExpertLayout.from_json(facts["expert_layouts"][stack]) for stack in model.expert_targets}
    tensors = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    for stack, layout in layouts.items():
        for expert, own in enumerate(layout.split(tensors)):
            theirs_of_one = method.peft_tensors(model.adapted[f"{stack}.{expert}"])
            assert all(torch.equal(own[key], tensor) for key, tensor in theirs_of_one.items())


@pytest.mark.parametrize("name", ["mixtral", "gpt_oss"])
def test_names_and_shapes_are_those_that_peft_saves(name: str, tmp_path: Path) -> None:
    from peft import LoraConfig as PeftLora
    from peft import get_peft_model, get_peft_model_state_dict

    files = opened(name, tmp_path / "model")
    PeftExporter().export(trained(files, Lora(LoraConfig(rank=2))), tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert config["target_parameters"] == ["experts.down_proj", "experts.gate_up_proj"]
    assert config["lora_dropout"] == 0
    own = PeftLora(
        r=2,
        target_modules=["q_proj", "k_proj", "v_proj", "o_proj"],
        target_parameters=config["target_parameters"],
        task_type="CAUSAL_LM",
    )
    theirs = get_peft_model_state_dict(get_peft_model(AutoModelForCausalLM.from_pretrained(files.reference), own))
    found = load_file(tmp_path / "adapter_model.safetensors")
    assert {name: t.shape for name, t in found.items()} == {name: t.shape for name, t in theirs.items()}


def test_factors_change_places_where_peft_takes_the_stack_for_its_transpose() -> None:
    """As a peft does that knows no transposed stacks, or an architecture that does not tell of its own."""
    a, b = torch.randn(3, 2, 5), torch.randn(3, 7, 2)
    experts = [{"lora_A.weight": a[e], "lora_B.weight": b[e]} for e in range(3)]
    layout = ExpertLayout("m", 3, swapped=True)
    found = layout.stacked(experts)
    lhs = found["m.lora_B.weight"].reshape(5, 2, 3)
    rhs = found["m.lora_A.weight"].reshape(3, 2, 7)
    delta = torch.einsum("ore,eri->eio", lhs, rhs)  # of a stack [experts, out, in] that is taken for [.., in, out]
    torch.testing.assert_close(delta, b @ a)
    for own, expert in zip(layout.split(found), experts, strict=True):
        assert all(torch.equal(own[key], expert[key]) for key in expert)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"peft_type": "VERA"}, "by LoRA alone, not by VERA"),
        ({"use_dora": True}, "use_dora"),
        ({"lora_bias": True}, "lora_bias"),
        ({"fan_in_fan_out": True}, "fan_in_fan_out"),
    ],
)
def test_what_peft_can_not_do_to_experts_is_refused_by_its_name(
    fields: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    config = json.loads((tiny_model_folder(tmp_path, **settings("qwen3_moe")) / "config.json").read_text())
    method = {**(Lora(LoraConfig(rank=2)).peft_config() or {})}
    stacks = [f"model.layers.{block}.mlp.experts.{name}" for block in (0, 1) for name in ("down_proj", "gate_up_proj")]
    assert refused_experts(config, method, stacks) is None
    said = refused_experts(config, method | fields, stacks)
    assert said is not None and said.startswith("experts are adapted (down_proj, gate_up_proj)") and reason in said


def test_parameters_are_named_by_their_whole_paths_where_others_end_alike() -> None:
    names = [f"l.{block}.experts.up" for block in range(3)]
    assert target_parameters(names, names) == ["experts.up"]
    assert target_parameters(names[:1], names) == names[:1]
