"""Rows made of the rows of a token's parts are what a loop over the parts computes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from graftkit.errors import RecipeError
from graftkit.testing.contracts.base import choose
from graftkit_initializers.config import RandomConfig, WeightedConfig
from graftkit_initializers.mean import Mean
from graftkit_initializers.random_rows import Random
from graftkit_initializers.weighted import Weighted
from hypothesis import given
from hypothesis import strategies as st

PARTS = st.lists(st.lists(st.integers(0, 19), max_size=9), max_size=12)
COMMON = [(3,), (3, 4), (1, 2, 3), (7, 7), ()]


def by_hand(new: Any, shares: Any) -> Any:
    """Adds up row by row in double precision."""
    weight = new.weight.numpy().astype(np.float64)
    average = weight[: new.base.vocab_size].mean(0)
    rows = [
        sum((s * weight[part] for s, part in zip(shares(len(parts)), parts, strict=True)), 0 * average)
        if parts
        else average
        for parts in new.parts
    ]
    return np.array(rows).reshape(len(new.parts), weight.shape[1])


@given(parts=PARTS, spare=st.integers(0, 3))
def test_the_mean_is_that_of_the_parts_and_of_all_known_rows_where_there_are_none(
    new_rows: Any, parts: list[list[int]], spare: int
) -> None:
    new = new_rows(parts, spare=spare)
    np.testing.assert_allclose(Mean().rows(new), by_hand(new, lambda n: [1 / n] * n), atol=1e-6)


def test_one_part_is_its_row_bit_for_bit(new_rows: Any) -> None:
    new = new_rows([(5,), (0,)])
    for maker in (Mean(), Weighted(), Weighted(WeightedConfig(ratio=0.1, end="first"))):
        assert torch.equal(maker.rows(new), new.weight[[5, 0]])


@given(parts=PARTS, ratio=st.floats(0.01, 1), end=st.sampled_from(["first", "last", "both"]))
def test_weights_fall_from_the_end_by_the_ratio(new_rows: Any, parts: list[list[int]], ratio: float, end: Any) -> None:
    def falling(count: int) -> list[float]:
        steps = [ratio**place for place in range(count)]
        return [step / sum(steps) for step in steps]

    expected = {
        "first": falling,
        "last": lambda n: falling(n)[::-1],
        "both": lambda n: [(a + b) / 2 for a, b in zip(falling(n), falling(n)[::-1], strict=True)],
    }[end]
    new = new_rows(parts)
    found = Weighted(WeightedConfig(ratio=ratio, end=end)).rows(new)
    np.testing.assert_allclose(found, by_hand(new, expected), atol=1e-6)


@pytest.mark.parametrize(("role", "end"), [("input", "last"), ("output", "first"), ("tied", "both")])
def test_the_part_that_leads_depends_on_what_the_matrix_is_for(new_rows: Any, role: Any, end: Any) -> None:
    new = new_rows(COMMON, role=role)
    rows = Weighted().rows(new)
    assert torch.equal(rows, Weighted(WeightedConfig(end=end)).rows(new))
    others = {"first", "last", "both"} - {end}
    assert not any(torch.equal(rows, Weighted(WeightedConfig(end=other)).rows(new)) for other in others)  # type: ignore[arg-type]


def test_a_ratio_of_one_is_the_mean(new_rows: Any) -> None:
    new = new_rows(COMMON)
    torch.testing.assert_close(Weighted(WeightedConfig(ratio=1)).rows(new), Mean().rows(new))


def test_thousands_of_parts_are_no_trouble(new_rows: Any) -> None:
    new = new_rows([[n % 20 for n in range(5000)]])
    assert Weighted(WeightedConfig(ratio=0.01)).rows(new).isfinite().all()


def test_noise_is_as_wide_as_the_known_rows_and_the_seeds_own(new_rows: Any) -> None:
    new = new_rows([()] * 400, hidden=50, spare=2, role="input")
    rows, wide = Random().rows(new), new.weight[:20].std()
    assert abs(rows.std() / wide - 1) < 0.03 and abs(rows.mean() / wide) < 0.03
    assert not torch.equal(rows, Random(RandomConfig(seed=1)).rows(new))
    output = Random().rows(new_rows([()] * 400, hidden=50, role="output"))
    assert abs(torch.corrcoef(torch.stack([rows.flatten(), output.flatten()]))[0, 1]) < 0.03


@pytest.mark.parametrize(
    ("name", "options", "told"),
    [
        ("weighted", {"ratio": 0}, "ratio"),
        ("weighted", {"end": "middle"}, "end"),
        ("focus", {"window": 0}, "window"),
        ("random", {"seed": -1}, "seed"),
        ("mean", {"ratio": 1}, "unknown key 'ratio'"),
    ],
)
def test_fields_that_make_no_sense_are_refused(name: str, options: Any, told: str) -> None:
    from graftkit import PluginHost

    with pytest.raises(RecipeError, match=told):
        choose(PluginHost(), "initializer", name, options)
