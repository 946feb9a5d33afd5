"""What becomes of a record that is encoded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NoReturn

from graftkit.errors import DataError
from graftkit.store.token_store import Example

__all__ = ["Encoded", "Overflow", "refuse_length"]

Overflow = Literal["drop_turns", "drop", "truncate", "error"]
"""What becomes of a conversation or completion that is too long."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """An encoded record.

    Attributes:
        examples: Token sequences of at most `max_length`: one, or several of a long text; those without a
            token in the loss are left out.
        truncated: Whether it was too long: its end was cut off, or all of it.
        stops: Whether the last token in the loss is a special one, so that the model learns to stop there.
        left_out: What the chat template leaves out of it: see `graftkit.corpus.layout.lay_out`.
        spells: A control token that is plain characters in it, of a text, a prompt, a completion or an answer.
        unmarked: Whether it has an answer that is not learnt, outside the template's `{% generation %}` blocks.
        untokened: How many of its words have no token of their own, and so a tag that is not learnt.
        surplus: Whether it has more negatives than are learnt from.
        roomless: Whether it is a prompt that leaves no room for an answer, and is left out.
    """

    examples: list[Example]
    truncated: bool
    stops: bool
    left_out: frozenset[str] = frozenset()
    spells: str | None = None
    unmarked: bool = False
    untokened: int = 0
    surplus: bool = False
    roomless: bool = False


def refuse_length(count: str, max_length: int, where: str) -> NoReturn:
    """Refuses a record that is too long.

    Args:
        count: How many tokens it has.
        max_length: How many it may have.
        where: The record.

    Raises:
        DataError: Always.
    """
    raise DataError(
        f"it has {count} tokens, more than data.max_length ({max_length:,})",
        where=where,
        hint="Raise data.max_length, or say data.overflow: drop_turns.",
    )
