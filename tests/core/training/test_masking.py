"""Which tokens are masked: as often as transformers does it, and as the seed, the epoch and the number say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from encoder_models import encoder_folder
from graftkit.model.packing import Packing, use_packing
from graftkit.store.token_store import TARGET, Example, TokenStore
from graftkit.training.batch import pack
from graftkit.training.loss import TokenLoss
from graftkit.training.masking import MaskedStore, Masking, epochs_of
from graftkit.training.step_loss import LikelihoodLoss, Passes, StepCalls

MASKING = Masking(seed=1, share=0.15, mask=4, vocabulary=69)


def text(length: int, seed: int = 0) -> Example:
    """Returns [CLS] tokens [SEP], as the encoder makes them."""
    ids = np.array([2, *np.random.default_rng(seed).integers(5, 69, length), 3], np.int64)
    weights = np.ones(len(ids), np.float32)
    weights[[0, -1]] = 0
    return Example(ids, weights, 0)


def test_shares_are_those_of_transformers_collator(tmp_path: Path) -> None:
    from transformers import AutoTokenizer, DataCollatorForLanguageModeling

    tokenizer = AutoTokenizer.from_pretrained(encoder_folder(tmp_path, "bert"))
    example = text(100_000)
    found = MASKING.masked(example, 0, 0)
    collate = DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.15, seed=3)
    theirs = collate([{"input_ids": example.ids.tolist()}])
    labels, ids = theirs["labels"][0].numpy(), theirs["input_ids"][0].numpy()

    def shares(chosen: Any, changed: Any) -> list[float]:
        own = changed == example.ids
        fates = [changed == 4, own & (changed != 4), ~own & (changed != 4)]
        return [chosen.mean(), *((fate & chosen).sum() / chosen.sum() for fate in fates)]

    assert shares(found.loss_weight > 0, found.ids) == pytest.approx(shares(labels != -100, ids), abs=0.012)
    assert np.array_equal(found.ids[found.loss_weight == 0], example.ids[found.loss_weight == 0])
    assert np.array_equal(found.by_token[TARGET], example.ids)
    assert found.loss_weight[[0, -1]].tolist() == [0, 0], "what the tokenizer puts around a text stays"


def test_masks_follow_from_the_seed_the_epoch_and_the_number() -> None:
    example = text(60)
    first = MASKING.masked(example, 7, 2)
    assert np.array_equal(first.ids, MASKING.masked(example, 7, 2).ids)
    others = [MASKING.masked(example, 8, 2), MASKING.masked(example, 7, 3)]
    others.append(Masking(2, 0.15, 4, 69).masked(example, 7, 2))
    assert not any(np.array_equal(first.loss_weight, other.loss_weight) for other in others)
    kept = np.array([2, 40, 41, 3])
    short = Example(kept, np.array([0, 1, 1, 0], np.float32), 0)
    assert all((MASKING.masked(short, n, 0).loss_weight > 0).sum() >= 1 for n in range(20)), "one at least is masked"
    assert epochs_of([[0, 1], [1, 0], [1, 1]]) == [[0, 0], [1, 1], [2, 3]]


def test_a_store_is_masked_as_it_is_read() -> None:
    store = TokenStore.of(text(length, length) for length in (9, 30))
    masked = MaskedStore.over(store, MASKING)
    assert np.array_equal(masked[1].ids, MASKING.masked(store[1], 1, 0).ids)
    assert len(masked) == 2 and [len(example.ids) for example in masked] == [11, 32]


@pytest.mark.parametrize("kind", ["bert", "modernbert"])
@pytest.mark.parametrize("packed", [True, False])
def test_loss_and_gradient_are_those_of_transformers_class(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, packed: bool
) -> None:
    """Through a LoRA of peft's, on the same masked tokens; logits are made a few at a time."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForMaskedLM

    network = AutoModelForMaskedLM.from_pretrained(encoder_folder(tmp_path, kind), dtype=torch.float32)
    targets = ["query", "intermediate.dense"] if kind == "bert" else ["Wqkv", "Wi"]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        model = get_peft_model(network, LoraConfig(r=4, target_modules=targets)).eval()
        for name, parameter in model.named_parameters():
            if name.endswith("lora_B.default.weight"):
                torch.nn.init.normal_(parameter, std=0.3)
    store = TokenStore.of(MASKING.masked(text(length, length), length, 0) for length in (40, 8, 25))
    network.set_attn_implementation("eager")
    longest = max(len(example.ids) for example in store)
    rows = [np.pad(example.ids, (0, longest - len(example.ids))) for example in store]
    seen = [np.pad(np.ones(len(example.ids), np.int64), (0, longest - len(example.ids))) for example in store]
    wanted = [
        np.pad(
            np.where(example.loss_weight > 0, example.by_token[TARGET], -100),
            (0, longest - len(example.ids)),
            constant_values=-100,
        )
        for example in store
    ]
    given = [torch.from_numpy(np.stack(part)) for part in (rows, seen, wanted)]
    loss = model(input_ids=given[0], attention_mask=given[1], labels=given[2]).loss
    loss.backward()
    expected = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}

    model.zero_grad()
    use_packing(network, Packing(packed))
    monkeypatch.setattr(TokenLoss, "_logits_at_once", lambda self, device: 3 * 69)
    passes = Passes(60, packed, torch.device("cpu"))
    groups = passes.groups(range(len(store)), store.lengths.tolist())
    measured = LikelihoodLoss(network, passes)
    score = measured.backward(store, groups, StepCalls())
    assert measured._loss._in_pieces(pack([store[1]], torch.device("cpu"))), "few logits exist at a time"
    assert score.loss == pytest.approx(loss.item(), rel=1e-5)
    assert score.loss_tokens == int((given[2] != -100).sum())
    found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    largest = max(float(gradient.abs().max()) for gradient in expected.values())
    assert found.keys() == expected.keys() and largest > 1e-3
    for name, gradient in expected.items():
        assert torch.allclose(found[name], gradient, atol=1e-5 * largest, rtol=1e-4), name
