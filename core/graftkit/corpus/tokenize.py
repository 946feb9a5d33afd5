"""Encodes rows in batches, in their order, from any position on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any, Literal

from graftkit.corpus.encode import Encoded, Encoder
from graftkit.corpus.long_text import encode_stretches
from graftkit.corpus.plain_text import PlainTexts
from graftkit.corpus.row_files import Rows
from graftkit.corpus.stretches import STRETCH, read_stretches
from graftkit.corpus.tally import Tally
from graftkit.interfaces import samples
from graftkit.interfaces.samples import Conversation, LongText, Sample, Text
from graftkit.store.token_store import TokenStore

__all__ = ["Chunk", "Position", "position_units", "tokenize"]

_CHARACTERS = 1 << 20
"""Characters encoded in one call, about: enough work for all cores, yet a stop takes effect soon."""

_STRETCH = STRETCH
"""Bytes of a stretch of a long text, about."""

_ROWS = 64
"""Conversations and completions that make a chunk."""


@dataclass(frozen=True, slots=True)
class Position:
    """A position from which encoding resumes.

    Attributes:
        rows: How many rows are done.
        stretches: How many stretches of the next row are done, which is a long text.
        carry: Its tokens that are not yet in a window.
        begun: Whether a window of it has been cut.
    """

    rows: int = 0
    stretches: int = 0
    carry: Sequence[int] = ()
    begun: bool = False

    def to_json(self) -> dict[str, Any]:
        """Returns the position as JSON."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Position:
        """Returns the position that `to_json` gave."""
        return cls(**data)


def position_units() -> list[int]:
    """Returns the sizes that positions depend on: a stored position is valid only with the same ones."""
    return [samples.LONG_TEXT, _STRETCH]


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some encoded rows.

    Attributes:
        tokens: Their examples.
        tally: What became of them.
        position: Where to go on after them.
    """

    tokens: TokenStore
    tally: Tally
    position: Position


def tokenize(encoder: Encoder, rows: Rows, position: Position) -> Iterator[Chunk]:
    """Encodes rows as `encoder.encode` does, many plain texts at a time, long ones a stretch at a time.

    Args:
        encoder: The encoder.
        rows: The rows.
        position: Where to begin.

    Yields:
        Chunks. How rows are cut into chunks changes nothing about what they are together.

    Raises:
        DataError: A row can't be encoded.
    """
    done = position.rows
    for way, group in _groups(encoder.plain, rows.after(done)):
        if way == "stretches" and isinstance(group[0], LongText):
            yield from _long_text(encoder, group[0], position if position.rows == done else Position(done))
        elif way == "together":
            yield _plain_texts(encoder, [row for row in group if isinstance(row, Text)], done)
        else:
            yield _one_by_one(encoder, group, done)
        done += len(group)


_Way = Literal["stretches", "together", "one by one"]


def _way(plain: PlainTexts, row: Sample) -> _Way:
    """Returns how a row is encoded."""
    if isinstance(row, LongText) and plain.alone:
        return "stretches"
    return "together" if isinstance(row, Text) and plain.takes(row.text) else "one by one"


def _groups(plain: PlainTexts, rows: Iterator[Sample]) -> Iterator[tuple[_Way, list[Sample]]]:
    """Groups neighbouring rows that are encoded in one call."""
    group: list[Sample] = []
    before: _Way = "one by one"
    size = 0
    for row in rows:
        way = _way(plain, row)
        weight = len(row.text) if isinstance(row, Text) and way == "together" else _CHARACTERS // _ROWS
        if group and (size + weight > _CHARACTERS or way != before or way == "stretches"):
            yield before, group
            group, size = [], 0
        group.append(row)
        before, size = way, size + weight
    if group:
        yield before, group


def _plain_texts(encoder: Encoder, rows: Sequence[Text], done: int) -> Chunk:
    tokens, lost = encoder.plain.encode([row.text for row in rows])
    for row in rows if encoder.lacks_row(tokens.ids) else ():
        encoder.encode(row)  # the one that is refused says where it is
    return Chunk(tokens, _tally_of_texts(encoder, tokens, len(rows), lost), Position(done + len(rows)))


def _tally_of_texts(encoder: Encoder, tokens: TokenStore, rows: int, lost: int) -> Tally:
    stops = sorted({*encoder.plain.end} & {*encoder.tokenizer.special_tokens.values()}) if rows else []
    return Tally(
        rows=rows,
        examples=len(tokens),
        lost=lost,
        endless=0 if stops else rows,
        supervised=int(tokens.supervised.sum()),
        stops=stops,
    )


def _long_text(encoder: Encoder, row: LongText, position: Position) -> Iterator[Chunk]:
    """Encodes a long text in chunks, each of which has the position after it."""
    plain = encoder.plain
    carry = list(position.carry) if position.stretches else list(plain.start)
    begun, stretches = position.begun, position.stretches
    rest = islice(read_stretches(row.source, _STRETCH), stretches, None)
    for ids, parts in encode_stretches(encoder.tokenizer.encode_batch, rest):
        encoder.check_rows(ids, row.where)
        tokens, carry = plain.full_windows([*carry, *ids], begins=not begun)
        begun, stretches = begun or len(tokens) > 0, stretches + parts
        yield Chunk(tokens, _tally_of_texts(encoder, tokens, 0, 0), Position(position.rows, stretches, carry, begun))
    encoder.check_rows([*plain.start, *plain.end], row.where)
    tokens = plain.windows([*carry, *plain.end], begins=not begun)
    lost = 0 if begun or len(tokens) else 1
    yield Chunk(tokens, _tally_of_texts(encoder, tokens, 1, lost), Position(position.rows + 1))


def _one_by_one(encoder: Encoder, rows: Sequence[Sample], done: int) -> Chunk:
    encoded = [encoder.encode(row) for row in rows]
    tokens = TokenStore.of(example for item in encoded for example in item.examples)
    return Chunk(tokens, _tally_of(encoder, rows, encoded, tokens), Position(done + len(rows)))


def _tally_of(encoder: Encoder, rows: Sequence[Sample], encoded: Sequence[Encoded], tokens: TokenStore) -> Tally:
    examples = [(example, row) for row, item in zip(rows, encoded, strict=True) for example in item.examples]
    ends = {int(example.ids[example.supervised.nonzero()[0][-1]]) for example, _ in examples}
    chats = [row for row in rows if isinstance(row, Conversation)]
    openings = [row.messages[0] for row in chats]
    answered = [example.prompt_length > 0 and not isinstance(row, Text | LongText) for example, row in examples]
    return Tally(
        rows=len(rows),
        examples=len(examples),
        truncated=sum(item.truncated for item in encoded),
        overlong=[row.where for row, item in zip(rows, encoded, strict=True) if item.truncated],
        lost=sum(not item.examples for item in encoded),
        endless=sum(not item.stops for item in encoded),
        supervised=int(tokens.supervised.sum()),
        stops=sorted(ends & {*encoder.tokenizer.special_tokens.values()}),
        systems=list(dict.fromkeys(first.content if first.role == "system" else None for first in openings))[:2],
        prompt=next((words for row in chats if (words := _short_question(row))), None),
        answers=[number for number, has_answer in enumerate(answered) if has_answer],
        left_out=dict(Counter(what for item in encoded for what in sorted(item.left_out))),
    )


def _short_question(row: Conversation) -> str | None:
    """Returns the first user message if it is short, for the report."""
    words = next((message.content for message in row.messages if message.role == "user"), "")
    return words if 0 < len(words) < 200 and "\n" not in words else None
