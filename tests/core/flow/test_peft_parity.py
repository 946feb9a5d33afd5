"""An adapter that peft made computes in graftkit what it computes in peft."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from graftkit.errors import FolderError, ModelError
from graftkit.flow.planning.check_adapter import check_layers
from graftkit.flow.preparation.adapter_model import load_packed
from graftkit.flow.preparation.plan_adapter import plan_adapter
from graftkit.host.host import PluginHost
from graftkit.interfaces.forward import logits_at
from graftkit.model.model_plan import plan_base_model
from graftkit.model.packing import forward_inputs
from graftkit.testing import tiny_model_folder
from graftkit.testing.architectures import ARCHITECTURES
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModelForCausalLM

MODELS: dict[str, dict[str, Any]] = {
    "llama": {},
    "llama-untied": {"tie_word_embeddings": False},
    "qwen2": {"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"]},
    "gpt2": dict(ARCHITECTURES["gpt2"]),
    "gemma3": dict(ARCHITECTURES["gemma3_text"]),
}

LORA: dict[str, dict[str, Any]] = {
    "a list": {"target_modules": ["q_proj", "up_proj"], "r": 4, "lora_alpha": 12},
    "an expression": {"target_modules": r".*\.layers\.\d\.mlp\.(up|down)_proj"},
    "all linear": {"target_modules": "all-linear", "lora_dropout": 0.1},
    "rsLoRA": {"target_modules": ["o_proj"], "use_rslora": True, "r": 9},
    "patterns": {
        "target_modules": ["q_proj", "k_proj", "down_proj"],
        "rank_pattern": {r"layers\.1\.self_attn\.q_proj": 3, "down_proj": 2},
        "alpha_pattern": {"k_proj": 5, r"^model\.layers\.0\.mlp\.down_proj": 32},
    },
    "DoRA": {"target_modules": "all-linear", "use_dora": True, "rank_pattern": {"v_proj": 3}},
    "some layers": {"target_modules": ["q_proj", "v_proj"], "layers_to_transform": [1], "layers_pattern": "layers"},
    "all but some": {"target_modules": ["q_proj", "v_proj"], "exclude_modules": ["layers.0.self_attn.q_proj"]},
}

BESIDES: dict[str, dict[str, Any]] = {
    "the output layer": {"modules_to_save": ["lm_head"]},
    "the embedding": {"modules_to_save": ["embed_tokens"]},
    "both": {"modules_to_save": ["embed_tokens", "lm_head"]},
    "both, tied": {"modules_to_save": ["embed_tokens"], "ensure_weight_tying": True},
    "norms": {"modules_to_save": ["input_layernorm", "norm"]},
    "rows": {"trainable_token_indices": [300, 7, 12]},
}

Make = Callable[..., Path]


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("bases")
    return {name: tiny_model_folder(folder / name, **config) for name, config in MODELS.items()}


@pytest.fixture
def make_adapter(bases: dict[str, Path], tmp_path: Path) -> Make:
    """Has peft make an adapter of random numbers."""

    def make(model: str, keep: bool = False, **fields: Any) -> Path:
        base = AutoModelForCausalLM.from_pretrained(bases[model], dtype=torch.float32)
        config = LoraConfig(task_type="CAUSAL_LM", **fields)
        with torch.random.fork_rng():
            torch.manual_seed(3)
            made = get_peft_model(base, config)
            with torch.no_grad():
                for name, parameter in made.named_parameters():
                    if parameter.requires_grad and "lora_A" not in name:
                        parameter.add_(0.1 * torch.randn(parameter.shape))
        made.save_pretrained(tmp_path / "adapter", save_embedding_layers=keep)
        return tmp_path / "adapter"

    return make


SEQUENCES = [torch.arange(5, 45), torch.tensor([300, 7, 12, 9, 300, 1, 2, 3])]


@torch.no_grad()
def peft_logits(base: Path, adapter: Path) -> torch.Tensor:
    model: nn.Module = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter).eval()
    return torch.cat([model(ids[None]).logits[0] for ids in SEQUENCES])


@torch.no_grad()
def own_logits(base: Path, adapter: Path) -> torch.Tensor:
    planned = plan_adapter(adapter, PluginHost(), base=str(base))
    loaded = load_packed(planned, check_layers(planned.folder, plan_base_model(planned.files)), "cpu")
    inputs = forward_inputs(SEQUENCES, packed=True)
    every = torch.arange(sum(len(ids) for ids in SEQUENCES))
    return logits_at(loaded.model.network, inputs, every).float()


def check(base: Path, adapter: Path) -> None:
    expected, without = peft_logits(base, adapter), base_logits(base)
    found, largest = own_logits(base, adapter), expected.abs().max()
    assert (expected - without).abs().max() > 0.05 * largest, "the adapter changes too little to be seen"
    assert (found - expected).abs().max() < 1e-5 * largest


@torch.no_grad()
def base_logits(base: Path) -> torch.Tensor:
    model = AutoModelForCausalLM.from_pretrained(base).eval()
    return torch.cat([model(ids[None]).logits[0] for ids in SEQUENCES])


@pytest.mark.parametrize("kind", LORA)
@pytest.mark.parametrize("model", ["llama", "qwen2"])
def test_lora(bases: dict[str, Path], make_adapter: Make, model: str, kind: str) -> None:
    check(bases[model], make_adapter(model, **LORA[kind]))


OUTPUT: dict[str, dict[str, Any]] = {
    "a list": {"target_modules": ["q_proj", "lm_head"], "rank_pattern": {"lm_head": 3}, "use_rslora": True},
    "an expression": {"target_modules": r".*(lm_head|\.o_proj)", "use_dora": True},
}


EMBEDDING: dict[str, dict[str, Any]] = {
    "a list": {"target_modules": ["q_proj", "embed_tokens"], "rank_pattern": {"embed_tokens": 3}, "use_rslora": True},
    "with the output layer": {
        "target_modules": r".*(lm_head|embed_tokens|\.o_proj)",
        "alpha_pattern": {"embed_tokens": 3},
    },
}


@pytest.mark.filterwarnings("ignore:.*weight_tying")
@pytest.mark.parametrize("keep", [True, False], ids=["the base's matrix kept", "alone"])
@pytest.mark.parametrize("kind", EMBEDDING)
@pytest.mark.parametrize("model", ["llama", "llama-untied", "gemma3"])
def test_lora_on_the_embedding(bases: dict[str, Path], make_adapter: Make, model: str, kind: str, keep: bool) -> None:
    """Tied to the output layer or not, scaled or not."""
    adapter = make_adapter(model, keep, **EMBEDDING[kind])
    check(bases[model], adapter)
    copied = "base_model.model.model.embed_tokens.base_layer.weight"
    assert (copied in load_file(adapter / "adapter_model.safetensors")) == keep


@pytest.mark.filterwarnings("ignore:.*weight_tying")
@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"target_modules": ["embed_tokens"], "ensure_weight_tying": True}, "one update for embedding and output"),
        ({"target_modules": ["embed_tokens"], "use_dora": True}, "it is an embedding, on which there is no DoRA"),
    ],
)
def test_what_an_embedding_is_not_adapted_by_is_refused(
    bases: dict[str, Path], make_adapter: Make, fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        own_logits(bases["llama"], make_adapter("llama", **fields))


@pytest.mark.filterwarnings("ignore:.*weight_tying")
@pytest.mark.parametrize("keep", [True, False], ids=["the base's matrix kept", "alone"])
@pytest.mark.parametrize("kind", OUTPUT)
@pytest.mark.parametrize("model", ["llama", "llama-untied"])
def test_lora_on_the_output_layer(
    bases: dict[str, Path], make_adapter: Make, model: str, kind: str, keep: bool
) -> None:
    """Tied to the embedding or not; PEFT keeps a copy of the base's matrix unless it is told not to."""
    adapter = make_adapter(model, keep, **OUTPUT[kind])
    check(bases[model], adapter)
    copied = "base_model.model.lm_head.base_layer.weight"
    assert (copied in load_file(adapter / "adapter_model.safetensors")) == keep


def test_a_copy_of_another_base_is_refused(bases: dict[str, Path], make_adapter: Make) -> None:
    adapter = make_adapter("llama-untied", True, target_modules=["lm_head"])
    path, name = adapter / "adapter_model.safetensors", "base_model.model.lm_head.base_layer.weight"
    tensors = load_file(path)
    save_file({**tensors, name: tensors[name] * 1.1}, path)
    with pytest.raises(ModelError, match="'lm_head.base_layer.weight', which is not what the base model has"):
        own_logits(bases["llama-untied"], adapter)
    save_file({**tensors, name.replace("lm_head", "model.norm"): tensors[name].clone()}, path)
    with pytest.raises(FolderError, match="of a layer that it does not adapt"):
        own_logits(bases["llama-untied"], adapter)


@pytest.mark.filterwarnings("ignore:.*weight_tying")
@pytest.mark.parametrize("kind", BESIDES)
@pytest.mark.parametrize("model", ["llama", "llama-untied", "qwen2"])
def test_what_stands_beside_lora(bases: dict[str, Path], make_adapter: Make, model: str, kind: str) -> None:
    check(bases[model], make_adapter(model, target_modules=["q_proj", "down_proj"], **BESIDES[kind]))


@pytest.mark.parametrize(
    "fields",
    [
        {"target_modules": ["c_attn", "c_proj"], "r": 3},
        {"target_modules": "all-linear", "use_rslora": True},
        {"target_modules": ["c_attn", "c_proj"], "use_dora": True},
        {"target_modules": ["c_fc"], "rank_pattern": {"h.1.mlp.c_fc": 2}, "modules_to_save": ["ln_f", "wte"]},
        {"target_modules": ["mlp.c_proj"], "trainable_token_indices": {"wte": [7, 300]}},
    ],
)
def test_gpt2_whose_weights_are_stored_the_other_way_round(
    bases: dict[str, Path], make_adapter: Make, fields: dict[str, Any]
) -> None:
    adapter = make_adapter("gpt2", fan_in_fan_out=True, **fields)
    assert json.loads((adapter / "adapter_config.json").read_bytes())["fan_in_fan_out"]
    check(bases["gpt2"], adapter)


def test_rows_of_the_output_layer(bases: dict[str, Path], make_adapter: Make) -> None:
    indices = {"embed_tokens": [12, 300], "lm_head": [12, 300]}
    check(
        bases["llama-untied"], make_adapter("llama-untied", target_modules=["q_proj"], trainable_token_indices=indices)
    )
