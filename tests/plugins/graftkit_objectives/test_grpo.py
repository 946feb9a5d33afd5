"""Advantages of sampled answers."""

from __future__ import annotations

import pytest
import torch
from graftkit_objectives.config import GrpoConfig
from graftkit_objectives.grpo import Grpo


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
def test_answers_that_are_worth_the_same_have_no_advantage(scale: str) -> None:
    objective = Grpo(GrpoConfig.model_validate({"scale_rewards": scale, "group_size": 3}))
    found = objective.advantages(torch.tensor([[0.1, 0.1, 0.1], [0.0, 1.0, 0.2]]))
    assert not found[0].any() and found[1].all()
    assert not objective.advantages(torch.full((2, 3), 0.7)).any()
