"""Words with tags."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import pairwise
from typing import Any

from graftkit import Column, TaggedText, tagged_words
from graftkit.errors import DataError, NothingToLearn
from graftkit.interfaces.record_format import kind_of

from graftkit_formats.config import TagConfig
from graftkit_formats.number_words import NumberWords
from graftkit_formats.text_columns import listed
from graftkit_formats.turns import string_of

__all__ = ["Tags"]

_WORDS = ("tokens", "words")
_TAGS = ("tags", "ner_tags", "labels", "pos_tags")
_SPANS = ("entities", "spans", "label", "labels")
_STARTS, _ENDS, _LABELS = ("start", "start_offset"), ("end", "end_offset"), ("label", "labels")
"""What spaCy, Prodigy, doccano and Label Studio call the place of an entity, and its label."""

_WORD = re.compile(r"\w+|[^\w\s]")


class Tags(NumberWords):
    """Reads `{"tokens": [...], "tags": [...]}`, words with a tag each, and `{"text": ..., "entities": [...]}`.

    Entities are objects with `start`, `end` and `label`, in characters of the text, or lists of the three; the column
    may be called `spans`, `label` or `labels`, too. The text's words are then its runs of letters and digits, and its
    other characters one by one, cut where an entity begins or ends; the first word of an entity has the tag `B-LABEL`,
    its others `I-LABEL`, and all other words `O`.

    Args:
        config: Its fields.
    """

    def __init__(self, config: TagConfig) -> None:
        super().__init__(config.names)

    def columns(self, found: Mapping[str, Column]) -> Collection[str] | None:
        """Fits where there are lists of words and of tags, or a text and a list that says where its entities are."""
        words = [name for name in _WORDS if name in found and found[name].items <= {"string"} and _is_list(found[name])]
        tags = [name for name in _TAGS if name in found and _is_list(found[name])]
        if words and tags:
            return [words[0], tags[0]]
        placed = [
            name for name in _SPANS if name in found and _is_list(found[name]) and _says_places(name, found[name])
        ]
        if placed and "text" in found and found["text"].is_text:
            return ["text", placed[0]]
        return None

    def reading(self, record: Mapping[str, Any]) -> str:
        """Says which words a file keeps for its tags, and that places of entities cut words."""
        if _has_places(record):
            with suppress(DataError):  # which `sample` raises with the place
                return _CUT if _cuts_words(self.sample(record, "")) else ""
            return ""
        key = next((name for name in _TAGS if name in record), _TAGS[0])
        return self.told_words(key, record.get(key))

    def sample(self, record: Mapping[str, Any], where: str) -> TaggedText:
        """Returns the text with its words' tags."""
        if _has_places(record):
            named = [name for name in _SPANS if name in record]
            spans = next((name for name in named if isinstance(record[name], list)), next(iter(named), None))
            if spans is None:
                told = 'neither "entities" nor "spans" says which entities the text has, or it is null'
                raise DataError(told, where=where, hint="Where there is none, write an empty list.")
            return _of_spans(string_of(record, "text", where), record[spans], spans, where)
        name, key = (next((key for key in keys if key in record), keys[0]) for keys in (_WORDS, _TAGS))
        words, tags = (_list(record.get(each), each, where) for each in (name, key))
        if len(words) != len(tags):
            raise DataError(f'"{name}" has {len(words):,} words, and "{key}" {len(tags):,} tags', where=where)
        if not words:
            raise NothingToLearn(f'"{name}" is empty: there is nothing to learn', where=where)
        for number, word in enumerate(words, 1):
            if not isinstance(word, str) or not word.strip():
                told = f"is {kind_of(word)}, no text" if not isinstance(word, str) else "is empty"
                raise DataError(f'word {number:,} of "{name}" {told}', where=where, hint=_EMPTY)
        return tagged_words(words, [self._tag(tag, key, where) for tag in tags], where)

    def _tag(self, tag: object, key: str, where: str) -> str:
        if type(tag) is int:
            return self.word_of(tag, key, where, "tags", one="tag")
        if not isinstance(tag, str) or not tag:
            told = "empty" if tag == "" else f"{kind_of(tag)}, no text and no whole number"
            raise DataError(f'one of "{key}" is {told}', where=where)
        return tag


_CUT = (
    "entities begin or end within a word, which is cut there: places count characters, and an end is the place after "
    "the last one"
)
_ALONE = "To learn the text alone, say format: text."
_PLACE = (
    "Places count characters from 0, and an end is the place after the last one. Programs in JavaScript count most "
    "emoji as two."
)
_OVERLAP = "A word has one tag: keep one of the two."
_EMPTY = "A word is a text with something but white space in it: leave the others out, with their tags."


def _has_places(record: Mapping[str, Any]) -> bool:
    """Tells whether a record is a text with the places of its entities, and no list of words."""
    return "text" in record and not any(name in record for name in (*_WORDS, "tags", "ner_tags", "pos_tags"))


def _cuts_words(sample: TaggedText) -> bool:
    """Tells whether two words with different tags are one: letters with a case, or digits, that follow one another.

    Other scripts, such as Chinese, may have no spaces.
    """
    tagged = zip(sample.places, sample.tags, strict=True)
    return any(
        end == start and tag != other and _is_cased(sample.text[end - 1]) and _is_cased(sample.text[start])
        for ((_, end), tag), ((start, _), other) in pairwise(tagged)
    )


def _is_cased(character: str) -> bool:
    return character.lower() != character.upper() or character.isdecimal()


def _is_list(column: Column) -> bool:
    return "list" in column.types and column.types <= {"list", "null"}


def _says_places(name: str, column: Column) -> bool:
    """Tells whether lists may be of entities: of places, or empty ones; empty `labels` are of a text without any."""
    if not column.items:
        return name != "labels"
    of_objects = all(any(key in column.keys for key in keys) for keys in (_STARTS, _ENDS, _LABELS))
    return column.items <= {"list", "object"} and (of_objects or "object" not in column.items)


def _list(value: object, key: str, where: str) -> list[Any]:
    if not isinstance(value, list):
        told = "is missing or null" if value is None else f"is {kind_of(value)}, no list"
        raise DataError(f'"{key}" {told}', where=where, hint=listed(value, key))
    return value


def _of_spans(text: str, spans: object, key: str, where: str) -> TaggedText:
    """Returns a text whose words have the tags that the places of its entities say."""
    entities, covered = list[tuple[int, int, str]](), 0
    for span in _list(spans, key, where):
        start, end, label = _said(span, text, key, where)
        covered += end - start
        if covered > 2 * len(text):  # or looking at each would take hours
            told = f'the entities of "{key}" overlap: together they are more than twice as long as the text'
            raise DataError(told, where=where, hint=_OVERLAP)
        entities.append(_entity(span, text, (start, end, label), key, where))
    entities.sort()
    for (_, end, label), (start, _, other) in pairwise(entities):
        if start < end:
            told = f'the entities {label[:40]!r} up to {end:,} and {other[:40]!r} from {start:,} of "{key}" overlap'
            raise DataError(told, where=where, hint=_OVERLAP)
    if not text.strip():
        raise NothingToLearn('"text" is empty: there is nothing to learn', where=where)
    found = list(_words(text, entities))
    return TaggedText(text, where, tuple(place for place, _ in found), tuple(tag for _, tag in found))


def _said(span: object, text: str, key: str, where: str) -> tuple[int, int, str]:
    """Returns where an entity begins and ends, as it says so, and its label."""
    if isinstance(span, dict):
        span = [next((span[name] for name in names if name in span), None) for names in (_STARTS, _ENDS, _LABELS)]
    match span:
        case [int(), int(), [str(), str(), *_] as labels]:
            told = f'an entity of "{key}" has {len(labels):,} labels'
            raise DataError(told, where=where, hint="A word has one tag: keep one of them.")
        case [int(start), int(end), str(label) | [str(label)]] if bool not in (type(start), type(end)):
            if 0 <= start < end <= len(text) and label:
                return start, end, label
            raise _misplaced(text, (start, end, label), key, where)
    told = f'one of "{key}" is no object with "start" and "end", whole numbers, and "label", a text'
    raise DataError(f"{told}, nor a list of the three", where=where, hint=_ALONE)


def _misplaced(text: str, entity: tuple[int, int, str], key: str, where: str) -> DataError:
    start, end, label = entity
    told = f'the entity {label[:40]!r} of "{key}" is from {start:,} to {end:,}'
    return DataError(f"{told}; the text has {len(text):,} characters, and an entity one that is no space", where=where)


def _entity(span: object, text: str, entity: tuple[int, int, str], key: str, where: str) -> tuple[int, int, str]:
    """Returns an entity without white space around it.

    Args:
        span: What the record says of it, its own text, too, in some programs' files.
        text: The text.
        entity: Where it begins and ends, and its label.
        key: The column.
        where: File and line.
    """
    start, end, label = entity
    inside = text[start:end]
    if inside.isspace():
        raise _misplaced(text, entity, key, where)
    own = span.get("text") if isinstance(span, dict) else None
    if isinstance(own, str) and _unspaced(own) != _unspaced(inside):
        told = f"the entity {label[:40]!r} of {key!r} has the text {own[:40]!r}, and from {start:,} to {end:,}"
        raise DataError(f"{told} stands {inside[:40]!r}", where=where, hint=_PLACE)
    return start + len(inside) - len(inside.lstrip()), start + len(inside.rstrip()), label


def _unspaced(text: str) -> str:
    """Returns a text without white space, and without line breaks that are written out, as some programs have them."""
    return re.sub(r"\s|\\n", "", text)


def _words(text: str, entities: Sequence[tuple[int, int, str]]) -> Iterator[tuple[tuple[int, int], str]]:
    """Yields the place of each word, and its tag."""
    at = 0
    for start, end, label in [*entities, (len(text), len(text), "")]:
        for place in _places(text, at, start):
            yield place, "O"
        tag = f"B-{label}"
        for place in _places(text, start, end):
            yield place, tag
            tag = f"I-{label}"
        at = end


def _places(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yields the places of words in a part of a text; marks, such as vowel signs, belong to what they stand on."""
    last = None
    for first, following in (word.span() for word in _WORD.finditer(text, start, end)):
        if last is None:
            last = first, following
        elif first == last[1] and (_is_mark(text[first]) or (_is_letter(text[last[0]]) and _is_letter(text[first]))):
            last = last[0], following
        else:
            yield last
            last = first, following
    if last is not None:
        yield last


def _is_mark(character: str) -> bool:
    return unicodedata.category(character).startswith("M")


def _is_letter(character: str) -> bool:
    return character.isalnum() or character == "_"
