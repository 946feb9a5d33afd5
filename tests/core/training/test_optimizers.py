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


def test_weight_decay_is_of_all_but_new_rows_and_of_biases_too() -> None:
    parameters = {"layer.bias": nn.Parameter(torch.ones(3)), "rows": nn.Parameter(torch.ones(2, 2))}
    options = TrainingSection(steps=1, learning_rate=0.1, warmup=0.0, weight_decay=0.5)
    found = Optimizers(parameters, options, RowTraining(frozenset({"rows"})))
    found.begin(1, 1)
    for parameter in parameters.values():
        parameter.grad = torch.zeros_like(parameter)
    found.step()
    assert parameters["layer.bias"].tolist() == pytest.approx([0.95] * 3)
    assert parameters["rows"].tolist() == [[1.0, 1.0]] * 2


def test_half_a_parameters_moments_are_refused() -> None:
    stopped, _ = optimizers(steps=2, idle=False)
    state = {name: tensor.clone() for name, tensor in stopped.state().items() if name != "exp_avg.idle"}
    with pytest.raises(TrainingError, match="exp_avg.idle"):
        optimizers()[0].load_state(2, state)


@pytest.mark.parametrize("name", ["parameter.used", "exp_avg.used", "exp_avg_sq.used"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.int32])
def test_a_state_of_another_type_is_refused(name: str, dtype: torch.dtype) -> None:
    state = {key: tensor.clone() for key, tensor in optimizers(steps=2)[0].state().items()}
    with pytest.raises(TrainingError, match=f"{name} has numbers of the type {dtype}"):
        optimizers()[0].load_state(2, {**state, name: state[name].to(dtype)})


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


def trained(
    optimizer: str, steps: int, *, stop: int = 0
) -> tuple[dict[str, nn.Parameter], dict[str, torch.Tensor], Optimizers]:
    """Trains a large and a small matrix; with `stop` another optimizer goes on from the state after so many steps."""
    options = TrainingSection.model_validate(
        {"steps": 9, "learning_rate": 0.01, "weight_decay": 0.1, "optimizer": optimizer, "schedule": "constant"}
    )
    random = torch.Generator().manual_seed(0)
    parameters = {
        name: nn.Parameter(torch.randn(shape, generator=random)) for name, shape in (("a", (64, 70)), ("b", (3, 5)))
    }
    found = Optimizers(parameters, options, RowTraining(), {"b": 4.0})
    for step in range(1, steps + 1):
        found.begin(step, 9)
        for number, parameter in enumerate(parameters.values()):
            parameter.grad = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(10 * step + number))
        found.step()
        found.forget_gradients()
        if step == stop:
            state = {name: tensor.clone() for name, tensor in found.state().items()}
            parameters = {name: nn.Parameter(torch.zeros_like(p)) for name, p in parameters.items()}
            found = Optimizers(parameters, options, RowTraining(), {"b": 4.0})
            found.load_state(step, state)
    return parameters, {name: tensor.clone() for name, tensor in found.state().items()}, found


@pytest.mark.parametrize("optimizer", ["adamw", "adamw-8bit", "sgd"])
def test_each_goes_on_bit_for_bit_from_what_it_keeps(optimizer: str) -> None:
    _, state, _ = trained(optimizer, 6)
    assert same(trained(optimizer, 6, stop=3)[1], state)
    assert not same(trained(optimizer, 5)[1], state)


def test_moments_in_8_bits_are_stored_so_and_stay_near_those_in_32() -> None:
    """Of a large parameter; a small one's stay as they are, and its steps are AdamW's."""
    exact, short = trained("adamw", 6)[0], trained("adamw-8bit", 6)
    assert short[1]["state1.a"].dtype == torch.uint8 and short[1]["state1.b"].dtype == torch.float32
    torch.testing.assert_close(short[0]["b"], exact["b"], rtol=1e-5, atol=1e-6)
    moved = (exact["a"] - trained("adamw", 0)[0]["a"]).norm()
    off = (short[0]["a"] - exact["a"]).norm()
    assert 0 < off < 0.05 * moved


def test_in_8_bits_a_step_is_what_the_levels_say() -> None:
    """Computed here from the stored levels, block by block, and from bitsandbytes' published map."""
    import bitsandbytes.functional as bnb

    parameters, state, found = trained("adamw-8bit", 3)
    before, grad = parameters["a"].detach().clone(), torch.randn(64, 70, generator=torch.Generator().manual_seed(99))
    maps = {"1": bnb.create_dynamic_map(signed=True), "2": bnb.create_dynamic_map(signed=False)}

    def moment(number: str) -> torch.Tensor:
        levels = maps[number][state[f"state{number}.a"].long().flatten()]
        scales = state[f"absmax{number}.a"].repeat_interleave(256)[: levels.numel()]
        return (levels * scales).view(64, 70)

    first, second = 0.9 * moment("1") + 0.1 * grad, 0.999 * moment("2") + 0.001 * grad.square()
    rate = found.begin(4, 9)
    size = (second / (1 - 0.999**4)).sqrt() + 1e-8
    expected = before * (1 - rate * 0.1) - rate * (first / (1 - 0.9**4)) / size
    parameters["a"].grad = grad
    found.step()
    torch.testing.assert_close(parameters["a"].detach(), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("optimizer", ["adamw", "adamw-8bit", "sgd"])
def test_a_change_is_counted_by_which_norms_are_known_to_be_old(optimizer: str) -> None:
    """As DoRA asks: an optimizer that writes past torch would leave it with the norms of the step before."""
    parameters, _, found = trained(optimizer, 1)
    for parameter in parameters.values():
        before = parameter._version
        parameter.grad = torch.ones_like(parameter)
        found.step()
        assert parameter._version > before


def test_a_checkpoint_of_another_optimizer_is_refused() -> None:
    _, state, _ = trained("sgd", 2)
    with pytest.raises(TrainingError, match="does not fit"):
        trained("adamw", 2)[2].load_state(2, state)
