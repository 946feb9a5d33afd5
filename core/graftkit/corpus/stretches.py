"""Reads a text file in parts of about 256 KiB, so that a corpus may be larger than the memory."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Iterator
from typing import TypeGuard

from graftkit.corpus.dataset import Dataset
from graftkit.corpus.turns import texts_in
from graftkit.interfaces import samples
from graftkit.interfaces.record_source import RecordSource, check_no_wide_form
from graftkit.interfaces.samples import (
    Completion,
    Conversation,
    LabelledAnswer,
    LongText,
    PreferencePair,
    Sample,
    SimilarTexts,
    Text,
    Tokens,
)

__all__ = ["STRETCH", "is_long", "pieces_of", "read_stretches", "stretches_of", "texts_of"]

STRETCH = 256 << 10
"""Bytes of a stretch, about."""


def read_stretches(file: RecordSource | Dataset, size: int = STRETCH) -> Iterator[str]:
    """Yields a file's text.

    A file of up to `size` bytes is one stretch. A larger one is cut where tokenizers cut it too: between two lines, or
    else between two words, at whatever character only where neither comes up. Of a file of records, each text (a
    message's content or reasoning, prompt and completion, or text) is a stretch of its own, so that nothing is learnt
    across records.

    Args:
        file: The file: its text, or its records.
        size: Bytes of a stretch, about: up to twice that many, four times where there is no place to cut.

    Raises:
        DataError: The file can't be read, is not UTF-8, or is UTF-16 or UTF-32 without a byte order mark, or a record
            is malformed; with the line.
    """
    return _of_records(file, size) if isinstance(file, Dataset) else _of_text(file, size)


def _of_text(source: RecordSource, size: int) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder("utf-8-sig")()
    rest, begun = "", False
    with source.open() as file:
        while True:
            raw = file.read(size)
            if not begun:
                check_no_wide_form(raw, str(source))
                begun = True
            try:
                text = decoder.decode(raw, final=not raw)
            except UnicodeDecodeError:
                raise source.not_utf8() from None
            if not raw:
                break
            cut = _cut(rest, size)
            if cut:
                yield rest[:cut]
            rest = rest[cut:] + text
    if rest:
        yield rest


def _cut(text: str, size: int) -> int:
    """Returns where to cut, or 0 where no place is found yet."""
    line = _last_alone(text, "\n")
    if line:
        return line + 1
    return _last_alone(text, " ") or (len(text) if len(text) >= 3 * size else 0)


def _last_alone(text: str, mark: str) -> int:
    """Finds the last mark without white space beside it, where a cut rarely changes tokens."""
    place = text.rfind(mark, 1, -1)
    while place > 0 and (text[place - 1].isspace() or text[place + 1].isspace()):
        place = text.rfind(mark, 1, place)
    return max(place, 0)


def _of_records(dataset: Dataset, size: int) -> Iterator[str]:
    for sample in dataset:
        for text in texts_of(sample):
            yield from pieces_of(text, size)


def texts_of(sample: Sample) -> Iterable[str]:
    """Returns the texts of a sample, as far as they are not empty: those of messages and tools, or of others.

    A text as long as a file comes in stretches.
    """
    match sample:
        case Conversation():
            texts: Iterable[str] = texts_in(sample)
        case Completion(prompt, completion):
            texts = (prompt, completion)
        case LongText(source):
            texts = read_stretches(source)
        case Tokens():
            texts = ()
        case PreferencePair(chosen, rejected):
            texts = (text for answer in (chosen, rejected) for text in texts_of(answer))
        case LabelledAnswer(answer):
            texts = texts_of(answer)
        case SimilarTexts(query, positives, negatives):
            texts = (query, *positives, *negatives)
        case _:
            texts = (sample.text,)
    return (text for text in texts if text)


def is_long(sample: object) -> TypeGuard[Text | LongText]:
    """Tells whether a sample is a text that is encoded in stretches: of a file, or of a record as long as one."""
    return isinstance(sample, LongText) or (isinstance(sample, Text) and len(sample.text) > samples.LONG_TEXT)


def stretches_of(sample: Text | LongText, size: int = STRETCH) -> Iterator[str]:
    """Yields a text in stretches, cut as `read_stretches` cuts; a short one is one stretch.

    Raises:
        DataError: As for `read_stretches`.
    """
    return read_stretches(sample.source, size) if isinstance(sample, LongText) else pieces_of(sample.text, size)


def pieces_of(text: str, size: int = STRETCH) -> Iterator[str]:
    """Yields a text in pieces of up to twice as many characters, cut as `read_stretches` cuts."""
    place = 0
    while len(text) - place > 2 * size:
        piece = text[place : place + 2 * size]
        cut = _cut(piece, 0)
        yield piece[:cut]
        place += cut
    yield text[place:]
