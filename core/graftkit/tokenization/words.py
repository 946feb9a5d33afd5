"""Checks of words that are to become tokens, for every family."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from graftkit.errors import RequestError

__all__ = ["check_word", "is_text"]


def is_text(word: str) -> bool:
    """Tells whether a string has a UTF-8 form: one with a lone surrogate has none."""
    return not any("\ud800" <= character <= "\udfff" for character in word)


def check_word(word: str, special_tokens: Iterable[str]) -> None:
    """Refuses a word that is no text, or that would keep a special token from being found.

    Of overlapping added tokens in a text the leftmost is found. So a word that contains a special token, or ends with
    the beginning of one, would be found in place of that which a chat template writes, such as the end of a turn.

    Args:
        word: A text that is to become one token.
        special_tokens: The tokenizer's special tokens.

    Raises:
        RequestError: The word is empty, has a lone surrogate, or overlaps with a special token.
    """
    for reason in _reasons(word, special_tokens):
        raise RequestError(f"{word!r} can't become a token: {reason}")


def _reasons(word: str, special_tokens: Iterable[str]) -> Iterator[str]:
    if not word:
        yield "it is empty"
    if not is_text(word):
        yield "it is no Unicode text"
    for special in special_tokens:
        if special == word:
            yield "it is a special one"
        elif special and special in word:
            yield f"it holds the special token {special!r}, which would no longer be found there"
        elif any(word.endswith(special[:end]) for end in range(1, min(len(special), len(word)))):
            yield f"it ends as the special token {special!r} begins, which would no longer be found after it"
