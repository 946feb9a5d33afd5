"""Adapters of many architectures, loaded by peft onto the base model."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from graftkit import Probe, ProofRequest
from graftkit.exporting.peft_folder import target_modules
from graftkit.flow.exports.refusals import Planned
from graftkit.model.adapt import AdaptedModel, adapt
from graftkit.model.dense_model import load_dense_model
from graftkit.model.load import load_base_model
from graftkit.model.model_plan import check_base_model
from graftkit.testing import tiny_model_folder
from graftkit.testing.architectures import ARCHITECTURES
from graftkit_adapters.config import LoraConfig
from graftkit_adapters.lora import Lora
from graftkit_exporters.peft_folder import PeftExporter
from graftkit_models.huggingface import HuggingFaceSource
from graftkit_quantizers.dense import Dense
from safetensors.torch import load_file

PROBE = [5, 9, 200, 31, 7, 7, 90]
TAKEN_FOR_EXPERTS = ["glm4_moe", "ernie4_5_moe", "deepseek_v2", "deepseek_v3", "dots1", "qwen3_next"]
"""Mixtures with layers outside the experts that PEFT would not find."""


class NoTokenizer:
    """Saves nothing."""

    def save(self, folder: Path) -> None:
        """The adapter alone is looked at."""


def planned(files: Any, method: Lora, targets: list[str]) -> Planned:
    return Planned(files.config, files.reference, NoTokenizer(), None, method, targets)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ARCHITECTURES)
@torch.no_grad()
def test_peft_computes_what_was_trained(name: str, tmp_path: Path) -> None:
    files = HuggingFaceSource().open(str(tiny_model_folder(tmp_path / "model", **ARCHITECTURES[name])))
    layers = check_base_model(files)
    network: Any = load_base_model(files, Dense(), device=torch.device("cpu"))
    method = Lora(LoraConfig(rank=4, alpha=8.0, dropout=0.0))
    targets = [layer.path for layer in layers]
    refusal = PeftExporter().refusal(planned(files, method, targets))
    assert bool(refusal) == (name in TAKEN_FOR_EXPERTS)
    if refusal:
        assert "down_proj, gate_proj, up_proj for experts" in refusal
        targets = [target for target in targets if not target.endswith(("down_proj", "gate_proj", "up_proj"))]
        assert PeftExporter().refusal(planned(files, method, targets)) is None
    adapted = adapt(network, method, targets, seed=0)
    generator = torch.Generator().manual_seed(0)
    for weight in adapted.values():
        for parameter in weight.trainable_parameters().values():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    trained = AdaptedModel(network, files.reference, files.config, NoTokenizer(), method, adapted)  # type: ignore[arg-type]
    (tmp_path / "adapter").mkdir()
    PeftExporter().export(trained, tmp_path / "adapter")
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="fan_in_fan_out")
        every = Probe(tuple(PROBE), tuple(range(len(PROBE))))
        request = ProofRequest(tmp_path / "adapter", [every], lambda: load_dense_model(files, Dense()))
        found = PeftExporter().logits(request)
    torch.testing.assert_close(found[0], network(input_ids=torch.tensor([PROBE])).logits[0], atol=2e-5, rtol=2e-5)


@torch.no_grad()
def test_a_transposed_weight_is_told_to_peft_and_its_factors_have_pefts_shapes(tmp_path: Path) -> None:
    from peft import LoraConfig as PeftLora
    from peft import get_peft_model, get_peft_model_state_dict
    from transformers import AutoModelForCausalLM

    folder = tiny_model_folder(tmp_path / "model", **ARCHITECTURES["gpt2"])
    files = HuggingFaceSource().open(str(folder))
    network: Any = load_base_model(files, Dense(), device=torch.device("cpu"))
    adapted = adapt(network, Lora(LoraConfig(rank=4)), [layer.path for layer in check_base_model(files)], seed=0)
    trained = AdaptedModel(network, "model", files.config, NoTokenizer(), Lora(LoraConfig(rank=4)), adapted)  # type: ignore[arg-type]
    PeftExporter().export(trained, tmp_path)
    assert json.loads((tmp_path / "adapter_config.json").read_text())["fan_in_fan_out"] is True
    theirs = get_peft_model(
        AutoModelForCausalLM.from_pretrained(folder),
        PeftLora(r=4, target_modules=["c_attn", "c_proj", "c_fc"], fan_in_fan_out=True, task_type="CAUSAL_LM"),
    )
    expected = {name: tensor.shape for name, tensor in get_peft_model_state_dict(theirs).items()}
    found = {name: tensor.shape for name, tensor in load_file(tmp_path / "adapter_model.safetensors").items()}
    assert found == expected


def test_layers_that_are_numbers_are_named_by_their_whole_path() -> None:
    layers = ["layers.0.adapters.0", "layers.1.adapters.0"]
    assert target_modules(layers, layers) == layers
