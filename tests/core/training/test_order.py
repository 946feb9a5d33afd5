"""Which examples a step sees: a pure function of the seed, the epoch and the examples' lengths."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from fractions import Fraction
from itertools import chain, pairwise
from math import floor
from typing import Any

import pytest
from graftkit.training.order import (
    DatasetShare,
    Mixture,
    group_by_tokens,
    plan_steps,
    seen_in_epoch,
    shuffled,
    steps_of_epochs,
)
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


@pytest.mark.parametrize(("epochs", "steps"), [(0.5, 3), (0.01, 1), (1.0, 5), (1.2, 6), (2.5, 13)])
def test_a_part_of_an_epoch_is_its_first_steps(epochs: float, steps: int) -> None:
    given: Any = {"seed": 1, "tokens_per_step": 6}
    assert plan_steps([3] * 10, epochs=epochs, **given) == plan_steps([3] * 10, epochs=3, **given)[:steps]


@pytest.mark.parametrize(("epochs", "steps"), [(1.1, 11), (2.1, 21), (0.07, 1), (0.3, 3), (8.2, 82)])
def test_a_part_that_is_a_whole_number_of_steps_is_not_rounded_up(epochs: float, steps: int) -> None:
    """In binary 2.1 - 2 is more than a tenth."""
    assert len(plan_steps([3] * 10, seed=1, tokens_per_step=3, epochs=epochs)) == steps == steps_of_epochs(epochs, 10)


@pytest.mark.parametrize("epochs", [None, 1])
def test_one_epoch_is_what_silence_means(epochs: int | None) -> None:
    steps = plan_steps([3] * 10, seed=1, tokens_per_step=6, epochs=epochs)
    assert sorted(chain(*steps)) == list(range(10))


_WEIGHTS = st.sampled_from(["0.001", "0.1", "0.3", "0.5", "0.7", "1", "1.5", "2", "3.25"]).map(Fraction)
_SHARES = st.lists(st.builds(DatasetShare, st.integers(0, 25), _WEIGHTS), min_size=1, max_size=4)


@st.composite
def _mixtures(draw: st.DrawFn) -> Mixture:
    """Data sets whose records have no, one or several examples each."""
    shares = draw(_SHARES)
    total = sum(share.records for share in shares)
    counts = draw(st.lists(st.integers(0, 3), min_size=total, max_size=total))
    return Mixture(shares, [record for record, count in enumerate(counts) for _ in range(count)])


@given(_SHARES, st.integers(0, 9), st.integers(1, 12))
def test_the_records_of_a_data_set_are_seen_as_often_as_its_weight_says(
    shares: list[DatasetShare], seed: int, epochs: int
) -> None:
    for number, share in enumerate(shares):
        seen = [seen_in_epoch(share, seed, epoch, number) for epoch in range(epochs)]
        for epoch, times in enumerate(seen):
            most = floor((epoch + 1) * share.weight * share.records) - floor(epoch * share.weight * share.records)
            assert sum(times) == most
        totals = [sum(of) for of in zip(*seen, strict=True)]
        assert sum(totals) == share.seen(epochs) == floor(epochs * share.weight * share.records)
        assert not totals or max(totals) - min(totals) <= 1


def test_a_half_is_another_half_in_the_next_epoch_and_twice_is_twice() -> None:
    first, second, third = (seen_in_epoch(DatasetShare(10, Fraction("0.5")), 3, epoch, 0) for epoch in range(3))
    assert sum(first) == 5 and [a + b for a, b in zip(first, second, strict=True)] == [1] * 10
    assert sum(third) == 5 and third != first
    assert seen_in_epoch(DatasetShare(4, Fraction(2)), 3, 1, 0) == [2] * 4
    tenths = [seen_in_epoch(DatasetShare(10, Fraction("0.7")), 3, epoch, 0) for epoch in range(10)]
    assert [sum(of) for of in zip(*tenths, strict=True)] == [7] * 10


@given(_mixtures(), st.integers(0, 9), st.integers(1, 5), st.integers(8, 100))
def test_an_epoch_of_a_mixture_is_the_examples_of_the_records_that_it_sees(
    mixture: Mixture, seed: int, epochs: int, limit: int
) -> None:
    lengths = [1 + example % 7 for example in range(len(mixture.records))]
    expected: Counter[int] = Counter()
    for epoch in range(epochs):
        times = [
            seen for number, share in enumerate(mixture.shares) for seen in seen_in_epoch(share, seed, epoch, number)
        ]
        expected.update({example: times[record] for example, record in enumerate(mixture.records)})
        steps = plan_steps(lengths, seed=seed, tokens_per_step=limit, epochs=epoch + 1, mixture=mixture)
        assert Counter(chain(*steps)) == +expected
        assert (
            steps == plan_steps(lengths, seed=seed, tokens_per_step=limit, epochs=epochs, mixture=mixture)[: len(steps)]
        )


@given(_LENGTHS, st.integers(0, 9), st.integers(1, 4))
def test_weights_of_one_are_no_mixture(lengths: list[int], seed: int, epochs: int) -> None:
    mixture = Mixture([DatasetShare(len(lengths))], range(len(lengths)))
    plain = plan_steps(lengths, seed=seed, tokens_per_step=50, epochs=epochs)
    assert plan_steps(lengths, seed=seed, tokens_per_step=50, epochs=epochs, mixture=mixture) == plain


def test_a_mixture_goes_on_over_epochs_that_see_nothing() -> None:
    mixture = Mixture([DatasetShare(1, Fraction("0.25"))], [0])
    assert plan_steps([5], seed=0, tokens_per_step=8, epochs=3, mixture=mixture) == []
    assert plan_steps([5], seed=0, tokens_per_step=8, steps=2, mixture=mixture) == [[0], [0]]


def test_a_mixture_is_the_same_in_every_process_and_release() -> None:
    mixture = Mixture([DatasetShare(4, Fraction("0.5")), DatasetShare(3, Fraction(2))], range(7))
    steps = plan_steps([1] * 7, seed=0, tokens_per_step=50, epochs=2, mixture=mixture)
    assert steps == [[5, 4, 1, 6, 5, 0, 4, 6], [2, 4, 5, 6, 6, 3, 4, 5]]
