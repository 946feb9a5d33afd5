"""Parameters that are trained as wholes: the model computes with them what it computed with the base model's."""

from __future__ import annotations

import copy

import pytest
import torch
from graftkit.model.whole import put_whole
from graftkit.testing.architectures import ARCHITECTURES
from graftkit.testing.tiny import LEFT_OUT, TINY_CONFIG
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

IDS = torch.tensor([[57, 40, 41, 42, 99, 7, 7, 55, 12, 60, 61]])

NAMES: dict[str, tuple[str, list[str]]] = {
    "one matrix that stays tied": ("llama", ["model.embed_tokens.weight", "lm_head.weight"]),
    "norms": ("llama", ["model.norm.weight", "model.layers.0.input_layernorm.weight"]),
    "positions that count the mask": ("opt", ["model.decoder.embed_positions.weight"]),
    "what its module is not called for": (
        "mamba",
        ["backbone.layers.0.mixer.conv1d.weight", "backbone.layers.1.mixer.dt_proj.weight"],
    ),
    "a norm of float32 inputs": ("mamba2", ["backbone.layers.0.mixer.norm.weight", "backbone.norm_f.weight"]),
    "an output layer whose type is asked": ("mamba", ["lm_head.weight"]),
}


@pytest.mark.parametrize("kind", NAMES)
def test_a_half_precision_model_computes_the_same_with_them(kind: str) -> None:
    """Bit for bit, while they and their gradients are float32."""
    name, wholes = NAMES[kind]
    merged = {**TINY_CONFIG, **ARCHITECTURES[name]}
    settings = {key: value for key, value in merged.items() if value is not LEFT_OUT and value is not None}
    config = CONFIG_MAPPING[settings.pop("model_type")](**{**settings, "vocab_size": 128})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).eval()
    changed = copy.deepcopy(network)
    put_whole(changed, wholes, tied=True)
    for model in (changed, copy.deepcopy(changed)):
        logits = model(input_ids=IDS).logits
        assert torch.equal(logits, network(input_ids=IDS).logits)
        logits.float().square().mean().backward()
        gradients = [model.get_parameter(name).grad for name in wholes]
        assert all(each is not None and each.dtype == torch.float32 and each.any() for each in gradients)
