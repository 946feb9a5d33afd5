"""Generation with a cache, side by side, against the whole sequence computed again for each token."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from graftkit.model.generate import generate_greedily, stream_greedily
from graftkit.model.twin import build_twin

SMALL = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 320,
}
SHAPES: dict[str, dict[str, Any]] = {
    "window": {**SMALL, "model_type": "mistral", "sliding_window": 16, "num_key_value_heads": 2},
    "convolution": {**SMALL, "model_type": "lfm2", "num_key_value_heads": 2, "layer_types": ["conv", "full_attention"]},
    "learned positions": {"model_type": "gpt2", "n_embd": 64, "n_head": 4, "n_layer": 2, "vocab_size": 320},
    "position biases": {"model_type": "bloom", "hidden_size": 64, "n_layer": 2, "n_head": 4, "vocab_size": 320},
    "state space": {"model_type": "mamba", "hidden_size": 64, "num_hidden_layers": 2, "vocab_size": 320},
}


@torch.no_grad()
def recomputed(network: Any, prompt: list[int], count: int) -> list[int]:
    ids = list(prompt)
    for _ in range(count):
        ids.append(network(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].argmax().item())
    return ids[len(prompt) :]


@pytest.mark.parametrize("name", SHAPES)
def test_answers_are_those_of_the_whole_sequence_computed_again(name: str) -> None:
    network, random = build_twin(SHAPES[name]), torch.Generator().manual_seed(3)
    prompts = [torch.randint(3, 90, (length,), generator=random).tolist() for length in (30, 11)]
    expected = [recomputed(network, prompt, 8) for prompt in prompts]
    assert generate_greedily(network, prompts, max_new_tokens=8, stop=[]) == expected
    assert list(stream_greedily(network, prompts[0], max_new_tokens=8, stop=[])) == expected[0]
