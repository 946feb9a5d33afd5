"""Which examples a step sees: a pure function of the seed, the epoch and the examples' lengths."""

from __future__ import annotations

import subprocess
import sys
from itertools import chain, pairwise

import pytest
from graftkit.training.order import group_by_tokens, plan_steps, shuffled
from hypothesis import given
from hypothesis import strategies as st

_LENGTHS = st.lists(st.integers(1, 60), min_size=1, max_size=40)


@given(st.integers(0, 200), st.integers(0, 2**63 - 1), st.integers(0, 1000))
def test_an_epoch_is_every_example_once(examples: int, seed: int, epoch: int) -> None:
    assert sorted(shuffled(examples, seed, epoch)) == list(range(examples))


def test_the_order_is_the_same_in_every_process_and_release() -> None:
    assert shuffled(10, seed=0, epoch=0) == [8, 4, 1, 5, 0, 9, 2, 7, 3, 6]
    code = "from graftkit.training.order import shuffled; print(shuffled(50, 7, 3))"
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONHASHSEED": "5"}, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == str(shuffled(50, 7, 3))


def test_every_seed_and_epoch_has_an_order_of_its_own() -> None:
    orders = {tuple(shuffled(30, seed, epoch)) for seed in range(5) for epoch in range(5)}
    assert len(orders) == 25


def test_a_examples_place_among_others_does_not_depend_on_how_many_there_are() -> None:
    assert [example for example in shuffled(100, 3, 1) if example < 40] == shuffled(40, 3, 1)


def test_every_example_comes_first_about_equally_often() -> None:
    firsts = [shuffled(5, seed, 0)[0] for seed in range(2000)]
    assert all(abs(firsts.count(example) - 400) < 90 for example in range(5))


@given(_LENGTHS, st.integers(1, 80))
def test_no_group_has_more_tokens_than_the_limit_unless_one_example_alone_has(lengths: list[int], limit: int) -> None:
    examples = list(range(len(lengths)))
    groups = group_by_tokens(examples, lengths, limit)
    assert list(chain(*groups)) == examples
    assert all(len(group) == 1 or sum(lengths[example] for example in group) <= limit for group in groups)
    for group, after in pairwise(groups):
        assert sum(lengths[example] for example in group) + lengths[after[0]] > limit, (
            "the next example would have fitted in"
        )


def test_no_examples_make_no_groups_and_no_steps() -> None:
    assert group_by_tokens([], [], 5) == []
    assert plan_steps([], seed=0, tokens_per_step=5) == []
    assert plan_steps([], seed=0, tokens_per_step=5, steps=3) == []


@given(_LENGTHS, st.integers(0, 9), st.integers(1, 4), st.integers(8, 100))
def test_epochs_are_every_example_once_each(lengths: list[int], seed: int, epochs: int, limit: int) -> None:
    steps = plan_steps(lengths, seed=seed, tokens_per_step=limit, epochs=epochs)
    examples = list(chain(*steps))
    for epoch in range(epochs):
        assert examples[epoch * len(lengths) : (epoch + 1) * len(lengths)] == shuffled(len(lengths), seed, epoch)
    assert steps == plan_steps(lengths, seed=seed, tokens_per_step=limit, epochs=epochs)


@given(_LENGTHS, st.integers(0, 9), st.integers(1, 60), st.integers(8, 100))
def test_steps_continue_over_as_many_epochs_as_they_take(lengths: list[int], seed: int, steps: int, limit: int) -> None:
    found = plan_steps(lengths, seed=seed, tokens_per_step=limit, steps=steps)
    assert len(found) == steps
    assert found == plan_steps(lengths, seed=seed, tokens_per_step=limit, epochs=steps)[:steps]


def test_a_step_never_reaches_over_the_end_of_an_epoch() -> None:
    assert [len(step) for step in plan_steps([4, 4, 4], seed=0, tokens_per_step=8, epochs=2)] == [2, 1, 2, 1]


@pytest.mark.parametrize("epochs", [None, 1])
def test_one_epoch_is_what_silence_means(epochs: int | None) -> None:
    steps = plan_steps([3] * 10, seed=1, tokens_per_step=6, epochs=epochs)
    assert sorted(chain(*steps)) == list(range(10))
