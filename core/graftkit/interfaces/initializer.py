"""What a new token's embedding starts as."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    import torch

    from graftkit.interfaces.tokenizer import Tokenizer

__all__ = ["Initializer", "MatrixRole", "NewRows"]

MatrixRole = Literal["input", "output", "tied"]
"""What a matrix is used for: embedding ids, scoring the next id, or both."""


@dataclass(frozen=True, slots=True)
class NewRows:
    """A matrix that gets new rows, and all that is known of them.

    Attributes:
        weight: The base model's matrix, `[base rows, hidden]`, float32, on the CPU. It may have more rows than
            `base` has ids; those were never trained.
        role: What the matrix is used for.
        ids: The new tokens' ids, `[new]`.
        parts: For each new token the base's ids that stood for its text; empty where the base had none.
        base: The base model's tokenizer.
        tokenizer: The tokenizer that the new ids are of.
        kept: For each id of the new tokenizer that the base has too, under whichever id: new id -> base id.
        texts: The texts that the tokens were learnt from, none where the tokenizer came from elsewhere; may be
            iterated again and again.
    """

    weight: torch.Tensor
    role: MatrixRole
    ids: Sequence[int]
    parts: Sequence[Sequence[int]]
    base: Tokenizer
    tokenizer: Tokenizer
    kept: Mapping[int, int]
    texts: Iterable[str]


class Initializer(Protocol):
    """Makes new rows. Built from its own config model: `Class(config)`, or `Class()` without one."""

    def rows(self, new: NewRows) -> torch.Tensor:
        """Returns the rows that training starts from.

        It must draw no random numbers but from a generator of its own with a fixed seed: one seed, one result. It
        leaves what it is given as it is.

        Returns:
            `[new, hidden]`, float32, finite, in memory of its own and without a gradient; there may be no new token,
            and one may have no parts.
        """
