"""Which rows are held out: by what they say, never by where they stand."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
from graftkit.corpus.row_digest import DIGEST, digest_row
from graftkit.corpus.row_files import Rows
from graftkit.corpus.split import Split
from graftkit.corpus.split import exclude as exclude_rows
from graftkit.corpus.split import split as split_rows
from graftkit.interfaces.samples import Completion, Conversation, Message, Sample, Text
from graftkit.store.fingerprint import fingerprint
from hypothesis import given
from hypothesis import strategies as st

TEXTS = [Text(f"text {number}", f"a.jsonl:{number}") for number in range(200)]


def as_rows(rows: Sequence[Sample], seed: int = 0) -> Rows:
    """Rows as if they stood in a file."""
    rows = list(rows)
    digests = np.array([digest_row(row, seed) for row in rows], DIGEST).reshape(-1, 2)
    return Rows(
        read=lambda kept: (row for row, wanted in zip(rows, kept, strict=True) if wanted),
        digests=digests[:, 0].copy(),
        places=digests[:, 1].copy(),
        kinds=np.zeros(len(rows), np.uint8),
        kept=np.ones(len(rows), bool),
    )


def split(rows: Sequence[Sample], share: float, seed: int) -> Split:
    return split_rows(as_rows(rows, seed), share)


def exclude(rows: Sequence[Sample], holdout: Sequence[Sample]) -> Split:
    return exclude_rows(as_rows(rows), as_rows(holdout))


def texts(rows: Iterable[Sample]) -> set[str]:
    return {row.text for row in rows if isinstance(row, Text)}


def test_the_share_is_held_out_and_no_row_is_lost() -> None:
    found = split(TEXTS, 0.1, seed=0)
    assert (len(found.train), len(found.holdout), found.repeated) == (180, 20, 0)
    assert not texts(found.train) & texts(found.holdout)
    assert texts(found.train) | texts(found.holdout) == texts(list(TEXTS))


def test_a_rows_side_does_not_depend_on_its_place_in_the_file() -> None:
    mixed = random.Random(1).sample(TEXTS, len(TEXTS))
    first, again = split(TEXTS, 0.2, seed=3), split(mixed, 0.2, seed=3)
    assert texts(first.holdout) == texts(again.holdout)
    assert [row for row in mixed if row in list(again.train)] == list(again.train)


def test_another_seed_draws_other_rows() -> None:
    assert texts(split(TEXTS, 0.2, seed=0).holdout) != texts(split(TEXTS, 0.2, seed=1).holdout)


def test_equal_rows_stand_on_one_side_and_the_share_is_kept_all_the_same() -> None:
    rows = [Text(f"text {number % 10}", f"a.jsonl:{number}") for number in range(100)]
    found = split(rows, 0.5, seed=0)
    assert not texts(found.train) & texts(found.holdout)
    assert len(found.holdout) == 50


def test_nothing_is_held_out_where_nothing_is_asked_for() -> None:
    found = split(TEXTS, 0, seed=0)
    assert (list(found.train), list(found.holdout), found.repeated) == (list(TEXTS), [], 0)


def test_rows_of_different_shapes_are_never_equal() -> None:
    rows: list[Sample] = [
        Text("a", "1"),
        Completion("a", "b", "2"),
        Conversation((Message("a", "b"),), "3"),
        Conversation((Message("user", "a"), Message("assistant", "b")), "4"),
    ]
    assert len({str(row.key()) for row in rows}) == 4


def test_rows_that_are_also_in_the_held_out_file_are_not_trained_on() -> None:
    held = [Text("text 3", "held.jsonl:1"), Text("text 5", "held.jsonl:2"), Text("new", "held.jsonl:3")]
    found = exclude([*TEXTS, Text("text 3", "b.jsonl:1")], held)
    assert list(found.holdout) == held
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
    rows: list[Sample] = [Text(f"text {number}", str(place)) for place, number in enumerate(numbers)]
    found = split(rows, share, seed)
    assert Counter([*found.train, *found.holdout]) == Counter(rows)
    assert not texts(found.train) & texts(found.holdout)
    assert len(found.train)
    assert bool(len(found.holdout)) == (len(set(numbers)) > 1)
    shuffle.shuffle(rows)
    assert texts(split(rows, share, seed).holdout) == texts(found.holdout)


def groups_of_equal_rows(rows: Sequence[Sample], share: float, seed: int) -> set[str]:
    """The draw in words: groups of equal rows in the order of their hashes, as long as they fit."""
    keys = Counter(fingerprint([seed, row.key()]) for row in rows)
    left, held = (max(1, round(share * len(rows))) if share else 0), set()
    for key in sorted(keys):
        if keys[key] <= left and len(held) < len(keys) - 1:
            held.add(key)
            left -= keys[key]
    if not held and left and len(keys) > 1:
        held.add(min(sorted(keys), key=lambda key: keys[key]))
    return held


@given(st.lists(st.integers(0, 9), min_size=1, max_size=30), st.floats(0, 0.5), st.integers(0, 2**64))
def test_the_draw_is_the_one_in_words(numbers: list[int], share: float, seed: int) -> None:
    rows: list[Sample] = [
        Text(f"é\n{number}", "1") if number % 2 else Completion("a", str(number), "2") for number in numbers
    ]
    held = groups_of_equal_rows(rows, share, seed)
    found = split(rows, share, seed)
    assert list(found.holdout) == [row for row in rows if fingerprint([seed, row.key()]) in held]
    assert list(found.train) == [row for row in rows if fingerprint([seed, row.key()]) not in held]
