"""A model with another vocabulary computes what its rows say."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from graftkit.interfaces.vocabulary import VocabularyChange
from graftkit.model.grow import grow
from graftkit.model.twin import build_twin

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
    grown = grow(network, change, lambda weight, role: torch.ones(2, weight.shape[1]))
    assert len(grown.parameters()) == (1 if tied else 2)
    found = logits(network, IDS)
    assert torch.allclose(found[..., :96], logits(base, IDS), atol=1e-5)
    assert not torch.allclose(logits(network, torch.tensor([[96, 9]])), logits(network, torch.tensor([[5, 9]])))
