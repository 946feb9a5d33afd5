"""Learns words for word-level models."""

from __future__ import annotations

from collections.abc import Mapping

from graftkit.tokenization.continued_bpe import Limits

from graftkit_tokenizers.extend.draft import Draft

__all__ = ["learn_word_level"]


def learn_word_level(draft: Draft, words: Mapping[str, int], limits: Limits) -> None:
    """Adds the most frequent words that the vocabulary lacks; equally frequent ones in alphabetical order.

    Args:
        draft: The tokenizer.
        words: Word -> how often it occurs.
        limits: How many, how frequent, how long.
    """
    unknown = {word: n for word, n in words.items() if word not in draft.model["vocab"] and _allowed(word, n, limits)}
    for word in sorted(unknown, key=lambda word: (-unknown[word], word))[: limits.tokens]:
        draft.add_piece(word, ())


def _allowed(word: str, count: int, limits: Limits) -> bool:
    return len(word) <= limits.longest and count >= limits.min_frequency and word not in limits.forbidden
