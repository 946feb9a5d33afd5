"""Finds which embedding rows a new tokenizer's tokens keep, and the base's ids of its other tokens' texts."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from graftkit.interfaces.tokenizer import ROLES, Tokenizer, bytes_of
from graftkit.interfaces.vocabulary import ChangeKind, ExtensionPlan, VocabularyChange

__all__ = ["change_by_extension", "change_by_replacement"]


def change_by_extension(plan: ExtensionPlan, rows: int) -> VocabularyChange:
    """Returns the change of a model's vocabulary by an extension.

    Rows beyond the base's ids, which many models have, are used before the matrix grows. Ids of the base without a row
    get one.

    Args:
        plan: The extension.
        rows: The number of rows of the model's embedding.
    """
    size = plan.tokenizer.vocab_size
    rowless = range(rows, min((token.id for token in plan.tokens), default=size))
    return VocabularyChange(
        "extended",
        max(rows, size),
        (*rowless, *(token.id for token in plan.tokens)),
        (*(() for _ in rowless), *(_with_rows(token.parts, rows) for token in plan.tokens)),
    )


def change_by_replacement(base: Tokenizer, new: Tokenizer, rows: int, kind: ChangeKind) -> VocabularyChange:
    """Returns the change of a model's vocabulary by another tokenizer.

    A token with the same bytes as one of the base's keeps that one's row, whatever its id; a special token keeps the
    row of the one with the same text, or else with the same role. Where every id of the base keeps its meaning, the
    change is an extension.

    Args:
        base: The base model's tokenizer.
        new: The tokenizer that replaces it.
        rows: The number of rows of the model's embedding.
        kind: How the new one was made.
    """
    matcher = _Matcher(base, new)
    kept = {id: old for id in range(new.vocab_size) if (old := matcher.same(id)) is not None and old < rows}
    ids = tuple(id for id in range(new.vocab_size) if id not in kept)
    parts = tuple(_with_rows(matcher.parts(id), rows) for id in ids)
    if all(kept.get(id) == id for id in range(min(base.vocab_size, rows))):
        return VocabularyChange("extended", max(rows, new.vocab_size), ids, parts)
    return VocabularyChange(kind, new.vocab_size, ids, parts, kept)


def _with_rows(parts: Sequence[int], rows: int) -> tuple[int, ...]:
    return tuple(part for part in parts if part < rows)


class _Matcher:
    """Maps tokens of one tokenizer to another's."""

    def __init__(self, base: Tokenizer, new: Tokenizer) -> None:
        self._base = base
        self._new = new

    def same(self, id: int) -> int | None:
        """Returns the base's id of the same token, or None."""
        if id in self._special:
            return self._special[id]
        data = bytes_of(self._new, id)
        found = self._base_ids.get(data) if data else None
        if found is None or data is None:
            return None
        return id if bytes_of(self._base, id) == data and id in self._plain_ids else found

    def parts(self, id: int) -> Sequence[int]:
        """Returns the base's ids of a token's text; none for a special token or an id without a token."""
        data = bytes_of(self._new, id)
        if not data or id in self._special_ids:
            return ()
        try:
            ids = self._base.encode(data.decode("utf-8"))
        except UnicodeDecodeError:
            ids = []
        if ids and self._base.decode_bytes(ids) == data:
            return ids
        single = [self._base_ids.get(bytes([byte])) for byte in data]
        return [part for part in single if part is not None] or ids

    @cached_property
    def _special_ids(self) -> set[int]:
        return set(self._new.special_tokens.values())

    @cached_property
    def _special(self) -> dict[int, int | None]:
        """Id of each special token -> the base's id of it."""
        found: dict[int, int | None] = {
            id: self._base.special_tokens.get(name) for name, id in self._new.special_tokens.items()
        }
        for role in ROLES:
            mine, theirs = self._new.role_token(role), self._base.role_token(role)
            if mine in found and found[mine] is None:
                found[mine] = theirs
        return found

    @cached_property
    def _plain_ids(self) -> set[int]:
        return set(range(self._base.vocab_size)) - set(self._base.special_tokens.values())

    @cached_property
    def _base_ids(self) -> dict[bytes, int]:
        """Bytes of each token of the base that is not special -> its id, the lowest of several."""
        found: dict[bytes, int] = {}
        for id in sorted(self._plain_ids):
            data = bytes_of(self._base, id)
            if data:
                found.setdefault(data, id)
        return found
