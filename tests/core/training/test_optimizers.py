"""What the optimizers keep, and how a run goes back to it."""

from __future__ import annotations

import pytest
import torch
from graftkit.errors import TrainingError
from graftkit.recipe.schema import TrainingSection
from graftkit.store.fingerprint import derived_seed
from graftkit.training.optimizers import Optimizers, RowTraining
from torch import nn

OPTIONS = TrainingSection(steps=4, learning_rate=0.1)


def optimizers(*, steps: int = 0, idle: bool = True) -> tuple[Optimizers, dict[str, nn.Parameter]]:
    """Two parameters, of which one gets no gradient, as an expert that no token was sent to."""
    parameters = {"used": nn.Parameter(torch.ones(3)), "idle": nn.Parameter(torch.ones(2))}
    found = Optimizers(parameters, OPTIONS, RowTraining())
    for step in range(1, steps + 1):
        found.begin(step, 4)
        parameters["used"].grad = torch.full((3,), float(step))
        if not idle:
            parameters["idle"].grad = torch.ones(2)
        found.step()
        found.forget_gradients()
    return found, parameters


def test_a_parameter_that_never_got_a_gradient_is_resumed() -> None:
    stopped, _ = optimizers(steps=2)
    state = {name: tensor.clone() for name, tensor in stopped.state().items()}
    assert "exp_avg.used" in state and "exp_avg.idle" not in state
    resumed, parameters = optimizers()
    resumed.load_state(2, state)
    assert torch.equal(parameters["used"], state["parameter.used"])
    again = resumed.state()
    assert again.keys() == state.keys() and all(torch.equal(again[name], state[name]) for name in state)


def test_half_a_parameters_moments_are_refused() -> None:
    stopped, _ = optimizers(steps=2, idle=False)
    state = {name: tensor.clone() for name, tensor in stopped.state().items() if name != "exp_avg.idle"}
    with pytest.raises(TrainingError, match="exp_avg.idle"):
        optimizers()[0].load_state(2, state)


def test_moments_before_the_first_step_are_refused() -> None:
    stopped, _ = optimizers(steps=1)
    with pytest.raises(TrainingError, match="does not fit"):
        optimizers()[0].load_state(0, stopped.state())


def test_streams_of_different_purposes_never_share_a_seed() -> None:
    seeds = [derived_seed(seed, use, n) for seed in range(3) for use in ("dropout", "adapter") for n in range(200)]
    assert len(set(seeds)) == len(seeds) and all(0 <= seed < 2**63 for seed in seeds)
