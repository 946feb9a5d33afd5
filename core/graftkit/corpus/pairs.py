"""How the two texts of a pair become one sequence of tokens."""

from __future__ import annotations

from collections.abc import Sequence

from graftkit.errors import DataError
from graftkit.interfaces.tokenizer import JoinsPairs, PairLayout, Tokenizer

__all__ = ["longest_first", "pair_layout_of"]


def pair_layout_of(tokenizer: Tokenizer, types: int) -> PairLayout:
    """Returns what a tokenizer puts around the two texts of a pair.

    Args:
        tokenizer: The tokenizer.
        types: Of how many types of tokens the model has embeddings; 0: of none.

    Raises:
        DataError: It does not say, or names a type that the model does not have.
    """
    own: object = tokenizer.pair_layout if isinstance(tokenizer, JoinsPairs) else None
    if not isinstance(own, PairLayout):
        raise DataError(
            "records have two texts each, and the model's tokenizer does not say how a pair becomes one sequence",
            hint="One of a tokenizer.json does. Else put the two into one text.",
        )
    highest = max(own.of([0], [0])[1])
    if types and highest >= types:
        raise DataError(
            f"the tokenizer gives tokens of a pair the type {highest}, and the model has {types} types",
            hint="Tokenizer and weights do not belong together: take both from the same model.",
        )
    return own


def longest_first(parts: Sequence[Sequence[int]], room: int) -> list[Sequence[int]]:
    """Returns the beginnings of one text, or of two, that have room together: the longer one loses its end first.

    It is what `truncation="longest_first"` of transformers' fast tokenizers leaves.

    Args:
        parts: The ids of each text.
        room: How many ids there may be.

    Example:
        >>> longest_first([[1, 2, 3, 4, 5], [6, 7]], 5)
        [[1, 2, 3], [6, 7]]
    """
    room = max(0, room)
    if len(parts) == 1:
        return [parts[0][:room]]
    short = min(*map(len, parts), room // 2)
    longer = int(len(parts[1]) >= len(parts[0]))
    return [part[: room - short if place == longer else short] for place, part in enumerate(parts)]
