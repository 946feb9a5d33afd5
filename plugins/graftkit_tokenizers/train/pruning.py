"""Removes merges from a BPE vocabulary."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

__all__ = ["pruned"]


def pruned(
    vocab: Mapping[str, int],
    merges: Sequence[Sequence[str]],
    *,
    reserved: Collection[str],
    dropped: Collection[str] = (),
    size: int,
) -> tuple[dict[str, int], list[list[str]]]:
    """Returns a smaller vocabulary and its merges, with new ids without gaps.

    Text that spells a special token, or the piece of a byte such as <0x41>, may have been learnt as a merge; it would
    make that token of a user's text. Merges of removed pieces are removed too.

    Args:
        vocab: Piece -> id.
        merges: Pairs of pieces, in the order in which they were learnt.
        reserved: Pieces that stay, but that no merge may make or use.
        dropped: Single characters to remove.
        size: The most pieces that stay; merges learnt first are kept first.

    Returns:
        Piece -> id, and the merges.

    Example:
        >>> pruned({"<s>": 0, "a": 1, "b": 2, "c": 3, "ab": 4, "abc": 5}, [["a", "b"], ["ab", "c"]], reserved=["<s>"],
        ...     dropped=["c"], size=9)
        ({'<s>': 0, 'a': 1, 'b': 2, 'ab': 3}, [['a', 'b']])
    """
    never = set(reserved)
    made = {left + right for left, right in merges} - never
    kept = {piece for piece in vocab if piece not in made and piece not in dropped}
    staying: list[list[str]] = []
    for left, right in merges:
        if len(kept) >= size:
            break
        if left in kept and right in kept and not {left, right, left + right} & never:
            kept.add(left + right)
            staying.append([left, right])
    ordered = sorted(kept, key=vocab.__getitem__)
    return {piece: id for id, piece in enumerate(ordered)}, staying
