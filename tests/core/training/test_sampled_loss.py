"""How the answers of a step are made."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from graftkit.errors import LogitsError, ModelError, TrainingError
from graftkit.interfaces.objective_config import SampledConfig
from graftkit.model.generate import SampledAnswer
from graftkit.model.sampling import Sampling
from graftkit.store.fingerprint import derived_seed
from graftkit.store.token_store import Example, TokenStore
from graftkit.training import sampled_loss
from graftkit.training.sampled_batch import SampledBatch
from graftkit.training.sampled_loss import Asked, SampledLoss, SamplingPlan
from graftkit.training.step_loss import Passes, StepCalls, StepScore


class Unlearnt:
    """An objective that learns of no answer."""

    def advantages(self, rewards: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(rewards)


@pytest.mark.parametrize("side_by_side,calls", [(64, [10]), (5, [5, 5]), (2, [2, 2, 1, 2, 2, 1]), (1, [1] * 10)])
def test_no_more_answers_are_made_side_by_side_than_asked(
    side_by_side: int, calls: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even of one prompt; each answer is drawn by its own seed, whatever is made with it."""
    seen: list[list[int]] = []

    def sampled(network: Any, prompts: Any, seeds: Sequence[Sequence[int]], **options: Any) -> list[Any]:
        assert options["sampling"] == Sampling(0.8, top_k=3, top_p=1.0, min_p=0.1, repetition_penalty=1.2)
        seen.append([seed for each in seeds for seed in each])
        return [[SampledAnswer([seed % 7, 2], ended=True) for seed in each] for each in seeds]

    monkeypatch.setattr(sampled_loss, "sample_answers", sampled)
    given: list[list[int]] = [[], []]

    def score(place: int, ids: Sequence[int]) -> dict[str, float]:
        given[place].append(ids[0])
        return {"": 0.0}

    asked = [Asked([3, 4], partial(score, place)) for place in (0, 1)]
    config = SampledConfig(group_size=5, max_new_tokens=4, temperature=0.8, top_k=3, min_p=0.1, repetition_penalty=1.2)
    sampling = SamplingPlan(config, lambda store, numbers: asked, [2], 100, side_by_side, 0)
    loss: Any = SampledLoss(torch.nn.Linear(1, 1), Unlearnt(), Passes(64, True, torch.device("cpu")), sampling)  # type: ignore[arg-type]
    store = TokenStore.of(Example(np.array([3, 4, 5]), np.ones(3, np.float32), 2) for _ in asked)
    loss.backward(store, [[0, 1]], StepCalls(seed_pass=lambda group, place: torch.manual_seed(1)))
    assert [len(seeds) for seeds in seen] == calls
    every = [seed for seeds in seen for seed in seeds]
    assert len({*every}) == 10 and given == [[seed % 7 for seed in every[:5]], [seed % 7 for seed in every[5:]]]
    torch.manual_seed(1)
    first = int(torch.randint(2**62, ()))
    assert every == [derived_seed(first, "answer", f"{place}:{number}") for place in (0, 1) for number in range(5)]


def test_rewards_keep_what_they_differ_by_beside_what_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a number of bytes or a time: in single precision all of these are the same."""
    given: list[torch.Tensor] = []

    class Seen(Unlearnt):
        def advantages(self, rewards: torch.Tensor) -> torch.Tensor:
            given.append(rewards)
            return super().advantages(rewards)

    def sampled(network: Any, prompts: Any, seeds: Sequence[Sequence[int]], **options: Any) -> list[Any]:
        return [[SampledAnswer([number, 2], ended=True) for number, _ in enumerate(each)] for each in seeds]

    monkeypatch.setattr(sampled_loss, "sample_answers", sampled)
    asked = [Asked([3, 4], lambda ids: {"": 1e9 + ids[0] / 8})]
    sampling = SamplingPlan(SampledConfig(group_size=3), lambda store, numbers: asked, [2], 100, 64, 0)
    loss: Any = SampledLoss(torch.nn.Linear(1, 1), Seen(), Passes(64, True, torch.device("cpu")), sampling)  # type: ignore[arg-type]
    loss.backward(TokenStore.of([Example(np.array([3, 4, 5]), np.ones(3, np.float32), 2)]), [[0]], StepCalls())
    assert [(rewards - 1e9).tolist() for rewards in given] == [[[0.0, 0.125, 0.25]]]


@pytest.mark.parametrize("error", [LogitsError("no finite numbers"), ModelError("what else is wrong with the model")])
def test_answers_that_end_in_no_numbers_leave_no_loss(error: ModelError, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where those to a prompt are made a few at a time, and the first ones are whole, too; other errors are told."""
    made: list[int] = []

    def sampled(network: Any, prompts: Any, seeds: Sequence[Sequence[int]], **options: Any) -> list[Any]:
        made.append(len(seeds[0]))
        if len(made) == 2:
            raise error
        return [[SampledAnswer([5, 2], ended=True) for _ in each] for each in seeds]

    monkeypatch.setattr(sampled_loss, "sample_answers", sampled)
    asked = [Asked([3, 4], lambda ids: {"": 1.0}) for _ in range(2)]
    sampling = SamplingPlan(SampledConfig(group_size=5), lambda store, numbers: asked, [2], 100, 3, 0)
    loss: Any = SampledLoss(torch.nn.Linear(1, 1), Unlearnt(), Passes(64, True, torch.device("cpu")), sampling)  # type: ignore[arg-type]
    store = TokenStore.of(Example(np.array([3, 4, 5]), np.ones(3, np.float32), 2) for _ in asked)

    def taken() -> StepScore:
        step: StepScore = loss.backward(store, [[0, 1]], StepCalls())
        return step

    if not isinstance(error, LogitsError):
        with pytest.raises(ModelError, match="what else is wrong"):
            taken()
        return
    score = taken()
    assert made == [3, 2, 3, 2] and math.isnan(score.loss)


def test_answers_that_further_steps_learn_from_outlast_a_stop() -> None:
    """As a checkpoint keeps them; of a damaged one it is said."""
    old, told = {"old": np.array([0, -1, -2.5])}, {"advantage": np.float32(1), "mean_tokens": np.float32(2)}
    examples = [Example(np.array([3, 4, 5]), np.array([0, 1, 1], np.float32), 1, old, told)] * 2
    score = StepScore(-0.5, 12, 8, {"reward": 0.5}, [0.5, -1.5])
    for kept in (SampledBatch(TokenStore.of(examples), 4, score), SampledBatch(TokenStore.of([]), 4, score)):
        found = SampledBatch.from_state(kept.state(), 6)
        assert (found.count, found.score, len(found.store)) == (4, score, len(kept.store))
        for ours, theirs in zip(found.store, kept.store, strict=True):
            assert ours.ids.tolist() == theirs.ids.tolist() and ours.prompt_length == theirs.prompt_length
            assert ours.loss_weight.tolist() == [0, 1, 1] and ours.by_token["old"].tolist() == [0, -1, -2.5]
    with pytest.raises(TrainingError, match="has not the sampled answers"):
        SampledBatch.from_state({}, 6)
