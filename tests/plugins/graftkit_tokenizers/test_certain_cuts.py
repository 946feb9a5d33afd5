"""Where a tokenizer says that it cuts every text, it does."""

from __future__ import annotations

from functools import cache

import pytest
from graftkit_tokenizers.tokenizer_json.tokenizer import HuggingFaceTokenizer
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizer_kinds import KINDS, kind_of_tokenizer

SIGNS = "aabd  \n\n\r\t1234'sI.,:<>▁_xé́日東ßAŁ\u200b\xa0#"
WORDS = ["the", " quick", "\n", "\n\n", "  ", " ", "don't", "<think>", "x <", "dog", "12", "user:", "▁", "日", "."]
TEXTS = st.text(st.sampled_from(SIGNS), max_size=24) | st.lists(st.sampled_from(WORDS), max_size=12).map("".join)

TELL = {
    "byte-level, gpt2": ["a ", "a\n"],
    "byte-level, llama3": ["a ", "a\n", "1 "],
    "byte-level, o200k": ["a ", "a\n"],
    "byte-level, qwen2 with NFC": ["a ", "a\n"],
    "byte-level, digits first": ["a ", "a\n"],
    "byte-level, numbers first": ["a ", "a\n"],
    "byte-level, a space before": ["a "],
    "byte-level, added tokens": ["a "],
    "pieces, metaspace": ["a "],
    "unigram": ["a "],
    "wordpiece": ["a "],
}
"""Kind -> pairs between which it must know that it cuts: most texts have them, so that long ones can be cut."""


@cache
def tokenizer(kind: str) -> HuggingFaceTokenizer:
    return kind_of_tokenizer(kind)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=300)
@given(text=TEXTS)
def test_parts_between_certain_cuts_are_encoded_alone(kind: str, text: str) -> None:
    known = tokenizer(kind)
    whole = known.encode(text)
    for place in range(1, len(text)):
        if known.cuts_between(text[place - 1], text[place]):
            assert known.encode(text[:place]) + known.encode(text[place:]) == whole, (text[:place], text[place:])


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=100)
@given(left=TEXTS, right=TEXTS)
def test_texts_between_special_tokens_are_encoded_alone(kind: str, left: str, right: str) -> None:
    known = tokenizer(kind)
    if known.cuts_at_specials:
        end = known.special_tokens["<|im_end|>"]
        whole = known.encode(f"{left}<|im_end|>{right}", "all")
        assert whole == [*known.encode(left), end, *known.encode(right)]


@pytest.mark.parametrize("kind", TELL)
def test_usual_tokenizers_are_known_to_cut_at_words(kind: str) -> None:
    known = tokenizer(kind)
    assert known.cuts_at_specials
    assert [pair for pair in TELL[kind] if not known.cuts_between(*pair)] == [], kind


@pytest.mark.parametrize(
    "kind", ["byte-level, looks behind", "byte-level, matches a part", "byte-level, added tokens that strip"]
)
def test_nothing_is_said_of_what_depends_on_more_than_two_characters(kind: str) -> None:
    known = tokenizer(kind)
    signs = "ab \n1."
    assert not any(known.cuts_between(before, after) for before in signs for after in signs)
