"""Which rows are held out: by what they say, never by where they stand."""

from __future__ import annotations

import random
from collections import Counter

from graftkit.corpus.rows import ChatRow, CompletionRow, Message, Row, TextRow
from graftkit.corpus.split import Split, exclude, split
from hypothesis import given
from hypothesis import strategies as st

TEXTS = [TextRow(f"text {number}", f"a.jsonl:{number}") for number in range(200)]


def texts(rows: list[Row]) -> set[str]:
    return {row.text for row in rows if isinstance(row, TextRow)}


def test_the_share_is_held_out_and_no_row_is_lost() -> None:
    found = split(TEXTS, 0.1, seed=0)
    assert (len(found.train), len(found.holdout), found.repeated) == (180, 20, 0)
    assert not texts(found.train) & texts(found.holdout)
    assert texts(found.train) | texts(found.holdout) == texts(list(TEXTS))


def test_a_rows_side_does_not_depend_on_its_place_in_the_file() -> None:
    mixed = random.Random(1).sample(TEXTS, len(TEXTS))
    first, again = split(TEXTS, 0.2, seed=3), split(mixed, 0.2, seed=3)
    assert texts(first.holdout) == texts(again.holdout)
    assert [row for row in mixed if row in again.train] == again.train


def test_another_seed_draws_other_rows() -> None:
    assert texts(split(TEXTS, 0.2, seed=0).holdout) != texts(split(TEXTS, 0.2, seed=1).holdout)


def test_equal_rows_stand_on_one_side_and_the_share_is_kept_all_the_same() -> None:
    rows = [TextRow(f"text {number % 10}", f"a.jsonl:{number}") for number in range(100)]
    found = split(rows, 0.5, seed=0)
    assert not texts(found.train) & texts(found.holdout)
    assert len(found.holdout) == 50


def test_nothing_is_held_out_where_nothing_is_asked_for() -> None:
    assert split(TEXTS, 0, seed=0) == Split(list(TEXTS), [])


def test_rows_of_different_shapes_are_never_equal() -> None:
    rows: list[Row] = [
        TextRow("a", "1"),
        CompletionRow("a", "b", "2"),
        ChatRow((Message("a", "b"),), "3"),
        ChatRow((Message("user", "a"), Message("assistant", "b")), "4"),
    ]
    assert len({str(row.key()) for row in rows}) == 4


def test_rows_that_are_also_in_the_held_out_file_are_not_trained_on() -> None:
    held = [TextRow("text 3", "held.jsonl:1"), TextRow("text 5", "held.jsonl:2"), TextRow("new", "held.jsonl:3")]
    found = exclude([*TEXTS, TextRow("text 3", "b.jsonl:1")], held)
    assert found.holdout == held
    assert found.repeated == 3
    assert texts(found.train) == texts(list(TEXTS)) - {"text 3", "text 5"}


@given(
    st.lists(st.integers(0, 12), min_size=1, max_size=40),
    st.floats(0.001, 0.5),
    st.integers(0, 5),
    st.randoms(use_true_random=False),
)
def test_two_different_rows_always_give_two_sides(
    numbers: list[int], share: float, seed: int, shuffle: random.Random
) -> None:
    rows: list[Row] = [TextRow(f"text {number}", str(place)) for place, number in enumerate(numbers)]
    found = split(rows, share, seed)
    assert Counter(found.train + found.holdout) == Counter(rows)
    assert not texts(found.train) & texts(found.holdout)
    assert found.train
    assert bool(found.holdout) == (len(set(numbers)) > 1)
    shuffle.shuffle(rows)
    assert texts(split(rows, share, seed).holdout) == texts(found.holdout)
