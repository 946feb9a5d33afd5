"""Token ids."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from graftkit import Column, Tokens
from graftkit.errors import DataError

__all__ = ["TokenIds"]

_IGNORED = -100
"""In a label's place: the token is not learnt."""

_MASKS = ("loss_mask", "completion_mask", "assistant_masks")


class TokenIds:
    """Reads `{"input_ids": [...], "labels": [...]}`, where labels are the ids, or -100 for what is not learnt.

    In place of labels there may be a mask of ones and zeros: `loss_mask`, `completion_mask` or `assistant_masks`.
    Without either all tokens are learnt. An `attention_mask` must be ones: sequences are not padded here.
    """

    def columns(self, found: Mapping[str, Column]) -> Collection[str] | None:
        """Fits where there are ids, as lists of numbers."""
        if "input_ids" not in found or found["input_ids"].items != {"number"}:
            return None
        beside = [name for name in ("labels", "attention_mask", *_MASKS) if name in found]
        return ["input_ids", *beside]

    def sample(self, record: Mapping[str, Any], where: str) -> Tokens:
        """Returns the tokens."""
        ids = _integers(record, "input_ids", where)
        if "attention_mask" in record and {*_integers(record, "attention_mask", where)} != {1}:
            raise DataError('"attention_mask" has other numbers than 1: give the ids without padding', where=where)
        said = [name for name in ("labels", *_MASKS) if name in record]
        if len(said) > 1:
            raise DataError(f"it has {' and '.join(said)}, which say the same", where=where)
        values = _integers(record, said[0], where) if said else [1] * len(ids)
        if len(values) != len(ids):
            raise DataError(f'"{said[0]}" has {len(values)} values, "input_ids" {len(ids)}', where=where)
        weights = _of_labels(values, ids, where) if said == ["labels"] else _of_mask(values, said, where)
        if not any(weights[1:]):
            raise DataError("no token is learnt: there is nothing to predict", where=where)
        return Tokens(tuple(ids), tuple(weights), where)


def _integers(record: Mapping[str, Any], name: str, where: str) -> list[int]:
    values = record.get(name)
    if not isinstance(values, list) or not values or not all(type(value) is int for value in values):
        raise DataError(f'"{name}" is no list of whole numbers', where=where)
    return values


def _of_labels(labels: Sequence[int], ids: Sequence[int], where: str) -> list[float]:
    odd = next((n for n, (label, id) in enumerate(zip(labels, ids, strict=True)) if label not in (id, _IGNORED)), None)
    if odd is not None:
        raise DataError(
            f"label {odd} is {labels[odd]}, where the id is {ids[odd]}: a label is its own position's id, or -100",
            where=where,
            hint="Labels are not shifted.",
        )
    return [float(label != _IGNORED) for label in labels]


def _of_mask(values: Sequence[int], said: Sequence[str], where: str) -> list[float]:
    odd = next((n for n, value in enumerate(values) if value not in (0, 1)), None)
    if odd is not None:
        hint = "Labels, which hold ids and -100, are called labels." if values[odd] == _IGNORED else ""
        raise DataError(
            f'"{said[0]}" has {values[odd]} at position {odd}: it says 1 where a token is learnt, else 0',
            where=where,
            hint=hint,
        )
    return [float(value) for value in values]
