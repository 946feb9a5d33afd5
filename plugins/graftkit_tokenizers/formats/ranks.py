"""Converts tiktoken's ranks to merges and back.

tiktoken repeatedly joins the neighbours whose joined bytes have the lowest rank. When the last two parts of a token are
joined, nothing has been joined across its ends before, so the two are what merging its own bytes gives before the last
step. So one merge a token is enough, and merges in the order of ranks give the same ids.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise

from graftkit.tokenization.byte_alphabet import byte_alphabet

__all__ = ["bytes_of_pieces", "last_merge", "merges_of", "pieces_of", "splits"]


def merges_of(ranks: Mapping[bytes, int]) -> Iterator[tuple[bytes, bytes]]:
    """Yields the merges of a vocabulary of ranks, by rank.

    A token that merging its own bytes does not give may have none: only a whole word becomes that token.

    Example:
        >>> list(merges_of({b"a": 0, b"b": 1, b"c": 2, b"bc": 3, b"abc": 4}))
        [(b'b', b'c'), (b'a', b'bc')]
    """
    for token in sorted(ranks, key=ranks.__getitem__):
        pairs = splits(token, ranks)
        last = last_merge(token, ranks) if len(pairs) > 1 else None
        if len(pairs) == 1 or last is not None:  # with a single pair it does not matter whether merging gives the token
            yield last or pairs[0]


def splits(token: bytes, ranks: Mapping[bytes, int]) -> list[tuple[bytes, bytes]]:
    """Returns every pair of tokens that make up a token."""
    pairs = [(token[:place], token[place:]) for place in range(1, len(token))]
    return [(left, right) for left, right in pairs if left in ranks and right in ranks]


def last_merge(token: bytes, ranks: Mapping[bytes, int]) -> tuple[bytes, bytes] | None:
    """Returns the two tokens that merging a token's bytes gives before the last step; None if it gives others.

    Args:
        token: Two bytes or more.
        ranks: Every token's rank.
    """
    parts = [token[place : place + 1] for place in range(len(token))]
    while len(parts) > 2:
        found = [ranks.get(left + right) for left, right in pairwise(parts)]
        best = min((rank for rank in found if rank is not None), default=None)
        if best is None:
            return None
        place = found.index(best)
        parts[place : place + 2] = [parts[place] + parts[place + 1]]
    return parts[0], parts[1]


def pieces_of(ranks: Mapping[bytes, int]) -> dict[bytes, str]:
    """Returns token -> its piece in a byte-level vocabulary."""
    characters = {byte: character for character, byte in byte_alphabet().items()}
    return {token: "".join(characters[byte] for byte in token) for token in ranks}


def bytes_of_pieces(vocab: Mapping[str, int]) -> dict[bytes, int]:
    """Returns the ranks of a byte-level vocabulary.

    Raises:
        KeyError: A piece has a character outside GPT-2's alphabet.
    """
    alphabet = byte_alphabet()
    return {bytes(alphabet[character] for character in piece): id for piece, id in vocab.items()}
