"""Which token of each word of a text is its first one."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence

from graftkit.errors import DataError
from graftkit.interfaces.samples import TaggedText
from graftkit.visible import one_line

__all__ = ["first_tokens"]


def first_tokens(offsets: Sequence[tuple[int, int]], sample: TaggedText) -> tuple[list[int | None], int]:
    """Returns the number of each word's first token, None of a word that has none; and how many tags are lost so.

    The white space before a word is its own, as in transformers' `tokenizer(words, is_split_into_words=True)` with
    `add_prefix_space`. A token of several words that nothing stands between, such as `).`, is the first one's: no tag
    is lost where the others have the same.

    Args:
        offsets: Where each of the text's tokens begins and ends, in characters.
        sample: The text.

    Raises:
        DataError: A token is of two words with white space between.

    Example:
        >>> sample = TaggedText("Ada lives", "a:1", ((0, 3), (4, 9)), ("B-PER", "O"))
        >>> first_tokens([(0, 2), (2, 3), (3, 9)], sample)
        ([0, 2], 0)
    """
    starts = [0, *(end for _, end in sample.places[:-1])]
    firsts: list[int | None] = [None] * len(starts)
    covered_by: dict[int, int] = {}
    begins = [begin for begin, _ in sample.places]
    for number, (start, end) in enumerate(offsets):
        word = max(0, bisect_right(starts, start) - 1)
        if firsts[word] is None:
            firsts[word] = number
        for other in range(word + 1, bisect_left(begins, end)):
            if sample.places[other][0] > sample.places[other - 1][1]:
                raise DataError(
                    f"the tokenizer makes one token of the words {_shown(sample, other - 1)} and "
                    f"{_shown(sample, other)}, which have a tag each",
                    where=sample.where,
                    hint="A tokenizer that cuts a text at white space can learn tags: take a model that has one.",
                )
            covered_by.setdefault(other, word)
    lost = [
        word
        for word, first in enumerate(firsts)
        if first is None and sample.tags[covered_by.get(word, word)] != sample.tags[word]
    ]
    unseen = [word for word, first in enumerate(firsts) if first is None and word not in covered_by]
    return firsts, len(lost) + len(unseen)


def _shown(sample: TaggedText, word: int) -> str:
    return repr(one_line(sample.words[word], 40))
