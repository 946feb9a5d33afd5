"""Sampled answers that a checkpoint keeps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from graftkit.errors import TrainingError
from graftkit.interfaces.scores import ADVANTAGE, MEAN_TOKENS
from graftkit.store.token_store import Example, TokenStore
from graftkit.training.sampled_batch import SampledBatch
from graftkit.training.step_loss import OLD, StepScore


def batch() -> SampledBatch:
    ids, old = np.array([5, 6, 7]), np.array([0, -1, -2], np.float32)
    told = {ADVANTAGE: np.float32(1), MEAN_TOKENS: np.float32(2)}
    example = Example(ids, np.array([0, 1, 1], np.float32), 1, {OLD: old}, told)
    return SampledBatch(TokenStore.of([example]), 4, StepScore(-1.0, 3, 2, {"reward": 1.0}, [-1.0]))


@pytest.mark.parametrize("left_out", [f"by_token.{OLD}", f"by_example.{ADVANTAGE}", f"by_example.{MEAN_TOKENS}", "ids"])
def test_answers_of_which_a_part_is_missing_are_refused(left_out: str) -> None:
    """Without the log-probabilities of the model that sampled them, the loss would be another one."""
    state = batch().state()
    del state[left_out]
    with pytest.raises(TrainingError, match="has not the sampled answers"):
        SampledBatch.from_state(state, 8)


def test_damaged_answers_are_refused() -> None:
    state = batch().state()
    deep = torch.frombuffer(bytearray(b"[" * 100_000), dtype=torch.uint8)
    assert len(SampledBatch.from_state(state, 8).store) == 1
    for damage in (
        {"about": deep},
        {"offsets": state["offsets"] * 7},
        {"offsets": state["offsets"][:1]},
        {"ids": state["ids"] + 1},
        {"ids": -state["ids"]},
        {"prompt_lengths": state["prompt_lengths"] + 3},
    ):
        with pytest.raises(TrainingError, match="has not the sampled answers"):
            SampledBatch.from_state({**state, **damage}, 8)
