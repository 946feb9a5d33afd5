"""Characters are of the script that Unicode says; bytes and tokens by script add up to all of them."""

from __future__ import annotations

import unicodedata

import pytest
import regex
from graftkit.interfaces.tokenizer import Encoding
from graftkit.vocabulary.scripts import measure_scripts, script_of
from hypothesis import given
from hypothesis import strategies as st

SCRIPTS = ["Latin", "Cyrillic", "Greek", "Arabic", "Devanagari", "Han", "Hebrew", "Thai", "Hangul", "Bengali", "Tamil"]
COMMON = regex.compile(r"\p{Script=Common}")
LETTERS = [
    chr(code) for code in range(0x110000) if unicodedata.category(chr(code))[0] == "L" and not COMMON.match(chr(code))
]


class Pieces:
    """Cuts every text into pieces of so many characters."""

    def __init__(self, size: int) -> None:
        self.size = size

    def encode_offsets(self, text: str) -> Encoding:
        spans = [(start, min(start + self.size, len(text))) for start in range(0, len(text), self.size)]
        return Encoding(list(range(len(spans))), spans)


class Bytes:
    """A token a byte; all bytes of a character stand at it."""

    def encode_offsets(self, text: str) -> Encoding:
        spans = [(place, place + 1) for place, character in enumerate(text) for _ in character.encode()]
        return Encoding([0] * len(spans), spans)


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
    found = measure_scripts(Pieces(1), ["ab cd\n    e\u0301 Жж 12"])  # type: ignore[arg-type]
    assert {name: share.bytes for name, share in found.items()} == {
        "Latin": 5 + 3,
        "white space": 5,
        "Cyrillic": 1 + 4,
        "digits": 1 + 2,
    }


def test_a_token_across_two_scripts_counts_for_both() -> None:
    found = measure_scripts(Pieces(4), ["abЖЖ"])  # type: ignore[arg-type]
    assert {name: (share.bytes, share.tokens) for name, share in found.items()} == {
        "Cyrillic": (4, 0.5),
        "Latin": (2, 0.5),
    }


@given(texts=st.lists(st.text(min_size=1, max_size=30), max_size=4), size=st.integers(1, 5))
def test_all_scripts_together_are_everything(texts: list[str], size: int) -> None:
    for tokenizer in (Pieces(size), Bytes()):
        found = measure_scripts(tokenizer, texts)  # type: ignore[arg-type]
        assert sum(share.bytes for share in found.values()) == sum(len(text.encode()) for text in texts)
        tokens = sum(len(tokenizer.encode_offsets(text).ids) for text in texts)
        assert sum(share.tokens for share in found.values()) == pytest.approx(tokens)
