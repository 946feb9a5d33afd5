"""Ways of merging against the trained model: computed here from whole logits, one sequence at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from graftkit.flow.exports.merge import MergeSample, choose
from graftkit.interfaces.layer import LayerInfo
from graftkit.model.adapt import adapt
from graftkit.model.load import load_base_model
from graftkit.model.merge import as_merged, on_base
from graftkit.model.originals import FileOriginals
from graftkit.model.packing import choose_packing, forward_inputs, use_packing
from graftkit.store.token_store import Example, TokenStore
from graftkit.training.merge_scores import ExampleScores, score_variants
from graftkit_adapters.lora import Lora
from graftkit_models.huggingface import HuggingFaceSource
from graftkit_quantizers.int8 import Int8
from torch.nn.functional import cross_entropy, kl_div

CPU = torch.device("cpu")


def a_store() -> TokenStore:
    random = np.random.default_rng(0)
    lengths = (9, 17, 5, 12)
    weights = [random.integers(0, 3, length).astype(np.float32) for length in lengths]
    ids = [random.integers(0, 300, length) for length in lengths]
    return TokenStore.of([Example(*pair, 1) for pair in zip(ids, weights, strict=True)])


@pytest.fixture
def network(tiny_model: Path) -> Any:
    """An adapted model on int8 weights, moved off its start, and what reads its original weights."""
    files = HuggingFaceSource().open(str(tiny_model))
    network = load_base_model(files, Int8(), device=CPU)
    use_packing(network, choose_packing(files.config, files.reference))
    originals = FileOriginals(files, Int8(), CPU, torch.float32)
    targets = ["model.layers.0.self_attn.q_proj", "model.layers.1.mlp.down_proj"]
    adapted = adapt(network, Lora(), targets, seed=0)
    with torch.no_grad():
        for weight in adapted.values():
            for parameter in weight.trainable_parameters().values():
                parameter.add_(0.2 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    return network, originals


def test_scores_are_those_of_whole_logits(network: Any) -> None:
    model, originals = network
    store = a_store()

    @contextmanager
    def original() -> Iterator[None]:
        with on_base(model, "original", originals), as_merged(model, torch.bfloat16):
            yield

    def logits(example: int) -> torch.Tensor:
        with torch.no_grad():
            return model(**forward_inputs([torch.from_numpy(store[example].ids)], packed=True)).logits[0]

    numbers = [0, 1, 3]
    found = score_variants(model, store, numbers, {"original": original}, device=CPU, microbatch_tokens=30)
    trained = [logits(number) for number in numbers]
    with original():
        merged = [logits(number) for number in numbers]
    for place, number in enumerate(numbers):
        example = store[number]
        at = [n for n in range(1, len(example.ids)) if example.loss_weight[n]]
        weight, labels = torch.from_numpy(example.loss_weight[at]), torch.from_numpy(example.ids[at])
        before = [n - 1 for n in at]
        expected, own = trained[place][before], merged[place][before]
        nll = (cross_entropy(own, labels, reduction="none") * weight).sum().item()
        kl = kl_div(own.log_softmax(1), expected.softmax(1), reduction="none").sum(1)
        scores = found["original"]
        assert scores.nll[place].item() == pytest.approx(nll, rel=1e-4)
        assert scores.kl[place].item() == pytest.approx((kl * weight).sum().item(), rel=1e-3)
        assert scores.same[place].item() == (own.argmax(1) == expected.argmax(1)).sum().item()
        assert scores.right[place].item() == (own.argmax(1) == labels).sum().item()
        assert scores.tokens[place].item() == len(at)
    assert found["trained"].mean_kl == 0 and found["original"].mean_kl > 0


@pytest.mark.parametrize("onto", ["original", "requantized"])
def test_a_model_is_afterwards_what_it_was_and_holds_no_other_weights_meanwhile(network: Any, onto: Any) -> None:
    model, originals = network
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    read: list[LayerInfo] = []
    own = originals.original
    originals.original = lambda layer: read.append(layer) or own(layer)
    with on_base(model, onto, originals):
        held = sum(parameter.nbytes for parameter in model.parameters())
        assert held <= sum(tensor.nbytes for tensor in before.values()) and not read
    after = model.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)


def scores(nll: list[float], right: int = 0) -> ExampleScores:
    count = len(nll)
    one, zero = torch.ones(count, dtype=torch.float64), torch.zeros(count, dtype=torch.float64)
    exact = torch.tensor([1.0] * right + [0.0] * (count - right), dtype=torch.float64)
    return ExampleScores(one, one, torch.tensor(nll, dtype=torch.float64), zero, zero, exact)


def test_the_standard_error_is_that_of_a_mean_of_pairs() -> None:
    gain, error = scores([1.0, 2.0, 4.0]).gain_over(scores([2.0, 2.5, 4.0]))
    differences = np.array([1.0, 0.5, 0.0])
    assert gain == pytest.approx(differences.mean())
    assert error == pytest.approx(differences.std(ddof=1) / np.sqrt(3))


@pytest.mark.parametrize(
    ("other", "right", "held_out", "chosen"),
    [
        ([0.9, 1.9, 2.9, 3.9], 2, True, "original"),  # each a little better
        ([0.0, 2.1, 3.1, 4.1], 2, True, "dequantized"),  # better by one example alone
        ([1.1, 2.1, 3.1, 4.1], 2, True, "dequantized"),
        ([0.9, 1.9, 2.9, 3.9], 1, True, "dequantized"),  # fewer answers are right
        ([0.9, 1.9, 2.9, 3.9], 2, False, "dequantized"),  # on what was trained on
    ],
)
def test_another_base_is_chosen_only_where_it_is_better_beyond_chance(
    other: list[float], right: int, held_out: bool, chosen: str
) -> None:
    trained = scores([1.0, 2.0, 3.0, 4.0], 2)
    found = {"trained": trained, "dequantized": trained, "original": scores(other, right)}
    onto, reason = choose(found, MergeSample(a_store(), held_out, "records", exact=True))
    assert onto == chosen and reason
