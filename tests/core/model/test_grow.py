"""A model with another vocabulary computes what its rows say."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from graftkit.errors import ModelError
from graftkit.interfaces.vocabulary import VocabularyChange
from graftkit.model.grow import check_growable, grow
from graftkit.model.twin import build_twin
from graftkit.testing.architectures import ARCHITECTURES
from graftkit.testing.tiny import TINY_CONFIG
from torch import nn

CONFIG = {
    "model_type": "llama",
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "vocab_size": 96,
}
IDS = torch.tensor([[5, 9, 2, 31, 7]])


def logits(network: Any, ids: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return network(input_ids=ids).logits  # type: ignore[no-any-return]


@pytest.mark.parametrize("tied", [True, False])
def test_a_vocabulary_without_new_ids_keeps_its_rows_in_their_new_places(tied: bool) -> None:
    config = {**CONFIG, "tie_word_embeddings": tied}
    base, network = build_twin(config), build_twin(config)
    order = torch.randperm(96, generator=torch.Generator().manual_seed(0))[:60]
    change = VocabularyChange("replaced", 60, (), (), {new: int(old) for new, old in enumerate(order)})
    grown = grow(network, change, lambda weight, role: pytest.fail("no row is new"))
    assert grown.parameters() == {} and (grown.output is None) is tied
    assert torch.allclose(logits(network, IDS), logits(base, order[IDS])[..., order], atol=1e-5)
    assert network.config.vocab_size == 60


@pytest.mark.parametrize("tied", [True, False])
def test_new_rows_take_part_and_old_ids_compute_as_before(tied: bool) -> None:
    config = {**CONFIG, "tie_word_embeddings": tied}
    base, network = build_twin(config), build_twin(config)
    change = VocabularyChange("extended", 98, (96, 97), ((1, 2), (3,)))
    grown = grow(network, change, lambda weight, role: weight.data.zero_()[:2] + 1)  # what it does is done to a copy
    assert len(grown.parameters()) == (1 if tied else 2)
    found = logits(network, IDS)
    assert torch.allclose(found[..., :96], logits(base, IDS), atol=1e-5)
    assert not torch.allclose(logits(network, torch.tensor([[96, 9]])), logits(network, torch.tensor([[5, 9]])))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["gemma3_text", "gemma", "biogpt", "xglm", "llama"])
def test_new_rows_of_embeddings_that_are_scaled_are_those_of_a_resized_model(name: str, dtype: torch.dtype) -> None:
    """transformers' own class, its matrix resized, with the same rows in it; bit for bit."""
    config = {**TINY_CONFIG, **ARCHITECTURES[name]}
    theirs, network = build_twin(config).to(dtype), build_twin(config).to(dtype)
    rows = torch.randn(3, theirs.get_input_embeddings().weight.shape[1], generator=torch.Generator().manual_seed(0))
    size = theirs.get_input_embeddings().weight.shape[0]
    theirs.resize_token_embeddings(size + 3, mean_resizing=False)
    with torch.no_grad():
        theirs.get_input_embeddings().weight[size:] = rows.to(dtype)
        if theirs.get_output_embeddings().weight is not theirs.get_input_embeddings().weight:
            theirs.get_output_embeddings().weight[size:] = rows.to(dtype)
    change = VocabularyChange("extended", size + 3, tuple(range(size, size + 3)), ((1, 2), (3,), (4,)))
    grow(network, change, lambda weight, role: rows)
    ids = torch.tensor([[5, size, 9, size + 2, 31, size + 1]])
    assert torch.equal(network.get_input_embeddings()(ids), theirs.get_input_embeddings()(ids))
    if dtype == torch.float32:
        torch.testing.assert_close(logits(network, ids), logits(theirs, ids), atol=1e-5, rtol=1e-5)


class Halved(nn.Embedding):
    """An embedding that does more than scale."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Leaves out what is negative."""
        return super().forward(input).clamp(min=0)


def test_an_embedding_that_does_more_than_scale_its_rows_is_refused_without_its_weights() -> None:
    network = build_twin(CONFIG)
    check_growable(network)
    network.set_input_embeddings(Halved(96, 32, device="meta"))
    with pytest.raises(ModelError, match="can't be changed: its embedding and output layer are a Halved and a Linear"):
        check_growable(network, "model")


def test_a_model_with_an_embedding_a_layer_is_refused() -> None:
    network = build_twin(CONFIG)
    network.config.vocab_size_per_layer_input = 96
    check_growable(network)  # of no width: Gemma 4 has models with such embeddings, and without
    network.config.hidden_size_per_layer_input = 8
    with pytest.raises(ModelError, match="each of its layers has an embedding of its own"):
        check_growable(network, "model")
