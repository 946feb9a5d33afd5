"""Takes merges out of a BPE vocabulary that must not be there."""

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
    """Returns a vocabulary and merges without some, numbered anew without a gap.

    Text that spells a special token or a byte such as <0x41> may have been learnt as a token of that name; it would
    turn users' words into that token. Whatever is built on what goes, goes too.

    Args:
        vocab: Pieces and ids.
        merges: Pairs of pieces, in the order in which they were learnt.
        reserved: Pieces that stay, but that no merge may make or go on with.
        dropped: Single characters that go.
        size: How many pieces may stay; the merges learnt first do.

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
