"""Which records are held out: by what they say, never by where they stand."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
from graftkit.corpus.sample_digest import DIGEST, digest_sample, digest_text
from graftkit.corpus.sample_files import Samples
from graftkit.corpus.split import Split
from graftkit.corpus.split import exclude as exclude_samples
from graftkit.corpus.split import split as split_samples
from graftkit.interfaces.samples import Completion, Conversation, Message, Sample, Text
from graftkit.store.fingerprint import fingerprint
from hypothesis import given
from hypothesis import strategies as st

TEXTS = [Text(f"text {number}", f"a.jsonl:{number}") for number in range(200)]


def as_samples(records: Sequence[Sample], seed: int = 0, groups: Sequence[str] = ()) -> Samples:
    """Records as if they stood in a file."""
    records = list(records)
    digests = np.array([digest_sample(record, seed) for record in records], DIGEST).reshape(-1, 2)
    if groups:
        shared = np.array([digest_text(group, seed) for group in groups], DIGEST)
        digests[:, 1] = shared[:, 1]
    return Samples(
        read=lambda kept: (record for record, wanted in zip(records, kept, strict=True) if wanted),
        digests=digests[:, 0].copy(),
        draws=digests[:, 1].copy(),
        kinds=np.zeros(len(records), np.uint8),
        kept=np.ones(len(records), bool),
        groups=shared[:, 0].copy() if groups else np.zeros(0, DIGEST),
    )


def split(records: Sequence[Sample], share: float, seed: int) -> Split:
    return split_samples(as_samples(records, seed), share)


def exclude(records: Sequence[Sample], holdout: Sequence[Sample]) -> Split:
    return exclude_samples(as_samples(records), as_samples(holdout))


def texts(records: Iterable[Sample]) -> set[str]:
    return {record.text for record in records if isinstance(record, Text)}


def test_the_share_is_held_out_and_no_record_is_lost() -> None:
    found = split(TEXTS, 0.1, seed=0)
    assert (len(found.train), len(found.holdout), found.repeated) == (180, 20, 0)
    assert not texts(found.train) & texts(found.holdout)
    assert texts(found.train) | texts(found.holdout) == texts(list(TEXTS))


def test_a_records_side_does_not_depend_on_its_place_in_the_file() -> None:
    mixed = random.Random(1).sample(TEXTS, len(TEXTS))
    first, again = split(TEXTS, 0.2, seed=3), split(mixed, 0.2, seed=3)
    assert texts(first.holdout) == texts(again.holdout)
    assert [record for record in mixed if record in list(again.train)] == list(again.train)


def test_another_seed_draws_other_records() -> None:
    assert texts(split(TEXTS, 0.2, seed=0).holdout) != texts(split(TEXTS, 0.2, seed=1).holdout)


def test_equal_records_stand_on_one_side_and_the_share_is_kept_all_the_same() -> None:
    records = [Text(f"text {number % 10}", f"a.jsonl:{number}") for number in range(100)]
    found = split(records, 0.5, seed=0)
    assert not texts(found.train) & texts(found.holdout)
    assert len(found.holdout) == 50


def test_nothing_is_held_out_where_nothing_is_asked_for() -> None:
    found = split(TEXTS, 0, seed=0)
    assert (list(found.train), list(found.holdout), found.repeated) == (list(TEXTS), [], 0)


def test_records_of_different_shapes_are_never_equal() -> None:
    records: list[Sample] = [
        Text("a", "1"),
        Completion("a", "b", "2"),
        Conversation((Message("a", "b"),), "3"),
        Conversation((Message("user", "a"), Message("assistant", "b")), "4"),
    ]
    assert len({str(record.key()) for record in records}) == 4


def test_records_that_are_also_in_the_held_out_file_are_not_trained_on() -> None:
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
def test_two_different_records_always_give_two_sides(
    numbers: list[int], share: float, seed: int, shuffle: random.Random
) -> None:
    records: list[Sample] = [Text(f"text {number}", str(place)) for place, number in enumerate(numbers)]
    found = split(records, share, seed)
    assert Counter([*found.train, *found.holdout]) == Counter(records)
    assert not texts(found.train) & texts(found.holdout)
    assert len(found.train)
    assert bool(len(found.holdout)) == (len(set(numbers)) > 1)
    shuffle.shuffle(records)
    assert texts(split(records, share, seed).holdout) == texts(found.holdout)


def groups_of_equal_records(records: Sequence[Sample], share: float, seed: int) -> set[str]:
    """The draw in words: groups of equal records in the order of their hashes, as long as they fit."""
    keys = Counter(fingerprint([seed, record.key()]) for record in records)
    left, held = (max(1, round(share * len(records))) if share else 0), set()
    for key in sorted(keys):
        if keys[key] <= left and len(held) < len(keys) - 1:
            held.add(key)
            left -= keys[key]
    if not held and left and len(keys) > 1:
        held.add(min(sorted(keys), key=lambda key: keys[key]))
    return held


@given(st.lists(st.integers(0, 9), min_size=1, max_size=30), st.floats(0, 0.5), st.integers(0, 2**64))
def test_the_draw_is_the_one_in_words(numbers: list[int], share: float, seed: int) -> None:
    records: list[Sample] = [
        Text(f"é\n{number}", "1") if number % 2 else Completion("a", str(number), "2") for number in numbers
    ]
    held = groups_of_equal_records(records, share, seed)
    found = split(records, share, seed)
    assert list(found.holdout) == [record for record in records if fingerprint([seed, record.key()]) in held]
    assert list(found.train) == [record for record in records if fingerprint([seed, record.key()]) not in held]


@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 9)), min_size=1, max_size=40),
    st.floats(0.001, 0.5),
    st.integers(0, 5),
)
def test_groups_are_drawn_as_records_are_and_stand_on_one_side(
    numbers: list[tuple[int, int]], share: float, seed: int
) -> None:
    """As equal records are, of which each group's value stands in the place; no equal records on both sides either."""
    records: list[Sample] = [Text(f"text {number}", str(place)) for place, (number, _) in enumerate(numbers)]
    groups = [str(group) for _, group in numbers]
    found = split_samples(as_samples(records, seed, groups), share)
    of = {record.where: group for record, group in zip(records, groups, strict=True) if isinstance(record, Text)}
    held = split([Text(group, str(place)) for place, group in enumerate(groups)], share, seed).holdout
    assert [sample.where for sample in found.holdout] == [sample.where for sample in held]
    assert not {of[sample.where] for sample in found.holdout} & {of[sample.where] for sample in found.train}
    assert not texts(found.holdout) & texts(found.train)
    assert len(found.train) + len(found.holdout) + found.repeated == len(records)
    sides = [len({of[sample.where] for sample in side}) for side in (found.train, found.holdout)]
    assert found.grouped is not None and [found.grouped.train, found.grouped.holdout] == sides


def test_records_of_a_holdout_files_groups_are_not_trained_on() -> None:
    learnt = as_samples(TEXTS[:6], groups=["a", "b", "b", "c", "d", "d"])
    held = as_samples([TEXTS[3], Text("new", "held.jsonl:2")], groups=["x", "b"])
    found = exclude_samples(learnt, held)
    assert texts(found.train) == {"text 0", "text 4", "text 5"} and found.repeated == 1
    assert found.grouped is not None
    assert (found.grouped.train, found.grouped.holdout, found.grouped.left) == (2, 2, 2)
