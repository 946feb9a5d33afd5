"""Fewer tokens are told from the most that were learnt, exactly as if they had been learnt by themselves."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest
from graftkit.interfaces.vocabulary import NewToken
from graftkit.vocabulary.prefix import PrefixCounter
from hypothesis import given, settings
from hypothesis import strategies as st

Word = tuple[int, ...]


def joined(word: Word, pair: tuple[int, int], id: int) -> Word:
    found: list[int] = []
    for part in word:
        found.append(part)
        if tuple(found[-2:]) == pair:
            found[-2:] = [id]
    return tuple(found)


def learn(words: list[Word], count: int) -> tuple[list[NewToken], list[Word]]:
    """Byte pair encoding at its plainest, from ids below 100; a second pair that makes the same text is left out."""
    tokens: list[NewToken] = []
    parts = {id: (id,) for id in range(100)}
    for id in range(100, 100 + count):
        pairs = Counter(pair for word in words for pair in pairwise(word))
        fresh = [pair for pair in pairs if parts[pair[0]] + parts[pair[1]] not in parts.values()]
        if not fresh:
            break
        best = min(fresh, key=lambda pair: (-pairs[pair], pair))
        parts[id] = parts[best[0]] + parts[best[1]]
        words = [joined(word, best, id) for word in words]
        tokens.append(NewToken(id, b"", parts[id], 0))
    return tokens, words


def counted(words: list[Word]) -> Counter[int]:
    return Counter(id for word in words for id in word)


WORDS = st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=9).map(tuple), min_size=1, max_size=12)


@given(words=WORDS, most=st.integers(1, 12))
@settings(max_examples=150)
def test_any_smaller_number_is_what_learning_it_gives(words: list[Word], most: int) -> None:
    tokens, after = learn(words, most)
    counter = PrefixCounter(tokens)
    for fewer in range(most + 1):
        expected = counted(learn(words, fewer)[1])
        assert +Counter(counter.counts(counted(after), fewer)) == expected


def test_bytes_that_the_base_lacked_stay_at_any_number() -> None:
    tokens = [NewToken(100, b"\x04", (), 0), NewToken(101, b"ab", (1, 2), 3), NewToken(102, b"abc", (1, 2, 3), 2)]
    counter = PrefixCounter(tokens)
    assert counter.learnt == [101, 102]
    assert counter.counts({100: 5, 102: 2, 101: 1}, 1) == {100: 5, 101: 3, 3: 2}
    assert counter.counts({100: 5, 102: 2, 101: 1}, 0) == {100: 5, 1: 3, 2: 3, 3: 2}


def test_tokens_that_were_not_learnt_by_joining_two_are_refused() -> None:
    with pytest.raises(ValueError, match="token 100 joins 3 others"):
        PrefixCounter([NewToken(100, b"abc", (1, 2, 3), 2)])
