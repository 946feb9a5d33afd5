"""Texts with a label, with several, or with a number."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import Any

from graftkit import Column, LabelledText, Message, ScoredText, TextWithLabels
from graftkit.errors import DataError, NothingToLearn
from graftkit.interfaces.record_format import kind_of
from graftkit.interfaces.samples import MOST_SCORE, joined

from graftkit_formats.answered import conversation
from graftkit_formats.config import LabelConfig, ScoreConfig
from graftkit_formats.turns import string_of

__all__ = ["Label", "Labels", "Score"]

_NO_ROW = "A row of zeros and ones is written as the labels whose place has a one."
_MEANT_AS_NUMBER = "where the number itself is learnt: format: score, columns: {score: label}"


_TEXTS = (
    ("text", "text_pair"),
    ("sentence1", "sentence2"),
    ("premise", "hypothesis"),
    ("question1", "question2"),
)
"""The columns of a text and of the second one of a pair, by the names that data sets give them."""


class Label:
    """Reads `{"text": ..., "label": ...}`: the user gives the text, the assistant answers the label.

    A second text, `text_pair`, makes a pair of it, of which a classifier learns the label; so for the formats below.
    A label that is no whole number, such as 0.5, is a number that the text has.

    Args:
        config: Its fields.
    """

    def __init__(self, config: LabelConfig) -> None:
        self._names = config.names

    def columns(self, found: Mapping[str, Column]) -> Collection[str] | None:
        """Fits where there are a text and a label."""
        texts = _text_columns(found)
        return [*texts, "label"] if texts and "label" in found else None

    def sample(self, record: Mapping[str, Any], where: str) -> LabelledText | ScoredText:
        """Returns the text with its label."""
        (text, second), label = _texts_of(record, where), record.get("label")
        if type(label) is float:
            return ScoredText(_learnt(text, where), where, _number(label, "label", where), second)
        messages = (Message("user", text), Message("assistant", self._label(record, where)))
        return LabelledText(conversation(messages, where).messages, where, second=second)

    def _label(self, record: Mapping[str, Any], where: str) -> str:
        label = record.get("label")
        if type(label) is int:
            otherwise = f"; or, to learn the texts alone, format: text; {_MEANT_AS_NUMBER}"
            return _name(label, self._names, where, "label", otherwise)
        if label is not None and not isinstance(label, str):
            raise DataError(f'"label" is {kind_of(label)}, no text and no number', where=where)
        return string_of(record, "label", where)


class Labels:
    """Reads `{"text": ..., "labels": [...]}`: a text, and those labels of a few that it has; an empty list is none.

    Args:
        config: Its fields.
    """

    def __init__(self, config: LabelConfig) -> None:
        self._names = config.names

    def columns(self, found: Mapping[str, Column]) -> Collection[str] | None:
        """Fits where there are a text and lists of labels, and no single label beside them."""
        lists = "labels" in found and "list" in found["labels"].types and "object" not in found["labels"].items
        fits = lists and "label" not in found
        texts = _text_columns(found)
        return [*texts, "labels"] if fits and texts else None

    def sample(self, record: Mapping[str, Any], where: str) -> TextWithLabels:
        """Returns the text with its labels."""
        labels = record.get("labels")
        if not isinstance(labels, list):
            told = "is missing or null" if labels is None else f"is {kind_of(labels)}, no list"
            raise DataError(f'"labels" {told}', where=where, hint="A text without a label has an empty list: [].")
        names = tuple(self._named(label, where) for label in labels)
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            told = f"the label {twice[:60]!r} stands there twice"
            raise DataError(told, where=where, hint=f"Name each label once. {_NO_ROW}")
        text, second = _texts_of(record, where)
        return TextWithLabels(_learnt(text, where), where, names, second)

    def _named(self, label: object, where: str) -> str:
        if type(label) is int:
            return _name(label, self._names, where, "labels")
        if not isinstance(label, str) or not label:
            told = "empty" if label == "" else f"{kind_of(label)}, no text and no whole number"
            hint = _NO_ROW if type(label) is float else ""
            raise DataError(f'one of "labels" is {told}', where=where, hint=hint)
        return label


class Score:
    """Reads `{"text": ..., "score": ...}`: a text, and a number.

    Args:
        config: Its fields.
    """

    def __init__(self, config: ScoreConfig) -> None:
        self._as_text = config.as_text

    def columns(self, found: Mapping[str, Column]) -> Collection[str] | None:
        """Fits where there are a text and a number, and no label beside them."""
        numbers = "score" in found and {"number", *(["string"] if self._as_text else [])} & found["score"].types
        fits = numbers and not {"label", "labels"} & found.keys()
        texts = _text_columns(found)
        return [*texts, "score"] if fits and texts else None

    def sample(self, record: Mapping[str, Any], where: str) -> ScoredText:
        """Returns the text with its number."""
        text, second = _texts_of(record, where)
        score = record.get("score")
        if self._as_text and isinstance(score, str):
            with suppress(ValueError):
                score = float(score)
        return ScoredText(_learnt(text, where), where, _number(score, "score", where), second)


def _text_columns(found: Mapping[str, Column]) -> list[str]:
    """Returns the columns of the text, or of the two of a pair; none where there is no text."""
    for pair in _TEXTS:
        if all(name in found and found[name].is_text for name in pair):
            return [*pair]
    return ["text"] if "text" in found and found["text"].is_text else []


def _texts_of(record: Mapping[str, Any], where: str) -> tuple[str, str | None]:
    """Returns the text of a record, which of a pair ends with the second one, and that second one.

    Raises:
        DataError: A text is missing or no text.
    """
    names = next((pair for pair in _TEXTS if pair[0] in record), _TEXTS[0])
    text = string_of(record, names[0], where)
    if names[1] not in record:
        if names[0] != "text":
            raise DataError(f'"{names[1]}" is missing or null', where=where)
        return text, None
    second = _learnt(string_of(record, names[1], where), where, names[1])
    return joined(_learnt(text, where, names[0]), second), second


def _learnt(text: str, where: str, name: str = "text") -> str:
    """Returns a text that there is something in.

    Raises:
        NothingToLearn: There is nothing.
    """
    if not text.strip():
        raise NothingToLearn(f'"{name}" is empty: there is nothing to learn', where=where)
    return text


def _name(label: int, names: Sequence[str], where: str, use: str, otherwise: str = "") -> str:
    """Returns the word for a label that is a number.

    Args:
        label: The number.
        names: The words.
        where: File and line.
        use: The format.
        otherwise: What else may be meant.

    Raises:
        DataError: There is none.
    """
    if 0 <= label < len(names):
        return names[label]
    if names:
        raise DataError(
            f"the label is the number {label}, and 'names' has a word for {_numbers(len(names))}",
            where=where,
            hint="Name the others, too, or leave such records out: in some data sets -1 means that there is no label.",
        )
    raise DataError(
        f"the label is the number {label}, for which there is no word",
        where=where,
        hint=f"Give the words: format: {{use: {use}, names: [FIRST, SECOND]}}{otherwise}.",
    )


def _numbers(count: int) -> str:
    return f"0 to {count - 1}" if count > 1 else "0 alone"


def _number(value: object, key: str, where: str) -> float:
    """Returns a record's number.

    Raises:
        DataError: It is none.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        told = "missing or null" if value is None else f"{kind_of(value)}, no number"
        hint = "Where numbers are written as text: format: {use: score, as_text: true}." if type(value) is str else ""
        raise DataError(f'"{key}" is {told}', where=where, hint=hint)
    if not abs(value) <= MOST_SCORE:
        raise DataError(f'"{key}" is {value!r:.40}, no number from -{MOST_SCORE:g} to {MOST_SCORE:g}', where=where)
    return float(value)
