"""How the learning rate rises and falls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from graftkit.recipe.schema.training import Schedule, TrainingSection
from graftkit.training.schedule import learning_rate, rate_of_step, warmup_steps
from hypothesis import given
from hypothesis import strategies as st

_FALLING: list[Schedule] = ["cosine", "linear", "constant", "wsd", "polynomial", "inverse_sqrt"]
_SCHEDULES: list[Schedule] = [*_FALLING, "cosine_with_restarts"]


def rates(steps: int, warmup: int, schedule: Schedule, peak: float = 1.0, min_lr_ratio: float = 0.0) -> list[float]:
    given: Any = {"peak": peak, "warmup": warmup, "schedule": schedule, "min_lr_ratio": min_lr_ratio}
    return [learning_rate(step, steps, **given) for step in range(1, steps + 1)]


@pytest.mark.parametrize(
    ("steps", "share", "expected"),
    [(100, 0.05, 5), (100, 0, 0), (100, 0.001, 1), (1, 0.05, 1), (28, 0.05, 1), (50, 0.5, 25), (3, 1.0, 3)],
)
def test_a_share_of_the_steps_warms_up_at_least_one(steps: int, share: float, expected: int) -> None:
    assert warmup_steps(steps, share) == expected


@pytest.mark.parametrize(("steps", "said", "expected"), [(100, 20, 20), (100, 1, 1), (10, 20, 10), (10, 0, 0)])
def test_steps_that_are_said_take_the_place_of_the_share(steps: int, said: int, expected: int) -> None:
    assert warmup_steps(steps, 0.5, said) == expected


def test_the_warm_up_is_a_straight_line_to_the_peak() -> None:
    assert rates(10, 4, "cosine", peak=0.2)[:5] == pytest.approx([0.05, 0.1, 0.15, 0.2, 0.2])


def test_the_rate_halves_half_way_and_ends_near_zero() -> None:
    for schedule in ("cosine", "linear"):
        found = rates(101, 1, schedule)
        assert found[0] == found[1] == 1.0
        assert found[51] == pytest.approx(0.5)
        assert 0 < found[-1] < 0.02


def test_a_constant_rate_stays() -> None:
    assert rates(10, 2, "constant", peak=0.1) == pytest.approx([0.05, *[0.1] * 9])


@pytest.mark.parametrize("schedule", _SCHEDULES)
def test_without_a_warm_up_the_first_step_has_the_peak(schedule: Schedule) -> None:
    assert rates(8, 0, schedule)[0] == 1.0
    assert rates(1, 0, schedule) == [1.0]
    assert rates(1, 1, schedule) == [1.0]


@given(st.integers(1, 200), st.floats(0, 1), st.sampled_from(_FALLING))
def test_the_rate_rises_to_the_peak_then_never_rises_again(steps: int, share: float, schedule: Schedule) -> None:
    warmup = warmup_steps(steps, share)
    found = rates(steps, warmup, schedule, peak=3e-4)
    top = max(warmup - 1, 0)
    assert found[top] == max(found) == 3e-4
    assert found[: top + 1] == sorted(found[: top + 1])
    assert found[top:] == sorted(found[top:], reverse=True)
    assert all(rate > 0 for rate in found)


def of_transformers(schedule: str, steps: int, warmup: int, given: dict[str, Any]) -> Callable[[int], float]:
    """Returns transformers' share of the highest rate after so many steps."""
    import torch
    from transformers import get_scheduler

    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.3)
    found: Callable[[int], float] = get_scheduler(
        schedule, optimizer, num_warmup_steps=warmup, num_training_steps=steps, scheduler_specific_kwargs=given
    ).lr_lambdas[0]
    return found


@pytest.mark.parametrize(("steps", "warmup"), [(40, 4), (40, 0), (7, 2), (3, 1)])
@pytest.mark.parametrize(
    ("said", "theirs", "given"),
    [
        ({"schedule": "cosine"}, "cosine", {}),
        ({"schedule": "linear"}, "linear", {}),
        ({"schedule": "cosine", "min_lr_ratio": 0.0}, "cosine_with_min_lr", {"min_lr_rate": 0.0}),
        ({"schedule": "cosine", "min_lr_ratio": 0.1}, "cosine_with_min_lr", {"min_lr_rate": 0.1}),
        ({"schedule": "cosine", "min_lr_ratio": 1.0}, "cosine_with_min_lr", {"min_lr_rate": 1.0}),
        ({"schedule": "cosine_with_restarts", "cycles": 1}, "cosine_with_restarts", {}),
        ({"schedule": "cosine_with_restarts"}, "cosine_with_restarts", {"num_cycles": 2}),
        ({"schedule": "cosine_with_restarts", "cycles": 5}, "cosine_with_restarts", {"num_cycles": 5}),
        ({"schedule": "polynomial", "min_lr_ratio": 1e-7 / 0.3}, "polynomial", {}),
        ({"schedule": "polynomial", "power": 2.5}, "polynomial", {"power": 2.5, "lr_end": 0.0}),
        ({"schedule": "polynomial", "power": 0.5, "min_lr_ratio": 0.1}, "polynomial", {"power": 0.5, "lr_end": 0.03}),
        ({"schedule": "inverse_sqrt"}, "inverse_sqrt", {}),
        ({"schedule": "inverse_sqrt", "timescale": 3}, "inverse_sqrt", {"timescale": 3}),
        ({"schedule": "inverse_sqrt", "timescale": 500}, "inverse_sqrt", {"timescale": 500}),
    ],
)
def test_it_falls_as_transformers_schedules_do(
    steps: int, warmup: int, said: dict[str, Any], theirs: str, given: dict[str, Any]
) -> None:
    """Theirs starts the warm-up at 0, a step that learns nothing; from the peak on both are the same, a step later."""
    share = of_transformers(theirs, steps, warmup, given)
    ours = [learning_rate(step, steps, peak=1.0, warmup=warmup, **said) for step in range(1, steps + 1)]
    assert ours[:warmup] == pytest.approx([share(step) for step in range(1, warmup + 1)])
    assert ours[warmup:] == pytest.approx([share(step) for step in range(warmup, steps)])


def test_a_recipe_says_all_that_a_schedule_goes_by() -> None:
    said: dict[str, dict[str, Any]] = {
        "wsd": {"decay": 0.5, "decay_type": "1-sqrt", "min_lr_ratio": 0.1},
        "cosine_with_restarts": {"cycles": 3},
        "polynomial": {"power": 3.0},
        "inverse_sqrt": {"timescale": 7},
    }
    for schedule, more in said.items():
        options = TrainingSection.model_validate({"schedule": schedule, "warmup_steps": 3, **more})
        expected = [learning_rate(step, 20, peak=0.1, warmup=3, schedule=schedule, **more) for step in range(1, 21)]  # type: ignore[arg-type]
        assert [rate_of_step(options, step, 20, 0.1) for step in range(1, 21)] == expected


@pytest.mark.parametrize("curve", ["linear", "cosine", "1-sqrt"])
@pytest.mark.parametrize(
    ("steps", "warmup", "decay", "falling"), [(40, 4, 0.25, 10), (40, 0, 1.0, 40), (20, 2, 0.01, 1)]
)
def test_it_stays_and_falls_at_the_end_as_transformers_does(
    steps: int, warmup: int, decay: float, falling: int, curve: Any
) -> None:
    given = {"num_decay_steps": falling, "decay_type": curve, "min_lr_ratio": 0.1}
    share = of_transformers("warmup_stable_decay", steps, warmup, given)
    said: Any = {"schedule": "wsd", "min_lr_ratio": 0.1, "decay": decay, "decay_type": curve}
    ours = [learning_rate(step, steps, peak=1.0, warmup=warmup, **said) for step in range(1, steps + 1)]
    assert ours[warmup:] == pytest.approx([share(step) for step in range(warmup, steps)])
    assert ours[steps - falling] == 1.0


def test_it_never_falls_in_the_warm_up() -> None:
    found = [learning_rate(step, 10, peak=1.0, warmup=6, schedule="wsd", decay=0.9) for step in range(1, 11)]
    assert found == pytest.approx([1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6, 1.0, 1.0, 0.75, 0.5, 0.25])


def test_a_straight_line_falls_to_a_share() -> None:
    assert rates(4, 0, "linear", min_lr_ratio=0.2) == pytest.approx([1.0, 0.8, 0.6, 0.4])
