"""The loss in pieces, against the loss of all logits at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from graftkit.model.attention import PACKED, register_packed_attention
from graftkit.store.token_store import Example
from graftkit.training import loss as module
from graftkit.training.batch import PackedBatch, pack
from graftkit.training.loss import TokenLoss, summed_loss
from graftkit.training.nll import summed_nll
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, Gemma2Config, Gemma2ForCausalLM

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LOGITS_AT_ONCE", {"cpu": 320 * 7})


def batch() -> PackedBatch:
    random = np.random.default_rng(0)
    lengths = (30, 5, 12)
    return pack([Example(random.integers(0, 320, n), random.random(n) < 0.7, 1) for n in lengths], CPU)


def packed(model: Any) -> Any:
    register_packed_attention()
    model.set_attn_implementation(PACKED)
    return model


def gradients(model: Any) -> list[torch.Tensor]:
    found = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    model.zero_grad()
    return found


def scored(pieces: TokenLoss, examples: PackedBatch) -> torch.Tensor:
    """The weighted sum over the tokens in the loss, as an evaluation adds it up."""
    return (pieces.score(examples, learn=False).logps * -examples.token_weights).sum()


def test_pieces_give_the_loss_and_the_gradient_of_the_whole(tiny_model: Path) -> None:
    model, examples = packed(AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)), batch()
    whole = summed_loss(model, examples) / 10
    whole.backward()
    expected = gradients(model)
    pieces = TokenLoss(model)
    assert pieces.backward(examples, 0.1).item() == pytest.approx(whole.item(), rel=1e-5)
    found = gradients(model)
    assert len(found) == len(expected) == len(list(model.parameters()))
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    assert scored(pieces, examples).item() == pytest.approx(10 * whole.item(), rel=1e-5)


def of_transformers(model: Any, examples: list[Example]) -> torch.Tensor:
    """Each example alone through transformers' own attention: each token's cross-entropy times its weight."""
    model.set_attn_implementation("eager")
    terms = []
    for example in examples:
        logits = model(input_ids=torch.from_numpy(example.ids)[None]).logits[0, :-1]
        nll = cross_entropy(logits.float(), torch.from_numpy(example.ids)[1:], reduction="none")
        terms.append((nll * torch.from_numpy(example.loss_weight)[1:]).sum())
    return torch.stack(terms).sum()


def weighted() -> list[Example]:
    """Half of the tokens weigh 0.5, others 1 or nothing."""
    random = np.random.default_rng(1)
    lengths = (30, 5, 12)
    weights = [random.choice([0.5, 0.5, 1.0, 0.0], n).astype(np.float32) for n in lengths]
    return [Example(random.integers(0, 320, len(found)), found, 1) for found in weights]


@pytest.mark.parametrize("capped", [False, True])
def test_each_token_counts_with_its_weight(tiny_model: Path, capped: bool) -> None:
    examples = weighted()
    sums = sum(float(example.loss_weight[1:].sum()) for example in examples)
    model = capping() if capped else AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    expected = of_transformers(model, examples) / sums
    expected.backward()
    reference = gradients(model)
    examples, pieces = pack(examples, CPU), TokenLoss(packed(model))
    assert examples.weight_sum == sums and examples.weights is not None
    assert pieces.backward(examples, 1 / examples.weight_sum).item() == pytest.approx(expected.item(), rel=1e-5)
    for a, b in zip(gradients(model), reference, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
    assert scored(pieces, examples).item() == pytest.approx(sums * expected.item(), rel=1e-5)


def test_weights_of_one_change_no_bit() -> None:
    random = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(40, 320, generator=random), torch.arange(40)
    plain, ones = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    first = summed_nll(plain, labels, 1 / 40)
    second = summed_nll(ones, labels, 1 / 40, torch.ones(40))
    first.backward()
    second.backward()
    assert torch.equal(first, second) and plain.grad is not None and torch.equal(plain.grad, ones.grad)
    assert batch().weights is None


def test_in_16_bits_the_gradient_is_scaled_before_it_is_rounded() -> None:
    random = torch.Generator().manual_seed(0)
    logits = (4 * torch.randn(300, 500, generator=random)).bfloat16()
    labels = logits.argmax(1)
    found, expected = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    summed_nll(found, labels, 1 / 1005).backward()
    (cross_entropy(expected.float(), labels, reduction="sum") / 1005).backward()
    assert found.grad is not None and expected.grad is not None and found.grad.dtype == torch.bfloat16
    same = (found.grad == expected.grad).double().mean().item()
    assert same > 0.999


def test_no_more_logits_are_made_at_a_time_than_a_piece(tiny_model: Path) -> None:
    model, examples = packed(AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)), batch()
    pieces = TokenLoss(model)
    pieces.score(examples, learn=False)  # the first look at the model is behind us
    seen: list[int] = []
    model.get_output_embeddings().register_forward_hook(lambda *call: seen.append(call[2].shape[0]))
    pieces.backward(examples, 1.0)
    at_once = 320 * 7 // model.config.vocab_size
    assert max(seen) <= at_once and sum(seen) == len(examples.labels) and len(seen) > 2


def capping() -> Any:
    torch.manual_seed(0)
    config = Gemma2Config(
        vocab_size=320,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        final_logit_softcapping=0.01,
    )
    return Gemma2ForCausalLM(config)


def test_a_model_that_caps_its_logits_makes_them_itself() -> None:
    model, examples = packed(capping()), batch()
    whole = summed_loss(model, examples)
    whole.backward()
    expected = gradients(model)
    assert TokenLoss(model).backward(examples, 1.0).item() == whole.item()
    assert all(torch.equal(a, b) for a, b in zip(gradients(model), expected, strict=True))


def test_the_first_look_leaves_the_model_as_it_was(tiny_model: Path) -> None:
    model = packed(AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)).train()
    state = torch.get_rng_state()
    TokenLoss(model).score(batch(), learn=False)
    assert model.training and torch.equal(state, torch.get_rng_state())
