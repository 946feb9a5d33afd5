"""What an export is compared by, in words: logits, the scores of a head, or vectors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from graftkit.interfaces.architecture import Head

__all__ = ["ComparedNumbers", "compared_in", "compared_of"]


@dataclass(frozen=True, slots=True)
class ComparedNumbers:
    """The numbers that an export's program computes.

    Attributes:
        name: What a proof calls them.
        one: A single one of them.
        divergence: How far those of a quantized export are from those of what was trained, and in which unit.
        likeliest: What the largest of them stands for, such as a token; empty for vectors.
    """

    name: str
    one: str
    divergence: str
    likeliest: str = ""


_LOGITS = ComparedNumbers("logits", "a logit", "the divergence of next tokens, in nats,", "token")
_SCORES = ComparedNumbers("scores", "a score", "the divergence of labels, in nats,", "label")
_VECTORS = ComparedNumbers("vectors", "a number of a vector", "the distance of vectors, 1 - cosine,")
_BY_NAME = {numbers.name: numbers for numbers in (_LOGITS, _SCORES, _VECTORS)}


def compared_of(head: Head) -> ComparedNumbers:
    """Returns what exports of models with a head are compared by."""
    if head == "embedding":
        return _VECTORS
    return _SCORES if head in ("sequence", "token") else _LOGITS


def compared_in(proof: Mapping[str, Any]) -> ComparedNumbers:
    """Returns what a proof compared, by the first of what it says that it covers."""
    return _BY_NAME.get(next(iter(proof.get("covers") or ()), ""), _LOGITS)
