"""What stands before a noun that a message names: its article, or a number."""

from __future__ import annotations

__all__ = ["counted", "with_article"]


def with_article(noun: str) -> str:
    """Returns a noun after "a", or "an" where it begins with a vowel's letter.

    Example:
        >>> with_article("quantizer"), with_article("adapter")
        ('a quantizer', 'an adapter')
    """
    return f"{'an' if noun[:1].lower() in {*'aeiou'} else 'a'} {noun}"


def counted(number: float, one: str, several: str = "", *, form: str = ",") -> str:
    """Returns a number and a noun after it, of which there may be one, as it is shown.

    Args:
        number: The number.
        one: The noun.
        several: Its plural, where that does not end in an s alone.
        form: How the number is formatted.

    Example:
        >>> counted(1, "step"), counted(1.01, "epoch", form=".2g"), counted(2000, "query", "queries")
        ('1 step', '1 epoch', '2,000 queries')
    """
    shown = f"{number:{form}}"
    return f"{shown} {one if shown == '1' else several or f'{one}s'}"
