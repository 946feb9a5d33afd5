"""The indefinite article of a noun that a message names."""

from __future__ import annotations

__all__ = ["with_article"]


def with_article(noun: str) -> str:
    """Returns a noun after "a", or "an" where it begins with a vowel's letter.

    Example:
        >>> with_article("quantizer"), with_article("adapter")
        ('a quantizer', 'an adapter')
    """
    return f"{'an' if noun[:1].lower() in {*'aeiou'} else 'a'} {noun}"
