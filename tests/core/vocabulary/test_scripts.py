"""Characters are of the script that Unicode says; bytes and tokens by script add up to all of them."""

from __future__ import annotations

import unicodedata
from typing import Any

import pytest
import regex
from graftkit.interfaces.tokenizer import Encoding
from graftkit.vocabulary.scripts import ScriptCounter, ScriptShare, script_of
from hypothesis import given
from hypothesis import strategies as st

SCRIPTS = ["Latin", "Cyrillic", "Greek", "Arabic", "Devanagari", "Han", "Hebrew", "Thai", "Hangul", "Bengali", "Tamil"]
COMMON = regex.compile(r"\p{Script=Common}")
LETTERS = [
    chr(code) for code in range(0x110000) if unicodedata.category(chr(code))[0] == "L" and not COMMON.match(chr(code))
]


class Pieces:
    """Cuts every text into pieces of so many characters; may say that they stand for bytes that they do not."""

    def __init__(self, size: int, lie: bool = False) -> None:
        self.size = size
        self.lie = lie
        self.pieces: list[bytes] = []

    def encode_offsets(self, text: str) -> Encoding:
        spans = [(start, min(start + self.size, len(text))) for start in range(0, len(text), self.size)]
        first = len(self.pieces)
        self.pieces += [text[start:end].encode() for start, end in spans]
        return Encoding(list(range(first, len(self.pieces))), spans)

    def token_bytes(self, id: int) -> bytes:
        return self.pieces[id] + b"lie" * self.lie


class Bytes:
    """A token a byte; all bytes of a character stand at it."""

    def encode_offsets(self, text: str) -> Encoding:
        spans = [(place, place + 1) for place, character in enumerate(text) for _ in character.encode()]
        return Encoding([0] * len(spans), spans)

    def token_bytes(self, id: int) -> bytes:
        return b"x"


def shares(tokenizer: Any, *texts: str) -> dict[str, ScriptShare]:
    counter = ScriptCounter(tokenizer)
    for text in texts:
        counter.add(text, tokenizer.encode_offsets(text).ids)
    return counter.shares()


@pytest.mark.parametrize("script", SCRIPTS)
def test_letters_are_of_the_script_that_unicode_says(script: str) -> None:
    of_it = regex.compile(rf"\p{{Script={script}}}")
    right = [(of_it.match(letter) is not None) == (script_of(letter) == script) for letter in LETTERS]
    assert right.count(False) <= 12, "a few have names that do not say it"


@pytest.mark.parametrize(
    ("characters", "script"),
    [
        ("07٣Ⅷ½", "digits"),
        (".,(){}=<+$€—«", "punctuation"),
        ("🎉👩🇩☀✅", "emoji"),
        ("\n\t\r \u3000", "white space"),
        ("\u0301\ufe0f\u200d", ""),
        ("\x04\ue000\U0010ffff", "other"),
        ("ひカー", "Kana"),
    ],
)
def test_other_characters_are_what_they_are_used_for(characters: str, script: str) -> None:
    assert {script_of(character) for character in characters} == {script}


def test_a_space_belongs_to_the_word_after_it_and_an_accent_to_its_letter() -> None:
    found = shares(Pieces(1), "ab cd\n    e\u0301 Жж 12")
    assert {name: share.bytes for name, share in found.items()} == {
        "Latin": 5 + 3,
        "white space": 5,
        "Cyrillic": 1 + 4,
        "digits": 1 + 2,
    }


@pytest.mark.parametrize("lie", [False, True])
def test_a_token_across_two_scripts_counts_for_both(lie: bool) -> None:
    found = shares(Pieces(4, lie), "abcЖ")
    by_characters, by_bytes = (0.75, 0.25), (0.6, 0.4)
    latin, cyrillic = by_characters if lie else by_bytes
    assert found == {"Latin": ScriptShare(3, pytest.approx(latin)), "Cyrillic": ScriptShare(2, pytest.approx(cyrillic))}


@given(texts=st.lists(st.text(min_size=1, max_size=30), max_size=4), size=st.integers(1, 5))
def test_all_scripts_together_are_everything(texts: list[str], size: int) -> None:
    for tokenizer in (Pieces(size), Pieces(size, lie=True), Bytes()):
        found = shares(tokenizer, *texts)
        assert sum(share.bytes for share in found.values()) == sum(len(text.encode()) for text in texts)
        tokens = sum(len(tokenizer.encode_offsets(text).ids) for text in texts)
        assert sum(share.tokens for share in found.values()) == pytest.approx(tokens)
