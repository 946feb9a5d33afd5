"""Encodes records in batches, in their order, from any position on."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain, islice
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from graftkit.corpus.answers_compared import labelled_in, shown, with_mismatched
from graftkit.corpus.encode import Encoded, Encoder, has_answer
from graftkit.corpus.long_text import encode_stretches
from graftkit.corpus.plain_text import PlainTexts
from graftkit.corpus.sample_files import Samples
from graftkit.corpus.stretches import STRETCH, is_long, stretches_of
from graftkit.corpus.tally import Tally
from graftkit.corpus.text_targets import JudgedText, pair_as_json
from graftkit.interfaces import samples
from graftkit.interfaces.samples import Completion, Conversation, LongText, Sample, SimilarTexts, Text, Unanswered
from graftkit.store.token_store import Example, TokenStore

__all__ = ["Chunk", "Position", "encoded_parts", "position_units", "tokenize"]

_CHARACTERS = 1 << 20
"""Characters encoded in one call, about: enough work for all cores, yet a stop takes effect soon."""

_STRETCH = STRETCH
"""Bytes of a stretch of a long text, about."""

_SAMPLES = 64
"""Conversations and completions that make a chunk."""

_SHORT = 200
"""Characters that a question has fewer of which a user is shown to try the model with."""
_WORDS, _LETTERS = 6, 40
"""Words, and characters, of a text that a user is shown for that at most."""


@dataclass(frozen=True, slots=True)
class Position:
    """A position from which encoding resumes.

    Attributes:
        records: How many are done.
        stretches: How many stretches of the next record are done, which is a long text.
        carry: Its tokens that are not yet in a window.
        begun: Whether a window of it has been cut.
    """

    records: int = 0
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
    """Some encoded records.

    Attributes:
        tokens: Their examples.
        tally: What became of them.
        position: Where to go on after them.
        records: The number of the record that each example is of, `[examples]`, int64.
    """

    tokens: TokenStore
    tally: Tally
    position: Position
    records: NDArray[np.int64]


def tokenize(encoder: Encoder, samples: Samples, position: Position) -> Iterator[Chunk]:
    """Encodes records as `encoder.encode` does, many plain texts at a time, long ones a stretch at a time.

    Args:
        encoder: The encoder.
        samples: The records.
        position: Where to begin.

    Yields:
        Chunks. How records are cut into chunks changes nothing about what they are together.

    Raises:
        DataError: A record can't be encoded.
    """
    done = position.records
    records = _in_order(samples, done)
    for way, group in _in_turn(records) if encoder.in_turn else _groups(encoder, records):
        if way == "stretches" and is_long(group[0]):
            yield from _long_text(encoder, group[0], position if position.records == done else Position(done))
        elif way == "together":
            yield _plain_texts(encoder, [sample for sample in group if isinstance(sample, Text)], done)
        else:
            yield _one_by_one(encoder, group, done)
        done += len(group)


def _in_order(samples: Samples, done: int) -> Iterator[Sample]:
    """Yields the records after the first `done`; a labelled one with the answer of the record before it."""
    rest = samples.after(done)
    first = next(rest, None)
    if first is None:
        return rest
    if labelled_in(first):
        before = next(samples.after((done or len(samples)) - 1))
        return with_mismatched(chain([first], rest), before)
    return chain([first], rest)


_Way = Literal["stretches", "together", "one by one"]


def _way(plain: PlainTexts, sample: Sample) -> _Way:
    """Returns how a record is encoded."""
    if isinstance(sample, LongText):
        return "stretches" if plain.alone else "one by one"
    if not (isinstance(sample, Text) and plain.takes(sample.text)):
        return "one by one"
    return "stretches" if plain.alone and is_long(sample) else "together"


def _groups(encoder: Encoder, samples: Iterator[Sample]) -> Iterator[tuple[_Way, list[Sample]]]:
    """Groups neighbouring records that are encoded in one call."""
    plain = encoder.plain
    group: list[Sample] = []
    before: _Way = "one by one"
    size = 0
    for sample in samples:
        way = _way(plain, sample)
        if isinstance(sample, Text) and way == "together":
            weight = len(sample.text)
        else:
            weight = max(_CHARACTERS // _SAMPLES, encoder.characters_by_answer(sample))
        if group and (size + weight > _CHARACTERS or way != before or way == "stretches"):
            yield before, group
            group, size = [], 0
        group.append(sample)
        before, size = way, size + weight
    if group:
        yield before, group


def _in_turn(samples: Iterator[Sample]) -> Iterator[tuple[_Way, list[Sample]]]:
    """Groups neighbouring records that are encoded one by one."""
    while group := list(islice(samples, _SAMPLES)):
        yield "one by one", group


def _plain_texts(encoder: Encoder, samples: Sequence[Text], done: int) -> Chunk:
    tokens, counts = encoder.plain.encode([sample.text for sample in samples])
    for sample in samples if encoder.lacks_row(tokens.ids) else ():
        encoder.encode(sample)  # the one that is refused says where it is
    lost = counts.count(0)
    tally = replace(
        _tally_of_texts(encoder, tokens, len(samples), lost),
        spelt=_counted(map(encoder.spelt, samples)),
        prompt=next((words for sample in samples if (words := _to_try(sample))), None),
    )
    return Chunk(tokens, tally, Position(done + len(samples)), _numbers(counts, done))


def _numbers(counts: Sequence[int], first: int) -> NDArray[np.int64]:
    """Returns the number of each example's record, where the first of the records has the number `first`."""
    return np.repeat(np.arange(first, first + len(counts)), counts)


def _tally_of_texts(encoder: Encoder, tokens: TokenStore, records: int, lost: int) -> Tally:
    stops = sorted({*encoder.plain.end} & {*encoder.tokenizer.special_tokens.values()}) if records else []
    return Tally(
        records=records,
        examples=len(tokens),
        lost=lost,
        endless=0 if stops else records,
        loss_tokens=int(tokens.loss_tokens.sum()),
        stops=stops,
    )


def encoded_parts(encoder: Encoder, sample: Sample) -> Iterator[Iterable[Example]]:
    """Yields the examples of a record as `Encoder.encode` gives them, those of a long text a stretch at a time.

    Raises:
        DataError: The record can't be encoded.
    """
    if is_long(sample) and not encoder.in_turn and _way(encoder.plain, sample) == "stretches":
        yield from (chunk.tokens for chunk in _long_text(encoder, sample, Position()))
    else:
        yield encoder.encode(sample).examples


def _long_text(encoder: Encoder, sample: Text | LongText, position: Position) -> Iterator[Chunk]:
    """Encodes a long text in chunks, each of which has the position after it."""
    plain = encoder.plain
    carry = list(position.carry) if position.stretches else list(plain.start)
    begun, stretches = position.begun, position.stretches
    rest = islice(stretches_of(sample, _STRETCH), stretches, None)
    for ids, parts in encode_stretches(encoder.encode_plainly, rest):
        encoder.check_rows(ids, sample.where)
        if not stretches and encoder.begins_itself(ids):
            carry = []
        tokens, carry = plain.full_windows([*carry, *ids], begins=not begun)
        begun, stretches = begun or len(tokens) > 0, stretches + parts
        reached = Position(position.records, stretches, carry, begun)
        yield Chunk(tokens, _tally_of_texts(encoder, tokens, 0, 0), reached, _numbers([len(tokens)], position.records))
    encoder.check_rows([*plain.start, *plain.end], sample.where)
    tokens = plain.windows([*carry, *([] if encoder.ends_itself(carry) else plain.end)], begins=not begun)
    lost = 0 if begun or len(tokens) else 1
    tally = replace(
        _tally_of_texts(encoder, tokens, 1, lost),
        spelt=_counted([encoder.spelt(sample)]),
        prompt=_beginning(next(stretches_of(sample, _STRETCH), "")),
    )
    yield Chunk(tokens, tally, Position(position.records + 1), _numbers([len(tokens)], position.records))


def _one_by_one(encoder: Encoder, samples: Sequence[Sample], done: int) -> Chunk:
    encoded = encoder.encode_many(samples)
    tokens = TokenStore.of(example for item in encoded for example in item.examples)
    numbers = _numbers([len(item.examples) for item in encoded], done)
    return Chunk(tokens, _tally_of(encoder, samples, encoded, tokens), Position(done + len(samples)), numbers)


def _tally_of(encoder: Encoder, samples: Sequence[Sample], encoded: Sequence[Encoded], tokens: TokenStore) -> Tally:
    examples = [
        (example, sample, record)
        for record, (sample, item) in enumerate(zip(samples, encoded, strict=True))
        for example in item.examples
    ]
    whole = [item for item in encoded if not (item.truncated and encoder.rules.overflow == "truncate")]
    learnt = (example.ids[example.loss_mask] for item in whole for example in item.examples)
    ends = {int(ids[-1]) for ids in learnt if len(ids)}
    if any(isinstance(sample, Unanswered) for sample in samples):
        ends.update(encoder.answer_ends)
    shows, judged = list(map(shown, samples)), encoder.rules.targets is not None
    chats = [sample for sample in shows if isinstance(sample, Conversation)]
    talks = [isinstance(sample, Conversation) for sample in shows]
    openings = [sample.messages[0] for sample in chats]
    answers = [n for n, (example, sample, _) in enumerate(examples) if has_answer(example, sample)]
    return Tally(
        records=len(samples),
        examples=len(examples),
        truncated=sum(item.truncated for item in encoded),
        overlong=[sample.where for sample, item in zip(samples, encoded, strict=True) if item.truncated],
        lost=sum(not item.examples and not item.roomless for item in encoded),
        endless=sum(not item.stops for item in encoded),
        loss_tokens=int(tokens.loss_tokens.sum()),
        stops=sorted(ends & {*encoder.tokenizer.special_tokens.values()}),
        systems=list(dict.fromkeys(first.content if first.role == "system" else None for first in openings))[:2],
        tools=list(dict.fromkeys(json.dumps(sample.tools) if sample.tools else "" for sample in chats))[:2],
        prompt=next((words for sample in shows if (words := _to_try(sample, judged=judged))), None),
        answers=answers,
        answered=[examples[number][2] for number in answers],
        left_out=dict(Counter(what for item in encoded for what in sorted(item.left_out))),
        spelt=_counted(item.spells for item, talk in zip(encoded, talks, strict=True) if not talk),
        said=_counted(item.spells for item, talk in zip(encoded, talks, strict=True) if talk),
        unmarked=sum(item.unmarked for item in encoded),
        untokened=sum(item.untokened for item in encoded),
        surplus=sum(item.surplus for item in encoded),
        roomless=sum(item.roomless for item in encoded),
    )


def _counted(spelt: Iterable[str | None]) -> dict[str, int]:
    return dict(Counter(token for token in spelt if token is not None))


def _to_try(sample: Sample, *, judged: bool = False) -> str | None:
    """Returns what a model that has learnt a record may be asked: its question if it is short, or how a text begins.

    Args:
        sample: The record.
        judged: Whether texts were learnt as wholes: the model is asked of such a text, or of the two of a pair as JSON.
    """
    if judged and isinstance(sample, JudgedText):
        words = sample.text if sample.pair is None else pair_as_json(*sample.pair)
    elif isinstance(sample, SimilarTexts):
        words = sample.query
    elif isinstance(sample, Text):
        return _beginning(sample.text)
    elif isinstance(sample, Conversation):
        words = next((message.content for message in sample.messages if message.role == "user"), "")
    else:
        words = sample.prompt if isinstance(sample, Completion) else ""
    return words if 0 < len(words) < _SHORT and "\n" not in words else None


def _beginning(text: str) -> str | None:
    """Returns the first words of a text, up to half of those of its first line.

    Example:
        >>> _beginning("the sea was calm, and no wind blew")
        'the sea was calm,'
    """
    line = text[:_SHORT].strip().partition("\n")[0]
    words = line.split(" ")
    return " ".join(words[: max(1, min(_WORDS, len(words) // 2))])[:_LETTERS] or None
