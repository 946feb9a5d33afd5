"""Which words can't become tokens, whatever the family."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from graftkit.errors import RequestError

__all__ = ["check_word", "is_text"]


def is_text(word: str) -> bool:
    """Tells whether a string is Unicode text: half of a surrogate pair is none, and has no UTF-8."""
    return not any("\ud800" <= character <= "\udfff" for character in word)


def check_word(word: str, special_tokens: Iterable[str]) -> None:
    """Refuses a word that is no text, or that would be found where a special token stands.

    Of two tokens in a text the one that starts first is found. So a word that holds a special token, or ends as one
    begins, would take its place where a template writes it: an end of a turn that nobody sees.

    Args:
        word: A text that is to become one token.
        special_tokens: The tokenizer's special tokens.

    Raises:
        RequestError: It can't become a token.
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
