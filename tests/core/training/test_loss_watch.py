"""The rule of divergence, on courses of losses."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from graftkit.training.loss_watch import LossWatch


def first_wrong(losses: list[float], factor: float | None = 2.0, window: int = 10) -> int | None:
    watch = LossWatch(factor, window)
    return next((step for step, loss in enumerate(losses, 1) if watch.look(step, loss, 1.0)), None)


def noisy(course: np.ndarray, seed: int = 0) -> list[float]:
    noise: list[float] = (course * np.random.default_rng(seed).uniform(0.5, 1.5, len(course))).tolist()
    return noise


def test_losses_that_fall_stay_or_wander_are_not_taken_for_divergence() -> None:
    courses = {
        "falls": np.geomspace(3, 0.004, 300),
        "stays": np.full(300, 2.0),
        "is near zero and jumps": np.where(np.arange(300) % 40 == 39, 0.5, 0.01) + np.geomspace(3, 1e-3, 300),
        "warms up": np.concatenate([np.linspace(2, 2.5, 10), np.linspace(2.5, 1, 290)]),
    }
    for name, course in courses.items():
        assert first_wrong(noisy(course)) is None, name


def test_losses_that_rise_above_where_they_began_are_found_soon() -> None:
    course = np.concatenate([np.linspace(2.5, 1.5, 100), np.full(100, 8.0)])
    found = first_wrong(noisy(course))
    assert found is not None and 100 < found <= 110
    assert first_wrong(noisy(course), factor=None) is None


def test_the_last_good_step_is_that_before_the_lowest_mean() -> None:
    watch = LossWatch(2.0, 2)
    for step, loss in enumerate([2.0, 2.0, 1.0, 1.0, 1.5], 1):
        assert watch.look(step, loss, 1.0) == ""
    assert "diverged" in watch.look(6, 9.0, 1.0) and watch.good == 3


@pytest.mark.parametrize("seen", [0, 5, 30])
def test_another_that_takes_over_comes_to_the_same(seen: int) -> None:
    losses = noisy(np.concatenate([np.geomspace(3, 0.5, 60), np.full(40, 9.0)]))
    one, other = LossWatch(2.0, 10), LossWatch(2.0, 10)
    for step, loss in enumerate(losses[:seen], 1):
        one.look(step, loss, 1.0)
    other.load_state(json.loads(json.dumps(one.state(), allow_nan=False)))
    found = [
        [watch.look(step, loss, 1.0) for step, loss in enumerate(losses[seen:], seen + 1)] for watch in (one, other)
    ]
    assert found[0] == found[1] and any(found[0]) and one.good == other.good > 0


@pytest.mark.parametrize(("loss", "norm"), [(math.nan, 1.0), (math.inf, 1.0), (1.0, math.nan), (1.0, math.inf)])
def test_what_is_no_number_is_wrong_whatever_the_rule(loss: float, norm: float) -> None:
    watch = LossWatch(None, 10)
    assert "the loss is" in watch.look(5, loss, norm) and watch.good == 3
