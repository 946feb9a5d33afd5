"""Noise on embeddings, against transformers' NEFTune on each sequence alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from graftkit.model.attention import PACKED, register_packed_attention
from graftkit.model.embedding_noise import embedding_noise
from graftkit.model.packing import forward_inputs
from transformers import AutoModelForCausalLM
from transformers.integrations.neftune import neftune_post_forward_hook

SEQUENCES = [torch.arange(5, 5 + length) for length in (3, 17, 1)]


@pytest.fixture(name="network")
def _network(tiny_model: Path) -> Any:
    network: Any = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    return network.train()


def embedded(network: Any, sequences: list[torch.Tensor], *, packed: bool) -> torch.Tensor:
    """Returns what the first block gets, `[tokens, width]`."""
    seen: list[torch.Tensor] = []
    handle = network.model.layers[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    torch.manual_seed(0)
    network.model(**forward_inputs(sequences, packed=packed))
    handle.remove()
    return seen[0][0]


def test_a_sequence_alone_gets_transformers_noise(network: Any) -> None:
    embedding = network.get_input_embeddings()
    embedding.neftune_noise_alpha = 5.0
    handle = embedding.register_forward_hook(neftune_post_forward_hook)
    expected = embedded(network, SEQUENCES[1:2], packed=False)
    handle.remove()
    with embedding_noise(network, 5.0):
        torch.testing.assert_close(embedded(network, SEQUENCES[1:2], packed=False), expected)


def test_each_packed_sequence_has_the_bound_of_its_own_length(network: Any) -> None:
    register_packed_attention()
    network.set_attn_implementation(PACKED)
    plain = embedded(network, SEQUENCES, packed=True)
    with embedding_noise(network, 5.0):
        noise = embedded(network, SEQUENCES, packed=True) - plain
    width = noise.shape[1]
    for part, ids in zip(noise.split([len(ids) for ids in SEQUENCES]), SEQUENCES, strict=True):
        bound = 5.0 / (len(ids) * width) ** 0.5
        assert 0.8 * bound < part.abs().max() <= bound * 1.0001 and part.unique().numel() > 0.9 * part.numel()


def test_there_is_none_in_evaluation_nor_afterwards(network: Any) -> None:
    plain = embedded(network, SEQUENCES[:1], packed=False)
    with embedding_noise(network, 5.0):
        assert torch.equal(embedded(network.eval(), SEQUENCES[:1], packed=False), plain)
    assert torch.equal(embedded(network.train(), SEQUENCES[:1], packed=False), plain)
