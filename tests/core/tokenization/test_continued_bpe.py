"""Learning on from a vocabulary's merges: compared with the definition, and with bpe-continue."""

from __future__ import annotations

import json
from collections import Counter
from itertools import pairwise

import pytest
from bpe_continue import continue_training
from graftkit.tokenization.continued_bpe import Limits, Merge, learn_merges
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

Word = tuple[list[int], int]
PIECES = dict(enumerate("abcd"))
SHARED = dict(enumerate(["a", "b", "ab", "ba"]))
"""Pieces of which different pairs make the same text, or one that there is."""
WORDS = st.lists(st.tuples(st.lists(st.integers(0, 3), max_size=9), st.integers(1, 5)), max_size=8)


def learnt(words: list[Word], tokens: int, **limits: object) -> list[Merge]:
    return list(learn_merges(words, PIECES, Limits(tokens, **limits), first_id=4).merges)  # type: ignore[arg-type]


def joined(ids: list[int], pair: tuple[int, int], new: int) -> list[int]:
    found: list[int] = []
    while ids:
        found, ids = ([*found, new], ids[2:]) if tuple(ids[:2]) == pair else ([*found, ids[0]], ids[1:])
    return found


def by_definition(words: list[Word], tokens: int) -> tuple[list[tuple[int, int, int]], Counter[int]]:
    """Counts everything anew for each merge."""
    pieces, merges, new = dict(SHARED), [], dict[str, int]()
    while len(new) < tokens:
        pairs: Counter[tuple[int, int]] = Counter()
        for ids, count in words:
            for pair in pairwise(ids):
                if pieces[pair[0]] + pieces[pair[1]] not in SHARED.values():
                    pairs[pair] += count
        if not pairs:
            break
        pair = min(pairs, key=lambda pair: (-pairs[pair], pair))
        piece = pieces[pair[0]] + pieces[pair[1]]
        id = new.setdefault(piece, 4 + len(new))
        pieces[id] = piece
        merges.append((*pair, id))
        words = [(joined(ids, pair, id), count) for ids, count in words]
    uses: Counter[int] = Counter()
    for ids, count in words:
        uses.update(ids * count)
    return merges, uses


@settings(max_examples=300)
@given(WORDS, st.integers(0, 12))
def test_it_learns_what_the_definition_says(words: list[Word], tokens: int) -> None:
    found = learn_merges(words, SHARED, Limits(tokens, min_frequency=1), first_id=4)
    merges, uses = by_definition(words, tokens)
    assert [(merge.left, merge.right, merge.id) for merge in found.merges] == merges
    assert dict(found.uses) == dict(uses)


@settings(max_examples=100)
@given(WORDS, st.integers(0, 6))
def test_the_first_merges_are_those_of_a_smaller_vocabulary(words: list[Word], tokens: int) -> None:
    fewer, more = learnt(words, tokens), learnt(words, tokens + 5)
    assert more[: len(fewer)] == fewer


@settings(max_examples=100)
@given(WORDS)
def test_a_merge_saves_as_many_tokens_as_it_says(words: list[Word]) -> None:
    found = learn_merges(words, PIECES, Limits(9), first_id=4)
    before = sum(len(ids) * count for ids, count in words)
    assert before - sum(merge.count for merge in found.merges) == sum(found.uses.values())


@settings(max_examples=60)
@given(st.lists(st.text("abcd", min_size=1, max_size=8), min_size=1, max_size=12), st.integers(1, 12))
def test_it_learns_what_bpe_continue_learns(texts: list[str], tokens: int) -> None:
    base = Tokenizer(models.BPE(vocab={piece: id for id, piece in PIECES.items()}, merges=[]))
    base.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    theirs = continue_training(base, texts=texts, vocab_size=4 + tokens, show_progress=False)
    words = [(["abcd".index(letter) for letter in text], 1) for text in texts]
    ours = learn_merges(words, PIECES, Limits(tokens, min_frequency=1), first_id=4).merges
    pieces = PIECES | {merge.id: merge.piece for merge in ours}
    model = json.loads(theirs.to_str())["model"]
    assert model["merges"] == [[pieces[merge.left], pieces[merge.right]] for merge in ours]
    assert model["vocab"] == {piece: id for id, piece in pieces.items()}


def test_neighbours_that_overlap_are_joined_from_the_left() -> None:
    found = learn_merges([([0] * 5, 2)], PIECES, Limits(1), first_id=4)
    assert found.merges[0].count == 4
    assert found.uses == {4: 4, 0: 2}


def test_rare_pairs_and_long_pieces_are_left_alone() -> None:
    words = [([0, 1, 2], 3), ([2, 3], 2)]
    assert [merge.piece for merge in learnt(words, 9, min_frequency=3)] == ["ab", "abc"]
    assert [merge.piece for merge in learnt(words, 9, min_frequency=3, max_length=2)] == ["ab"]
    assert [merge.piece for merge in learnt(words, 9, max_length=2)] == ["ab", "cd"]
    assert learnt(words, 9, max_length=1) == []


@pytest.mark.parametrize("forbidden", [{"ab"}, {"ab", "bc"}])
def test_no_merge_makes_a_piece_that_there_is(forbidden: set[str]) -> None:
    """Else a text without new tokens would become other ids than before, or a special token."""
    found = [merge.piece for merge in learnt([([0, 1, 2], 3)], 9, forbidden=forbidden)]
    assert not forbidden & set(found)
    pieces = {0: "a", 1: "b", 2: "ab"}
    assert not learn_merges([([0, 1], 3)], pieces, Limits(5), first_id=3).merges


def test_a_piece_made_in_two_ways_has_one_id() -> None:
    found = learn_merges([([2, 0], 9), ([0, 3], 8)], SHARED, Limits(9), first_id=4)
    assert [(merge.left, merge.right, merge.id, merge.piece) for merge in found.merges] == [
        (2, 0, 4, "aba"),
        (0, 3, 4, "aba"),
    ]
    assert found.uses == {4: 17}


def test_a_long_stretch_costs_what_it_has_of_a_pair() -> None:
    """Not its length for each merge: this would take minutes."""
    found = learn_merges([([0, 1, 2, 3] * 50_000, 1)], PIECES, Limits(400), first_id=4)
    assert sum(found.uses.values()) < 200_000
