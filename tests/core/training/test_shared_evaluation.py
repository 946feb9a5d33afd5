"""Processes that share an evaluation come to the same number as one alone, bit for bit, and each computes its part."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from graftkit.flow.preparation.named_objective import named_objective
from graftkit.interfaces.scores import SequenceScores, TokenScores
from graftkit.store.token_store import TARGET, Example, TokenStore
from graftkit.training.head_loss import HeadLoss, OfSequences, OfTokens
from graftkit.training.objective_loss import ObjectiveLoss
from graftkit.training.processes import ALONE, Processes
from graftkit.training.step_loss import LikelihoodLoss, Passes, StepScore
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    LlamaForTokenClassification,
)

COUNT = 3


class InThreads:
    """Processes that are threads of this one."""

    def __init__(self, count: int) -> None:
        self._barrier = threading.Barrier(count)
        self._given: list[Any] = [None] * count
        self.members = [_Member(self, rank, count) for rank in range(count)]

    def exchange(self, rank: int, value: Any) -> list[Any]:
        self._given[rank] = value
        self._barrier.wait(60)
        found = list(self._given)
        self._barrier.wait(60)
        return found

    def call(self, task: Callable[[Processes], Any]) -> list[Any]:
        """Returns what the task returns in each thread."""
        found: list[Any] = [None] * len(self.members)

        def run(rank: int) -> None:
            found[rank] = task(self.members[rank])

        threads = [threading.Thread(target=run, args=(rank,)) for rank in range(len(found))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return found


class _Member:
    def __init__(self, together: InThreads, rank: int, count: int) -> None:
        self.rank, self.count = rank, count
        self._together = together

    def sum_(self, tensor: torch.Tensor) -> None:
        tensor.copy_(torch.stack(self._together.exchange(self.rank, tensor.clone())).sum(0))

    def broadcast_(self, tensor: torch.Tensor) -> None:
        tensor.copy_(self._together.exchange(self.rank, tensor.clone())[0])

    def gather(self, value: Any) -> list[Any]:
        return [json.loads(text) for text in self._together.exchange(self.rank, json.dumps(value))]

    def announce(self, command: Any) -> None:
        raise AssertionError("nothing is announced within an evaluation")

    def next_command(self) -> dict[str, Any]:
        raise AssertionError("nothing is announced within an evaluation")


class MeanSquare:
    """An objective by the scores of all examples, with a metric that some examples have not."""

    def losses(self, scores: Any) -> torch.Tensor:
        means = self._means(scores)
        return (means - means.mean()) ** 2

    def metrics(self, scores: Any) -> dict[str, torch.Tensor]:
        means = self._means(scores)
        return {"mean": torch.where(means > means.median(), means, torch.nan)}

    def _means(self, scores: Any) -> torch.Tensor:
        sums = torch.zeros(scores.sequences * scores.examples).index_add(0, scores.sequence, scores.logps)
        return sums.view(scores.examples, scores.sequences).sum(1)


@pytest.fixture(scope="module")
def network() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=50,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        attn_implementation="eager",
    )
    return LlamaForCausalLM(config).eval()


@pytest.fixture(scope="module")
def store() -> TokenStore:
    random = np.random.default_rng(0)
    lengths = [3, 17, 5, 9, 2, 30, 4, 4, 11, 6, 8]
    return TokenStore.of(
        Example(random.integers(1, 50, size), random.uniform(0.1, 2, size).astype(np.float32), 0) for size in lengths
    )


@pytest.mark.parametrize("kind", ["likelihood", "by example", "all examples together"])
def test_a_shared_evaluation_gives_the_same_number(kind: str, network: LlamaForCausalLM, store: TokenStore) -> None:
    def evaluate(processes: Processes) -> tuple[StepScore, int]:
        passes, polled = Passes(12, False, torch.device("cpu"), processes), []
        objective: Any = MeanSquare()
        loss = (
            LikelihoodLoss(network, passes)
            if kind == "likelihood"
            else ObjectiveLoss(network, objective, passes, "examples" if kind == "by example" else "step")
        )
        score = loss.evaluate(store, passes.all_groups(store), lambda done, every: polled.append((done, every)))
        assert polled == [(number, len(polled)) for number in range(len(polled))]
        return score, len(polled)

    alone, all_passes = evaluate(ALONE)
    found = InThreads(COUNT).call(evaluate)
    assert [score for score, _ in found] == [alone] * COUNT
    parts = [part for _, part in found]
    assert sum(parts) == all_passes == len(store) and max(parts) < all_passes / 2


class Correlated:
    """An objective of sequences with a figure that is no mean over examples."""

    def losses(self, scores: SequenceScores) -> torch.Tensor:
        return (scores.values[:, 0, 0] - scores.by_example["score"]).square()

    def metrics(self, scores: SequenceScores) -> dict[str, torch.Tensor]:
        return {}

    def kept(self, scores: SequenceScores) -> dict[str, torch.Tensor]:
        return {"score": scores.values[:, 0, 0], "number": scores.by_example["score"]}

    def overall(self, kept: Mapping[str, torch.Tensor]) -> dict[str, float]:
        assert all(values.dtype is torch.float64 for values in kept.values())
        pair = torch.stack([kept["score"], kept["number"]])
        return {"pearson": torch.corrcoef(pair)[0, 1].item(), "nothing": math.nan}


def test_figures_of_all_examples_are_shared(network: LlamaForCausalLM, store: TokenStore) -> None:
    """Those of the records in their own order, whoever scored them."""
    torch.manual_seed(0)
    scorer = LlamaForSequenceClassification(network.config.__class__(**network.config.to_dict(), num_labels=1)).eval()
    scorer.config.pad_token_id = 0
    columns = {"score": np.linspace(-1, 1, len(store), dtype=np.float32)}
    judged = replace(store, by_example=columns)

    def evaluate(processes: Processes) -> StepScore:
        passes = Passes(12, False, torch.device("cpu"), processes)
        loss = HeadLoss(deepcopy(scorer), Correlated(), passes, OfSequences())
        return loss.evaluate(judged, passes.all_groups(judged), lambda done, every: None)

    alone = evaluate(ALONE)
    assert InThreads(COUNT).call(evaluate) == [alone] * COUNT
    with torch.no_grad():
        values = torch.cat([scorer(torch.from_numpy(example.ids)[None]).logits[0] for example in judged]).double()
    numbers = torch.from_numpy(columns["score"]).double()
    assert alone.metrics == {
        "pearson": pytest.approx(torch.corrcoef(torch.stack([values, numbers]))[0, 1].item(), abs=1e-5)
    }
    assert alone.loss == pytest.approx((values - numbers).square().mean().item(), rel=1e-5)


class OneLabel:
    """One label of a text, each of which weighs as it is told."""

    def losses(self, scores: SequenceScores) -> torch.Tensor:
        labels = scores.by_example["label"].long()
        return cross_entropy(scores.values[:, 0], labels, scores.label_weights, reduction="none")

    def metrics(self, scores: SequenceScores) -> dict[str, torch.Tensor]:
        return {}


class SeveralLabels(OneLabel):
    """Several labels of a text."""

    def losses(self, scores: SequenceScores) -> torch.Tensor:
        labels, weights = scores.by_example["labels"].float(), scores.label_weights
        return binary_cross_entropy_with_logits(scores.values[:, 0], labels, weights, reduction="none").mean(1)


@pytest.mark.parametrize("several", [False, True])
def test_weights_of_labels_are_the_same_for_every_process(
    several: bool, network: LlamaForCausalLM, store: TokenStore
) -> None:
    """Where a text has one, the mean is divided by the weights of all texts; else by their number."""
    scorer = LlamaForSequenceClassification(network.config.__class__(**network.config.to_dict(), num_labels=2)).eval()
    scorer.config.pad_token_id = 0
    sets = np.arange(2 * len(store), dtype=np.uint8).reshape(-1, 2) % 3 % 2
    column: dict[str, Any] = {"labels": sets} if several else {"label": sets[:, 0].astype(np.int32)}
    judged, weights = replace(store, by_example=column), [0.5, 4.0]

    def evaluate(processes: Processes) -> StepScore:
        passes = Passes(12, False, torch.device("cpu"), processes)
        objective = SeveralLabels() if several else OneLabel()
        loss = HeadLoss(deepcopy(scorer), objective, passes, OfSequences(weights))
        return loss.evaluate(judged, passes.all_groups(judged), lambda done, every: None)

    alone = evaluate(ALONE)
    assert InThreads(COUNT).call(evaluate) == [alone] * COUNT
    with torch.no_grad():
        values = torch.cat([scorer(torch.from_numpy(example.ids)[None]).logits for example in judged])
    known, row = torch.from_numpy(next(iter(column.values()))), torch.tensor(weights)
    due = (
        binary_cross_entropy_with_logits(values, known.float(), row)
        if several
        else cross_entropy(values, known.long(), row)
    )
    assert alone.loss == pytest.approx(due.item(), rel=1e-5)


class Tagged:
    """An objective of tokens with a figure that is no mean over them."""

    def losses(self, scores: TokenScores) -> torch.Tensor:
        return scores.summed(cross_entropy(scores.values, scores.tags, reduction="none"))

    def metrics(self, scores: TokenScores) -> dict[str, torch.Tensor]:
        return {}

    def kept(self, scores: TokenScores) -> dict[str, torch.Tensor]:
        return {"two": scores.summed(torch.stack([scores.tags, scores.values.argmax(1)], 1))}

    def overall(self, kept: Mapping[str, torch.Tensor]) -> dict[str, float]:
        place = torch.arange(1, len(kept["two"]) + 1)
        assert kept["two"].dtype is torch.int64
        return {"placed": float((place[:, None] * kept["two"]).sum())}


def test_what_is_kept_of_tokens_is_gathered_in_the_records_order(network: LlamaForCausalLM, store: TokenStore) -> None:
    torch.manual_seed(0)
    tagger = LlamaForTokenClassification(network.config.__class__(**network.config.to_dict(), num_labels=3)).eval()
    tags = (np.arange(len(store.ids)) % 3).astype(np.int32)
    examples = [replace(one, by_token={}, by_example={}) for one in store]
    starts = store.offsets[:-1].tolist()
    tagged = TokenStore.of(
        replace(one, by_token={TARGET: tags[start : start + len(one.ids)]})
        for start, one in zip(starts, examples, strict=True)
    )

    def evaluate(processes: Processes) -> StepScore:
        passes = Passes(12, False, torch.device("cpu"), processes)
        loss = HeadLoss(deepcopy(tagger), Tagged(), passes, OfTokens(["a", "b", "c"]))
        return loss.evaluate(tagged, passes.all_groups(tagged), lambda done, every: None)

    alone = evaluate(ALONE)
    assert alone.metrics["placed"] and InThreads(COUNT).call(evaluate) == [alone] * COUNT


def test_what_is_kept_is_gathered_for_figures_of_all_examples_alone(
    network: LlamaForCausalLM, store: TokenStore
) -> None:
    """A reward model has none: each process sends the losses of its examples alone."""
    scorer = LlamaForSequenceClassification(network.config.__class__(**network.config.to_dict(), num_labels=1)).eval()
    scorer.config.pad_token_id = 0
    plugin: Any = SimpleNamespace(label="plugin 'p'", distribution="p")
    registered: Any = SimpleNamespace(kind="objective", provider=SimpleNamespace(name="reward"), plugin=plugin)
    calls: list[None] = []

    class Counted(Passes):
        def gathered(self, *given: Any) -> Any:
            calls.append(None)
            return super().gathered(*given)

    def times(made: Any) -> int:
        def evaluate(processes: Processes) -> None:
            passes = Counted(12, False, torch.device("cpu"), processes)
            loss = HeadLoss(deepcopy(scorer), named_objective(made, registered), passes, OfSequences())
            loss.evaluate(judged, passes.all_groups(judged), lambda done, every: None)

        calls.clear()
        InThreads(2).call(evaluate)
        return len(calls)

    judged = replace(store, by_example={"score": np.linspace(-1, 1, len(store), dtype=np.float32)})
    reward = SimpleNamespace(losses=Correlated().losses, metrics=Correlated().metrics)
    assert (times(reward), times(Correlated())) == (2, 4)
