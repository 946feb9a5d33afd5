"""Texts that are to be found by another one."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from graftkit import Column, SimilarTexts
from graftkit.errors import DataError, NothingToLearn
from graftkit.interfaces.record_format import kind_of

from graftkit_formats.text_columns import listed
from graftkit_formats.turns import string_of

__all__ = ["Retrieval"]

_QUERIES = ("query", "anchor")
_POSITIVES = ("positive", "pos", "positives", "positive_passages")
_NEGATIVES = ("negative", "neg", "negatives", "negative_passages")
_MOST_NUMBERED = 100
_SAID = 'A document is a text, or an object with "text", and perhaps "title"; several are a list of them.'
_LIST = re.compile(r"\s*\[\s*([\"'{]).*[\"'}]\s*\]\s*\Z", re.DOTALL)
_MEANT = "A text that is meant so stands in a list of its own."


class Retrieval:
    """Reads `{"query": ..., "positive": ..., "negative": ...}`: a text, what is to be found by it, and what is not.

    Documents are texts or lists of texts, or of objects with a `text` and perhaps a `title`, which is put before it.
    Negatives may be left out, or have columns of their own: `negative_1`, `negative_2` and so on.
    """

    def columns(self, found: Mapping[str, Column]) -> Collection[str] | None:
        """Fits where there is a query and something that is to be found by it."""
        query = next((name for name in _QUERIES if name in found and found[name].is_text), None)
        positive = next((name for name in _POSITIVES if name in found), None)
        if query is None or positive is None:
            return None
        return [query, positive, *_negatives(found)]

    def sample(self, record: Mapping[str, Any], where: str) -> SimilarTexts:
        """Returns the texts."""
        query, positive = (next((n for n in names if n in record), names[0]) for names in (_QUERIES, _POSITIVES))
        text = string_of(record, query, where)
        positives = _documents(record.get(positive), positive, where)
        negatives = [text for name in _negatives(record) for text in _documents(record[name], name, where)]
        if not text.strip():
            raise NothingToLearn(f'"{query}" is empty: there is nothing to learn', where=where)
        if not positives:
            raise NothingToLearn(f'"{positive}" is empty: there is nothing to learn', where=where)
        both = next((text for text in negatives if text in positives), None)
        if both is not None:
            raise DataError(f"{both[:60]!r} is to be found, and is a negative, too", where=where)
        return SimilarTexts(text, tuple(dict.fromkeys(positives)), tuple(dict.fromkeys(negatives)), where)


def _negatives(found: Collection[str]) -> list[str]:
    """Returns the columns that hold negatives, in their order."""
    numbered = (f"negative_{number}" for number in range(_MOST_NUMBERED))
    return [name for name in (*_NEGATIVES, *numbered) if name in found]


def _documents(value: object, key: str, where: str) -> list[str]:
    """Returns the texts of a column; none of an empty one, as tables have it where others have more negatives.

    An empty text alone is as none: tables have no other way to say so.

    Raises:
        DataError: It holds something else.
    """
    if value is None or (isinstance(value, str) and not value.strip()):
        return []
    if isinstance(value, str) and _LIST.match(value):
        raise DataError(f'"{key}" is a list that is written as text', where=where, hint=f"{listed(value, key)}{_MEANT}")
    return [_text(each, key, where) for each in (value if isinstance(value, list) else [value])]


def _text(value: object, key: str, where: str) -> str:
    match value:
        case str(text):
            title: object = ""
        case {"text": str(text), **rest}:
            title = rest.get("title") or ""
        case _:
            raise DataError(f'"{key}" holds {kind_of(value)}, no text', where=where, hint=_SAID)
    if not isinstance(title, str):
        raise DataError(f'a "title" in "{key}" is {kind_of(title)}, no text', where=where, hint=_SAID)
    if not text.strip():
        raise DataError(f'a text in "{key}" is empty', where=where, hint="Leave it out of the record.")
    return f"{title} {text}" if title else text
