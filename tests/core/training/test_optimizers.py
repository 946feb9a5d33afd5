"""What the optimizers keep, and how a run goes back to it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from graftkit.errors import TrainingError
from graftkit.recipe.schema.training import TrainingSection
from graftkit.store.fingerprint import derived_seed
from graftkit.training.optimizers import Optimizers, RowTraining
from graftkit.training.schedule import rate_of_step
from torch import nn

OPTIONS = TrainingSection(steps=4, learning_rate=0.1)
KINDS = ["adamw", "adamw-8bit", "sgd", "lion", "adafactor", "muon"]


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
    found = Optimizers(parameters, options, RowTraining(), {"b": 4.0}, hidden={"a"})
    for step in range(1, steps + 1):
        found.begin(step, 9)
        for name, gradient in gradients_of(step).items():
            parameters[name].grad = gradient
        found.step()
        found.forget_gradients()
        if step == stop:
            state = {name: tensor.clone() for name, tensor in found.state().items()}
            parameters = {name: nn.Parameter(torch.zeros_like(p)) for name, p in parameters.items()}
            found = Optimizers(parameters, options, RowTraining(), {"b": 4.0}, hidden={"a"})
            found.load_state(step, state)
    return parameters, {name: tensor.clone() for name, tensor in found.state().items()}, found


@pytest.mark.parametrize("optimizer", KINDS)
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


@pytest.mark.parametrize("optimizer", KINDS)
def test_a_change_is_counted_by_which_norms_are_known_to_be_old(optimizer: str) -> None:
    """As DoRA asks: an optimizer that writes past torch would leave it with the norms of the step before."""
    parameters, _, found = trained(optimizer, 1)
    for parameter in parameters.values():
        before = parameter._version
        parameter.grad = torch.ones_like(parameter)
        found.step()
        assert parameter._version > before


def gradients_of(step: int) -> dict[str, torch.Tensor]:
    """The gradients that `trained` gives its parameters in a step."""
    shapes = {"a": (64, 70), "b": (3, 5)}
    return {
        name: torch.randn(shape, generator=torch.Generator().manual_seed(10 * step + number))
        for number, (name, shape) in enumerate(shapes.items())
    }


def of_library(make: Callable[[list[dict[str, Any]]], torch.optim.Optimizer], steps: int) -> dict[str, torch.Tensor]:
    """Trains as `trained` does with a library's optimizer, at the rates of ours."""
    start, options = trained("sgd", 0)[0], TrainingSection(schedule="constant", learning_rate=0.01)
    theirs = make([{"params": [start["a"]]}, {"params": [start["b"]]}])
    for step in range(1, steps + 1):
        rate = rate_of_step(options, step, 9, 0.01)
        for group, scale in zip(theirs.param_groups, (1.0, 4.0), strict=True):
            group["lr"] = rate * scale
        for name, gradient in gradients_of(step).items():
            start[name].grad = gradient
        theirs.step()
    return {name: parameter.detach() for name, parameter in start.items()}


def test_lion_is_bitsandbytes_lion() -> None:
    from bitsandbytes.optim import Lion

    theirs = of_library(lambda groups: Lion(groups, lr=0.01, betas=(0.9, 0.99), weight_decay=0.1), 6)
    ours = trained("lion", 6)[0]
    for name, parameter in ours.items():
        torch.testing.assert_close(parameter.detach(), theirs[name], rtol=0, atol=1e-6)


def test_lion_is_its_papers_algorithm() -> None:
    """Written out in float64: algorithm 2."""
    ours, state, _ = trained("lion", 6)
    expected = trained("lion", 0)[0]["a"].detach().double()
    mean, options = torch.zeros_like(expected), TrainingSection(schedule="constant", learning_rate=0.01)
    for step in range(1, 7):
        gradient, rate = gradients_of(step)["a"].double(), rate_of_step(options, step, 9, 0.01)
        expected = expected - rate * (torch.sign(0.9 * mean + 0.1 * gradient) + 0.1 * expected)
        mean = 0.99 * mean + 0.01 * gradient
    torch.testing.assert_close(ours["a"].detach().double(), expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(state["exp_avg.a"].double(), mean, rtol=1e-5, atol=1e-7)


def test_adafactor_is_transformers_adafactor() -> None:
    """As its trainer makes it."""
    from transformers import Adafactor

    given: dict[str, Any] = {"lr": 0.01, "scale_parameter": False, "relative_step": False, "weight_decay": 0.1}
    theirs = of_library(lambda groups: Adafactor(groups, **given), 6)
    ours, state, _ = trained("adafactor", 6)
    for name, parameter in ours.items():
        torch.testing.assert_close(parameter.detach(), theirs[name], rtol=1e-5, atol=1e-6)
    assert [tuple(state[f"exp_avg_sq_{side}.a"].shape) for side in ("row", "col")] == [(64,), (70,)]


@pytest.mark.parametrize("shape", [(7,), (), (3, 4, 5)], ids=str)
def test_adafactor_of_a_vector_and_of_a_stack_is_transformers(shape: tuple[int, ...]) -> None:
    from graftkit.training.adafactor import Adafactor as Ours
    from transformers import Adafactor

    random = torch.Generator().manual_seed(1)
    start, gradients = torch.randn(shape, generator=random), [torch.randn(shape, generator=random) for _ in range(4)]
    found = []
    for make in (Ours, partial(Adafactor, scale_parameter=False, relative_step=False)):
        parameter = nn.Parameter(start.clone())
        optimizer = make([parameter], lr=0.1)  # type: ignore[operator]
        for number, gradient in enumerate(gradients):
            parameter.grad = gradient * (0 if number == 2 else 1)
            optimizer.step()
        found.append(parameter.detach())
    torch.testing.assert_close(found[0], found[1], rtol=1e-5, atol=1e-6)


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="this torch has no Muon")
def test_muon_is_torchs_muon_in_hidden_layers_and_adamw_elsewhere() -> None:
    import torch.optim as library

    ours, state, _ = trained("muon", 6)
    given: dict[str, Any] = {"lr": 0.01, "weight_decay": 0.1, "adjust_lr_fn": "match_rms_adamw"}
    theirs = of_library(lambda groups: library.Muon(groups, **given), 6)  # type: ignore[attr-defined]
    torch.testing.assert_close(ours["a"].detach(), theirs["a"], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(ours["b"], trained("adamw", 6)[0]["b"], rtol=1e-5, atol=1e-6)
    assert state.keys() == {
        *("parameter.a", "parameter.b", "momentum_buffer.a", "step.b", "exp_avg.b", "exp_avg_sq.b"),
    }


@pytest.mark.parametrize("shape", [(64, 8), (8, 64), (1, 9)], ids=str)
def test_a_step_of_muon_has_singular_values_of_one_size(shape: tuple[int, int]) -> None:
    """By its own definition, whatever the gradient's are; of no gradient there is no step."""
    from graftkit.training.muon import HIDDEN, Muon

    parameter = nn.Parameter(torch.zeros(shape))
    optimizer = Muon([{"params": [parameter], HIDDEN: True}], lr=1.0)
    parameter.grad = torch.zeros(shape)
    optimizer.step()
    assert not parameter.any()
    parameter.grad = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    optimizer.step()
    values = torch.linalg.svdvals(parameter.detach()) / (0.2 * max(shape) ** 0.5)
    assert 0.6 < float(values.min()) <= float(values.max()) < 1.3


def test_lion_keeps_the_mean_that_its_paper_says_unless_the_recipe_says_otherwise() -> None:
    assert TrainingSection(optimizer="lion").beta2 == 0.99 and TrainingSection().beta2 == 0.999
    assert TrainingSection(optimizer="lion", beta2=0.999).beta2 == 0.999


def test_a_checkpoint_of_another_optimizer_is_refused() -> None:
    _, state, _ = trained("sgd", 2)
    with pytest.raises(TrainingError, match="does not fit"):
        trained("adamw", 2)[2].load_state(2, state)
