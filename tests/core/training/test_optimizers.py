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


def scaled(scales: dict[str, float] | None, *, resume: bool = False) -> tuple[list[list[int]], dict[str, torch.Tensor]]:
    """Takes four steps; returns the groups of AdamW, as sizes, and the state. With `resume` it stops after two."""
    parameters = {name: nn.Parameter(torch.ones(size)) for name, size in (("a", 3), ("b", 2), ("c", 4))}
    found = Optimizers(parameters, OPTIONS, RowTraining(), scales)
    for step in range(1, 5):
        if resume and step == 3:
            state = {name: tensor.clone() for name, tensor in found.state().items()}
            found = Optimizers(parameters, OPTIONS, RowTraining(), scales)
            found.load_state(2, state)
        found.begin(step, 4)
        for parameter in parameters.values():
            parameter.grad = torch.linspace(0.1, step, parameter.numel())
        found.clip()
        found.step()
        found.forget_gradients()
    groups = [[p.numel() for p in group["params"]] for group in found._of_adapter.param_groups]
    return groups, {name: tensor.detach().clone() for name, tensor in found.state().items()}


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_rates_that_are_not_scaled_leave_groups_and_bits_as_they_are() -> None:
    groups, state = scaled(None)
    assert groups == [[3, 2, 4]]
    for scales in ({}, {"a": 1.0, "b": 1.0, "c": 1.0}):
        again, found = scaled(scales)
        assert again == groups and same(found, state)


def test_a_scaled_rate_moves_its_own_parameter_alone_and_is_resumed() -> None:
    _, plain = scaled(None)
    groups, state = scaled({"b": 4.0})
    assert groups == [[3, 4], [2]]
    assert torch.equal(state["parameter.a"], plain["parameter.a"])
    torch.testing.assert_close(1 - state["parameter.b"], 4 * (1 - plain["parameter.b"]))
    assert same(scaled({"b": 4.0}, resume=True)[1], state)
