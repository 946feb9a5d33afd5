"""Encodes records to token ids with their loss mask."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, NoReturn

import numpy as np
from numpy.typing import NDArray

from graftkit.corpus.answers_compared import WANTED, TwoAnswers, WithMismatched, as_one_example, labelled_in
from graftkit.corpus.control_tokens import with_control_tokens
from graftkit.corpus.exact_runs import ExactRuns
from graftkit.corpus.fitting_answers import fitting_answers
from graftkit.corpus.learnt import Part as LearntPart
from graftkit.corpus.long_text import encode_stretches
from graftkit.corpus.pairs import longest_first, pair_layout_of
from graftkit.corpus.plain_text import PlainTexts
from graftkit.corpus.record_runs import Notes, RecordRuns, Unencoded
from graftkit.corpus.runs import Run, RunsTogether, Weighted
from graftkit.corpus.stretches import is_long, stretches_of
from graftkit.corpus.template import ChatTemplate
from graftkit.corpus.text_targets import JudgedText, TextTargets, WholeText, parts_of, text_alone
from graftkit.corpus.turns import ByAnswer, sizes_of
from graftkit.corpus.words import first_tokens
from graftkit.errors import DataError
from graftkit.interfaces.samples import (
    Completion,
    Conversation,
    LabelledAnswer,
    LabelledText,
    LongText,
    Message,
    PreferencePair,
    Prompt,
    Sample,
    ScoredText,
    SimilarTexts,
    TaggedText,
    Text,
    TextPrompt,
    TextWithLabels,
    Tokens,
    Unanswered,
)
from graftkit.interfaces.tokenizer import ROLES, PairLayout, PutsAround, Specials, Tokenizer
from graftkit.store.fingerprint import fingerprint
from graftkit.store.token_store import TARGET, TYPE, Example, prompt_length

__all__ = ["Encoded", "Encoder", "Overflow", "Part", "has_answer"]

Part = Unencoded | Tokens
"""What is encoded by itself: a record, one of its answers, or one of the answers that it compares."""

Overflow = Literal["drop_turns", "drop", "truncate", "error"]
"""What becomes of a conversation or completion that is too long."""

_LONG = 1 << 16
"""The characters from which on a text is looked at before all of it is encoded, which takes hundreds of bytes each."""

_CHARACTERS_A_TOKEN = 4

_UNLIMITED = 1 << 30
"""As the most tokens of an example: more than any has."""

_REMEMBERED = 1 << 24
"""The most characters of a part that is remembered."""

_RUNS = 50_000
"""The parts of rendered records that are encoded in one call, about: each takes hundreds of bytes."""


@dataclass(frozen=True, slots=True)
class _LaidOut:
    """A part as it is laid out, and what is to be told of it.

    Attributes:
        part: The part.
        runs: Its runs.
        notes: What is to be told of it.
        characters: How many it has; 0 where all of them are among the runs.
    """

    part: Part
    runs: list[Run]
    notes: Notes
    characters: int = 0


@dataclass(frozen=True, slots=True)
class Encoded:
    """An encoded record.

    Attributes:
        examples: Token sequences of at most `max_length`: one, or several of a long text; those without a
            token in the loss are left out.
        truncated: Whether it was too long: its end was cut off, or all of it.
        stops: Whether the last token in the loss is a special one, so that the model learns to stop there.
        left_out: What the chat template leaves out of it: see `graftkit.corpus.layout.lay_out`.
        spells: A control token that is plain characters in it, of a text, a prompt, a completion or an answer.
        unmarked: Whether it has an answer that is not learnt, outside the template's `{% generation %}` blocks.
        untokened: How many of its words have no token of their own, and so a tag that is not learnt.
        surplus: Whether it has more negatives than are learnt from.
        roomless: Whether it is a prompt that leaves no room for an answer, and is left out.
    """

    examples: list[Example]
    truncated: bool
    stops: bool
    left_out: frozenset[str] = frozenset()
    spells: str | None = None
    unmarked: bool = False
    untokened: int = 0
    surplus: bool = False
    roomless: bool = False


def has_answer(example: Example, sample: Sample) -> bool:
    """Tells whether an example of a record has a prompt, and an answer to it may be judged."""
    if isinstance(sample, Text | LongText):
        return False
    return example.prompt_length > 0 and bool(example.by_example.get(WANTED, True))


class Encoder:
    """Encodes records for one tokenizer.

    Only control tokens that the chat template writes are encoded as such; in messages they are ordinary text. Those
    are the tokenizer's special tokens, and added tokens that stand in the template: see `with_control_tokens`.

    Args:
        tokenizer: The tokenizer.
        template: The chat template, or None.
        max_length: The most tokens of an example.
        rows: The number of embedding rows; None where every id has one.
        report_dropped: Whether what a template leaves out of a conversation is told, rather than refused.
        overflow: What becomes of a conversation or completion that is longer than `max_length`: "drop_turns": it ends
            with the last answer that fits as a whole; "drop": it is left out; "truncate": it is cut off; "error".
        parse_special_tokens: Whether special tokens that texts, prompts and completions spell are such, in place of
            plain characters. What begins with the `bos` token, or ends with any, gets none put around it.
        targets: Where something of each text as a whole is learnt, what that is: a record is then its text alone, with
            what the tokenizer puts around one, and the number of its label, say.
        token_types: Of how many types of tokens the model has embeddings; see `PairLayout`. 0: of none.
        whole_texts: Whether each window of a text has around it what the tokenizer puts around a text, as encoders see
            texts, and every token of the text itself is in the loss.
        asks: Whether the model answers the records itself, and nothing of their own answers is learnt: of one that is
            too long the prompt is kept alone, where that leaves room for an answer.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        template: ChatTemplate | None,
        max_length: int,
        rows: int | None = None,
        *,
        report_dropped: bool = False,
        overflow: Overflow = "drop_turns",
        parse_special_tokens: bool = False,
        targets: TextTargets | None = None,
        token_types: int = 0,
        whole_texts: bool = False,
        asks: bool = False,
    ) -> None:
        self._tokenizer = with_control_tokens(tokenizer, template)
        self._rows = rows if rows is not None and rows < tokenizer.vocab_size else None
        self.max_length = max_length
        self._layout = RecordRuns(
            self._tokenizer, template, reports_dropped=report_dropped, parses=parse_special_tokens
        )
        self._special_ids = frozenset(self._tokenizer.special_tokens.values())
        self._exact = ExactRuns(self._tokenizer)
        self._shortened: _LaidOut | None = None
        self.report_dropped, self.overflow, self.parse_special_tokens = report_dropped, overflow, parse_special_tokens
        self.targets, self.token_types = targets, token_types
        self.whole_texts, self.asks = whole_texts, asks

    def for_tokenizer(self, tokenizer: Tokenizer, template: ChatTemplate | None, rows: int | None = None) -> Encoder:
        """Returns an encoder with the same rules for another tokenizer."""
        return Encoder(
            tokenizer,
            template,
            self.max_length,
            rows,
            report_dropped=self.report_dropped,
            overflow=self.overflow,
            parse_special_tokens=self.parse_special_tokens,
            targets=self.targets,
            token_types=self.token_types,
            whole_texts=self.whole_texts,
            asks=self.asks,
        )

    @cached_property
    def uncut(self) -> Encoder:
        """An encoder with the same rules that cuts nothing."""
        found = self.for_tokenizer(self._tokenizer, self.template, self._rows)
        found.max_length = _UNLIMITED
        return found

    def encode(self, sample: Sample) -> Encoded:
        """Returns the tokens of a record.

        A conversation or completion longer than `max_length` is cut as `overflow` says. A text is cut into several
        examples, each of which begins with the last token of the one before, so that every token but the first is
        predicted once.

        With `turns: each`, every answer of a conversation is an example, which is cut, or left out, by itself.

        Raises:
            DataError: The chat template refuses the record, a conversation has no template, a special token would be
                formed across the boundary of a message, or the model has no embedding row for a token.
        """
        return self.encode_many([sample])[0]

    def encode_many(self, samples: Sequence[Sample]) -> list[Encoded]:
        """Returns the tokens of several records, as `encode` does one by one.

        Raises:
            DataError: As for `encode`; of the first record that is refused.
        """
        if self.targets:
            if self.targets.kind == "tags":
                return self._tagged(self.targets, [sample for sample in samples if isinstance(sample, TaggedText)])
            if self.targets.kind == "similar":
                return [self._similar(self.targets, sample) for sample in samples if isinstance(sample, SimilarTexts)]
            return self._judged(self.targets, [sample for sample in samples if isinstance(sample, WholeText)])
        if self.whole_texts:
            texts = map(text_alone, samples)
            return [self._windows(sample) for sample in texts if isinstance(sample, Text | LongText)]
        of_each: list[list[Encoded]] = [[] for _ in samples]
        owners: list[int] = []

        def parts() -> Iterator[Part]:
            for number, sample in enumerate(samples):
                for part in self.turns(sample):
                    if not isinstance(part, SimilarTexts):  # which targets alone encode
                        owners.append(number)
                        yield part

        only_cut = {
            id(each.mismatched)
            for sample in samples
            for each in labelled_in(sample)
            if isinstance(each, WithMismatched)
        }
        for number, encoded in enumerate(self._encode_parts(parts(), only_cut)):
            of_each[owners[number]].append(encoded)
        return [self._together(sample, found) for sample, found in zip(samples, of_each, strict=True)]

    def turns(self, sample: Sample) -> Iterable[Part | SimilarTexts]:
        """Returns a record's parts that are encoded by themselves.

        Those are the answers of a pair, and with `turns: each` the answers of a conversation, up to where all that
        follow are too long: see `graftkit.corpus.fitting_answers`. Else it is the record itself.

        Raises:
            DataError: When they are iterated over: as for `encode`.
        """
        match sample:
            case Prompt():
                return [sample]
            case LabelledText() | TextWithLabels() | ScoredText() | TaggedText() | SimilarTexts() if self.targets:
                return [sample]
            case TwoAnswers():
                return [part for each in labelled_in(sample) for part in self.turns(each)]
            case PreferencePair():
                return [sample.chosen, sample.rejected]
            case WithMismatched():
                return [sample.answer, sample.mismatched]
            case LabelledAnswer():
                return [sample.answer]
            case Conversation() if self._layout.each:
                return fitting_answers(
                    sample, self.max_length, lambda part: self._layout.pieces(part, set()), self._count
                )
        return [sample]

    def characters_by_answer(self, sample: Sample) -> int:
        """Returns the characters that a conversation's answers are laid out with together, about; else 0.

        They are those of all answers, each with what stands before it, where every one is encoded by itself.
        """
        if not (self._layout.each and isinstance(sample, Conversation)):
            return 0
        longest = _CHARACTERS_A_TOKEN * self.max_length
        return len(ByAnswer(sample)) * min(sum(sizes_of(sample)) // 2, longest)

    def _count(self, text: str) -> int:
        """Returns how many tokens a text has that may hold special ones, or more than an example of a longer one."""
        return len(self._tokenizer.encode(self._beginning(text), "all"))

    def _together(self, sample: Sample, parts: Sequence[Encoded]) -> Encoded:
        """Returns what became of a record whose parts were encoded by themselves."""
        if isinstance(sample, TwoAnswers):
            half = len(parts) // 2
            both = zip(labelled_in(sample), (parts[:half], parts[half:]), strict=True)
            return _together([self._together(each, own) for each, own in both])
        if not isinstance(sample, PreferencePair | LabelledAnswer):
            return _together(parts)
        own = _together(parts if isinstance(sample, PreferencePair) else parts[:1])
        cut = own.truncated and self.overflow != "truncate"
        sequences = [] if cut else [example for part in parts for example in part.examples]
        whole = len(sequences) == len(parts)
        return replace(own, examples=[as_one_example(sample, sequences)] if whole else [])

    @property
    def in_turn(self) -> bool:
        """Whether every record, a text too, becomes examples by itself, and none a stretch at a time."""
        return self.whole_texts or self.targets is not None

    def _judged(self, targets: TextTargets, samples: Sequence[WholeText]) -> list[Encoded]:
        """Returns the tokens of texts that are learnt as wholes; what is too long is cut, unless it is to be left out.

        The position that scores are made at is counted as its token in the loss: the last one.

        Raises:
            DataError: A text is too long, and `overflow` is "error"; or the model lacks a row for one of its tokens.
        """
        texts = iter(self.encode_plainly([part for sample in samples for part in parts_of(sample)]))
        found = []
        for sample in samples:
            parts = [next(texts) for _ in parts_of(sample)]
            ids, types = self._around(parts)
            self.check_rows(ids, sample.where)
            over = len(ids) > self.max_length
            if over and self.overflow == "error":
                self._refuse_length(f"{len(ids):,}", sample.where)
            if over:
                room = self.max_length - len(ids) + sum(map(len, parts))
                ids, types = self._around(longest_first(parts, room))
            weights = np.zeros(len(ids), np.float32)
            weights[-1:] = 1
            kept = len(ids) > 0 and not (over and self.overflow == "drop")
            columns = {TYPE: np.array(types, np.uint8)} if self.token_types else {}
            example = Example(np.array(ids, np.int64), weights, 0, columns, targets.columns(sample))
            found.append(Encoded([example] if kept else [], truncated=over, stops=True))
        return found

    def _tagged(self, targets: TextTargets, samples: Sequence[TaggedText]) -> list[Encoded]:
        """Returns the tokens of texts whose words have tags; what is too long is cut, unless it is to be left out.

        In the loss is the first token of each word, whose target is the number of the word's tag.

        Raises:
            DataError: A text is too long, and `overflow` is "error"; or the model lacks a row for one of its tokens; or
                a token is of two words.
        """
        before, after = self.put_around
        room = max(0, self.max_length - len(before) - len(after))
        specials: Specials = "all" if self.parse_special_tokens else "none"
        found = []
        for sample in samples:
            if not self._tokenizer.capabilities.offsets:
                told = "the model's tokenizer does not say where its tokens stand in a text, nor of which word they are"
                raise DataError(told, where=sample.where, hint="One of a tokenizer.json does.")
            inside = self._tokenizer.encode_offsets(sample.text, specials)
            firsts, lost = first_tokens(inside.offsets, sample)
            ids = [*before, *inside.ids, *after]
            self.check_rows(ids, sample.where)
            over = len(ids) > self.max_length
            if over and self.overflow == "error":
                self._refuse_length(f"{len(ids):,}", sample.where)
            ids = [*before, *inside.ids[:room], *after] if over else ids
            weights, tags = np.zeros(len(ids), np.float32), np.zeros(len(ids), np.int32)
            for place, number in zip(firsts, targets.numbers(sample), strict=True):
                if place is not None and place < room:
                    weights[len(before) + place], tags[len(before) + place] = 1, number
            kept = bool(weights.any()) and not (over and self.overflow == "drop")
            examples = [
                Example(ids=np.array(ids, np.int64), loss_weight=weights, prompt_length=0, by_token={TARGET: tags})
            ]
            found.append(Encoded(examples if kept else [], truncated=over, stops=True, untokened=lost))
        return found

    @cached_property
    def _longest_prompt(self) -> int:
        """How many tokens the longer one of what is put before queries and documents has."""
        prompts = [text for text in self.targets.prompts if text] if self.targets else []
        return max(map(len, self.encode_plainly(prompts)), default=0)

    def _similar(self, targets: TextTargets, sample: SimilarTexts) -> Encoded:
        """Returns an example for each text that is to be found by another, each of whose texts is a sequence.

        What is too long is cut, unless it is to be left out.

        Raises:
            DataError: A text is too long, and `overflow` is "error"; or what is put before texts takes all that one may
                have; or the model lacks a row for one of its tokens.
        """
        before, after = self.put_around
        room = max(0, self.max_length - len(before) - len(after))
        if self._longest_prompt >= room:
            raise DataError(
                f"what is put before texts has {self._longest_prompt:,} tokens, and data.max_length is "
                f"{self.max_length:,}: nothing of a text is left",
                where=sample.where,
                hint="Raise data.max_length, or shorten objective.query_prompt or document_prompt.",
            )
        compared = targets.compared(sample)
        known: dict[str, Example] = {}
        truncated = False
        texts = list(dict.fromkeys(text for row in compared for text in row))
        for text, inside in zip(texts, self.encode_plainly(texts), strict=True):
            self.check_rows([*before, *inside, *after], sample.where)
            if len(inside) > room and self.overflow == "error":
                self._refuse_length(f"{len(before) + len(inside) + len(after):,}", sample.where)
            truncated = truncated or len(inside) > room
            ids = np.array([*before, *inside[:room], *after], np.int64)
            weights = np.zeros(len(ids), np.float32)
            weights[-1:] = 1
            columns = {TYPE: np.zeros(len(ids), np.uint8)} if self.token_types else {}
            known[text] = Example(ids, weights, 0, columns)
        left_out = (truncated and self.overflow == "drop") or not all(len(each.ids) for each in known.values())
        rows = [] if left_out else compared
        examples = [as_one_example(sample, [known[text] for text in row]) for row in rows]
        surplus = len(sample.negatives) > targets.negatives
        return Encoded(examples, truncated=truncated, stops=True, surplus=surplus)

    def ids_of_texts(self, texts: Sequence[str]) -> tuple[list[int], list[int]]:
        """Returns the ids of a text, or of the two of a pair, with what is put around them, and their types.

        Args:
            texts: One text, or two.

        Raises:
            DataError: The tokenizer does not say what it puts around a pair.
        """
        return self._around(self.encode_plainly(texts))

    def _around(self, parts: Sequence[Sequence[int]]) -> tuple[list[int], list[int]]:
        """Returns the ids of a text, or of the two of a pair, with what is put around them, and their types.

        Raises:
            DataError: The tokenizer does not say what it puts around a pair.
        """
        if len(parts) == 1:
            before, after = self.put_around
            ids = [*before, *parts[0], *after]
            return ids, [0] * len(ids)
        return self.pair_layout.of(*parts)

    @cached_property
    def pair_layout(self) -> PairLayout:
        """What the tokenizer puts around the two texts of a pair.

        Raises:
            DataError: It does not say.
        """
        return pair_layout_of(self._tokenizer, self.token_types)

    def _windows(self, sample: Text | LongText) -> Encoded:
        """Returns a text in windows of at most `max_length` tokens, each with what is put around a text.

        Raises:
            DataError: The model lacks a row for one of its tokens.
        """
        before, after = self.put_around
        room = max(1, self.max_length - len(before) - len(after))
        stretches = stretches_of(sample) if is_long(sample) else iter([sample.text])
        ids: list[int] = []
        for found, _ in encode_stretches(self.encode_plainly, stretches):
            ids += found
        self.check_rows([*before, *ids, *after], sample.where)
        examples = []
        for at in range(0, len(ids), room):
            inside = ids[at : at + room]
            whole = np.array([*before, *inside, *after], np.int64)
            weights = np.zeros(len(whole), np.float32)
            weights[len(before) : len(before) + len(inside)] = 1
            examples.append(Example(whole, weights, 0))
        return Encoded(examples, truncated=False, stops=True, spells=self._layout.spelt(sample))

    @cached_property
    def put_around(self) -> tuple[list[int], list[int]]:
        """The ids that the tokenizer puts before a text, and those that it puts after it."""
        own: object = self._tokenizer.put_around if isinstance(self._tokenizer, PutsAround) else None
        if isinstance(own, tuple):
            before, after = own
            return list(before), list(after)
        return [run.special for run in self._layout.start if run.special is not None], []

    @property
    def template(self) -> ChatTemplate | None:
        """The chat template that lays out conversations."""
        return self._layout.template

    def _encode_parts(self, parts: Iterable[Part], only_cut: Collection[int] = ()) -> Iterator[Encoded]:
        """Encodes what is encoded by itself, many at a time.

        Args:
            parts: The parts.
            only_cut: The `id` of each of them whose end is cut off where it is too long, whatever `overflow` says.
        """
        rest = iter(parts)
        refused: DataError | None = None
        while refused is None:
            laid_out, refused = self._laid_out(rest)
            weighted = self._weighted([one.runs for one in laid_out])
            for one, given in zip(laid_out, weighted, strict=True):
                tokens = self._given(one.part) if isinstance(one.part, Tokens) else given
                overflow = "truncate" if id(one.part) in only_cut else self.overflow
                yield self._finished(one, tokens, overflow)
            if not laid_out:
                break
        if refused is not None:  # once those before it have been encoded, which may be refused, too
            raise refused

    def _laid_out(self, parts: Iterator[Part]) -> tuple[list[_LaidOut], DataError | None]:
        """Lays out as many parts as are encoded in one call; returns them, and why the one after them is refused."""
        found: list[_LaidOut] = []
        runs = 0
        try:
            for part in parts:
                found.append(_LaidOut(part, [], Notes()) if isinstance(part, Tokens) else self._kept(part))
                runs += len(found[-1].runs)
                if runs >= _RUNS:
                    break
        except DataError as error:
            return found, error
        return found, None

    def _kept(self, part: Unencoded) -> _LaidOut:
        """Lays a part out; the last one that was shortened, which may have thousands of messages, is laid out once."""
        if self._shortened is None or not _is_same(part, self._shortened.part):
            found = self._as_far_as_kept(part)
            if not 0 < found.characters <= _REMEMBERED:
                return found
            self._shortened = found
        return replace(self._shortened, part=part)

    def _as_far_as_kept(self, part: Unencoded) -> _LaidOut:
        """Lays a part out up to where it is longer than a whole example may be for certain.

        Of what is cut off the last token in the loss is kept where it is a special one, which tells whether it stops.
        """
        notes = Notes()
        stretches = self._layout.stretches(part, notes)
        text = "".join(stretch.text for stretch in stretches)
        left = len(text if isinstance(part, Text | LongText) else self._beginning(text))
        if left == len(text):
            return _LaidOut(part, [run for stretch in stretches for run in self._layout.split(stretch)], notes)
        return _LaidOut(part, self._first_runs(stretches, left), notes, len(text))

    def _first_runs(self, stretches: Sequence[Run | LearntPart], left: int) -> list[Run]:
        """Returns the runs of the first `left` characters, and the special token that the last answer ends with."""
        kept: list[Run] = []
        for number, stretch in enumerate(stretches):
            runs = self._layout.split(stretch)
            for run in runs:
                if left <= 0:
                    last = self._last_learnt(stretches[number + 1 :]) or self._last_learnt([run, *runs])
                    return kept if last is None or last.special is None else [*kept, last]
                kept.append(run if run.special is not None else replace(run, text=run.text[:left]))
                left -= len(run.text)
        return kept

    def _last_learnt(self, stretches: Sequence[Run | LearntPart]) -> Run | None:
        """Returns the last run in the loss; runs are made of few of many stretches."""
        runs = (run for stretch in reversed(stretches) for run in reversed([*self._layout.split(stretch)]))
        return next((run for run in runs if run.loss_weight), None)

    def _beginning(self, text: str) -> str:
        """Returns the beginning of a text that doesn't fit, with more tokens than are looked at, or else all of it.

        How many characters a token has at most can't be told: normalizers drop some, and one unknown token may stand
        for a whole word. Of twice as many tokens as an example has the first half doesn't depend on the rest. What
        spells a special token counts as one, which is the fewest that it may become.
        """
        length = max(_LONG, _CHARACTERS_A_TOKEN * self.max_length)
        while length < len(text):
            if len(self._tokenizer.encode(text[:length], "all")) > 2 * self.max_length:
                return text[:length]
            length *= 4
        return text

    def _weighted(self, laid_out: Sequence[Sequence[Run]]) -> list[Weighted]:
        """Returns the tokens of records that are laid out, and their weights."""
        found = iter(self._runs_together.encode(filter(self._runs_together.takes, laid_out)))
        return [
            next(found) if self._runs_together.takes(runs) else _as_arrays(*self._exact.encode(runs))
            for runs in laid_out
        ]

    @cached_property
    def _runs_together(self) -> RunsTogether:
        return RunsTogether(self._tokenizer, self._exact.encode_stretches)

    def _finished(self, laid_out: _LaidOut, weighted: Weighted, overflow: Overflow) -> Encoded:
        """Returns what is kept of a record's tokens."""
        sample, notes = laid_out.part, laid_out.notes
        ids, loss_weights = weighted
        self.check_rows(ids, sample.where)
        if isinstance(sample, Unanswered):
            return self._prompt(sample, ids, notes)
        is_text, asked = isinstance(sample, Text | LongText), None
        if is_text:
            windows = range(0, len(ids) - 1, self.max_length - 1)
            examples = [
                _example(ids[at : at + self.max_length], loss_weights[at : at + self.max_length]) for at in windows
            ]
        elif asked := self._asked(sample, ids):
            examples = [asked]
        else:
            length = self._fitting(ids, loss_weights, sample.where, overflow, laid_out.characters > 0)
            examples = [_example(ids[:length], loss_weights[:length])]
        return Encoded(
            examples=[example for example in examples if asked or example.loss_mask.any()],
            truncated=not is_text and not asked and len(ids) > self.max_length,
            stops=self._stops(ids, loss_weights),
            left_out=frozenset(notes.left_out),
            spells=notes.spells if isinstance(sample, Conversation) else self._layout.spelt(sample),
            unmarked=notes.unmarked,
        )

    def _asked(self, sample: Part, ids: NDArray[np.int64]) -> Example | None:
        """Returns the prompt of a record that is too long, where the model answers it itself and has room for that."""
        if not self.asks or len(ids) <= self.max_length or isinstance(sample, Tokens):
            return None
        prompt = self.prompt_in_use(sample, cut=False) or []
        if not 0 < len(prompt) < self.max_length:
            return None
        return _example(np.array(prompt, np.int64), np.zeros(len(prompt), np.float32))

    def _prompt(self, sample: Unanswered, ids: NDArray[np.int64], notes: Notes) -> Encoded:
        """Returns a prompt that the model answers itself: no token of it is in the loss; one too long is left out.

        Raises:
            DataError: It leaves no room for an answer, and `overflow` is "error".
        """
        fits = len(ids) < self.max_length
        if not fits and self.overflow == "error":
            raise DataError(
                f"the prompt has {len(ids):,} tokens, which leaves no room for an answer within data.max_length "
                f"({self.max_length:,})",
                where=sample.where,
                hint="Raise data.max_length, or say data.overflow: drop.",
            )
        return Encoded(
            examples=[_example(ids, np.zeros(len(ids), np.float32))] if fits and len(ids) else [],
            truncated=False,
            stops=True,
            left_out=frozenset(notes.left_out),
            spells=self._layout.spelt(sample) if isinstance(sample, TextPrompt) else notes.spells,
            roomless=not fits,
        )

    @cached_property
    def answer_ends(self) -> list[int]:
        """The special token that ends an answer to a prompt, as the chat template writes it or a completion has it."""
        ends = [run.special for run in self._layout.end if run.special is not None]
        if self.template is None:
            return ends
        said = (Message("user", "well?"), Message("assistant", "fine"))
        with suppress(DataError, ValueError):  # a template that takes no such conversation
            [example] = self.encode(Conversation(said, "a conversation to try the chat template with")).examples
            return sorted({*ends, int(example.ids[example.loss_mask][-1])} & self._special_ids)
        return ends

    def _given(self, sample: Tokens) -> Weighted:
        """Returns ids as they are given, if the tokenizer has them."""
        most = self._tokenizer.vocab_size
        if min(sample.ids) < 0 or max(sample.ids) >= most:
            odd = next(id for id in sample.ids if not 0 <= id < most)
            raise DataError(
                f"it holds the id {odd:,}; the tokenizer's go from 0 to {most - 1:,}",
                where=sample.where,
                hint="Ids are of one tokenizer: give the text, or the model that they were made for.",
            )
        return _as_arrays(sample.ids, sample.weights)

    def _fitting(
        self,
        ids: NDArray[np.int64],
        loss_weights: NDArray[np.float32],
        where: str,
        overflow: Overflow,
        shortened: bool,
    ) -> int:
        """Returns how many tokens of a record are kept: all where they fit.

        Raises:
            DataError: They don't, and `overflow` is "error".
        """
        if len(ids) <= self.max_length:
            return len(ids)
        if overflow == "error":
            self._refuse_length(f"{'over ' if shortened else ''}{len(ids):,}", where)
        if overflow == "drop_turns":  # up to the end of the last answer that fits as a whole
            learnt = loss_weights[: self.max_length + 1] != 0
            ends = np.flatnonzero(learnt[:-1] & ~learnt[1:]) + 1
            return int(ends[-1]) if len(ends) else 0
        return self.max_length if overflow == "truncate" else 0

    def _refuse_length(self, count: str, where: str) -> NoReturn:
        raise DataError(
            f"it has {count} tokens, more than data.max_length ({self.max_length:,})",
            where=where,
            hint="Raise data.max_length, or say data.overflow: drop_turns.",
        )

    def prompt(self, messages: Conversation | str) -> list[int]:
        """Returns the ids of a prompt: a conversation with the start of the assistant's turn, or a text.

        Raises:
            DataError: As for `encode`.
        """
        [(found, _)] = self._weighted([self._layout.of_prompt(messages)])
        ids: list[int] = found.tolist()
        self.check_rows(ids, "the prompt" if isinstance(messages, str) else messages.where)
        return ids

    def prompt_in_use(self, sample: Sample, *, cut: bool | None = None) -> list[int] | None:
        """Returns the ids after which, in use, a model gives the last answer that is learnt of a record.

        They are those of `prompt`, and not always what stands before the answer in training.

        Args:
            sample: A record, or one of its `turns`.
            cut: Whether it is too long, as `Encoded.truncated` says; found out when left out, by encoding it.

        Returns:
            The ids; None where nothing is answered, or an answer itself is cut.
        """
        if isinstance(sample, Completion):
            return self.prompt(sample.prompt)
        if isinstance(sample, Prompt):
            return self.prompt(sample)
        with suppress(DataError):  # a template that takes no conversation without an answer
            asked = self.up_to_last_answer(sample, cut=cut)
            if asked is not None and asked.messages[-1].role == "assistant":
                return self.prompt(replace(asked, messages=asked.messages[:-1]))
        return None

    def up_to_last_answer(self, sample: Sample, *, cut: bool | None = None) -> Conversation | None:
        """Returns a conversation up to the last answer that is learnt of it.

        Of one that is too long that is the answer that it is cut after.

        Args:
            sample: A record, or one of its `turns`.
            cut: As for `prompt_in_use`.

        Returns:
            The conversation, of which that answer alone is learnt; None where it is none or a prompt alone, or an
            answer itself is cut.

        Raises:
            DataError: As for `encode`.
        """
        if not isinstance(sample, Conversation) or isinstance(sample, Prompt):
            return None
        cut = self._is_cut(sample) if cut is None else cut
        if cut and self.overflow == "truncate":
            return None
        parts = ByAnswer(sample)
        count = self._whole_answers(parts) if cut else len(parts)
        return parts[count - 1] if count else None

    def _whole_answers(self, parts: ByAnswer) -> int:
        """Returns how many of the answers fit, each with all before it; few of a long conversation are looked at."""
        most = 1
        while most < len(parts) and not self._is_cut(parts[most - 1]):
            most *= 2
        return bisect_left(parts, True, most // 2, min(most, len(parts)), key=self._is_cut)

    def _is_cut(self, part: Part) -> bool:
        return next(self._encode_parts([part])).truncated

    def lacks_row(self, ids: Sequence[int] | NDArray[np.integer[Any]]) -> bool:
        """Tells whether the model has no embedding row for one of these ids."""
        return self._rows is not None and len(ids) > 0 and int(np.max(ids)) >= self._rows

    def check_rows(self, ids: Sequence[int] | NDArray[np.integer[Any]], where: str) -> None:
        """Refuses ids without an embedding row.

        Args:
            ids: Token ids.
            where: The record that they are of, for the error.

        Raises:
            DataError: An id has none.
        """
        if self._rows is None or not self.lacks_row(ids):
            return
        highest = int(max(ids))
        text = self._tokenizer.token_bytes(highest).decode("utf-8", "backslashreplace")
        roles = " and ".join(role for role in ROLES if self._tokenizer.role_token(role) == highest)
        raise DataError(
            f"it holds the token {text!r}{f', the {roles} token,' if roles else ''} of the id {highest:,}; "
            f"the model's embedding has {self._rows:,} rows, none for it",
            where=where,
            hint="Leave it out of the data, or give it a row: with a section 'tokenizer' that extends the vocabulary, "
            "or, where the model has a head, with resize_token_embeddings of transformers before the run.",
        )

    def authors(self, sample: Part | SimilarTexts) -> list[tuple[str, str]]:
        """Returns the text of a record in stretches, each with who wrote it: "template", "message 1 (user)", ...

        Of a text of over 4 MB it is the beginning. Of a text that is learnt as a whole they are the text and what is
        learnt of it, which is no token.

        Raises:
            DataError: As for `encode`.
        """
        if isinstance(sample, SimilarTexts):
            found = [("query", sample.query), *(("positive", text) for text in sample.positives)]
            found += [("negative", text) for text in sample.negatives[: self.targets.negatives if self.targets else 0]]
            return [(text, what) for what, text in found]
        if self.targets and isinstance(sample, JudgedText):
            texts = zip(parts_of(sample), ("text", "text_pair"), strict=False)
            return [*texts, self.targets.shown(sample)]
        return self._layout.authors(sample)

    def spelt(self, sample: Text | LongText) -> str | None:
        """Returns the first control token that a text spells in plain characters; None where it spells none."""
        return self._layout.spelt(sample)

    @property
    def has_template(self) -> bool:
        """Whether there is a chat template."""
        return self.template is not None

    @cached_property
    def plain(self) -> PlainTexts:
        """The encoder of plain texts in batches."""
        start, end = self._layout.start, self._layout.end
        tokens = [(run[0].text, run[0].special) if run and run[0].special is not None else None for run in (start, end)]
        return PlainTexts(
            self._tokenizer,
            tokens[0],
            tokens[1],
            self.max_length,
            lambda text: self._exact.encode(self._layout.of(Text(text, ""), Notes())),
            self._layout.specials if self.parse_special_tokens else (),
        )

    def encode_plainly(self, texts: Sequence[str]) -> list[list[int]]:
        """Returns the ids of plain texts without what is put around them."""
        return self._tokenizer.encode_batch(texts, "all" if self.parse_special_tokens else "none")

    def begins_itself(self, ids: Sequence[int]) -> bool:
        """Tells whether a text that begins with these ids needs no `bos` token before it."""
        return self.parse_special_tokens and list(ids[:1]) == [run.special for run in self._layout.start]

    def ends_itself(self, ids: Sequence[int]) -> bool:
        """Tells whether a text that ends with these ids needs no `eos` token after it."""
        return self.parse_special_tokens and bool(ids) and ids[-1] in self._special_ids

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer, to which the template's control tokens are special."""
        return self._tokenizer

    @cached_property
    def fingerprint(self) -> str:
        """A sha256, in hex, of everything that the ids and the loss mask of a record depend on."""
        facts = {
            "version": 5,
            "tokenizer": self._tokenizer.fingerprint,
            "specials": sorted(self._tokenizer.special_tokens.items()),
            "template": self.template.fingerprint if self.template else None,
            "start": [run.special for run in self._layout.start],
            "end": [run.special for run in self._layout.end],
            "max_length": self.max_length,
            "overflow": self.overflow,
            "report_dropped": self.report_dropped,
            **({"special_tokens": "parse"} if self.parse_special_tokens else {}),
            **({**self.targets.facts(), "around": self.put_around} if self.targets else {}),
            **({"types": self.token_types} if self.token_types and self.targets else {}),
            **({"whole texts": self.put_around} if self.whole_texts else {}),
            **({"asks": True} if self.asks else {}),
        }
        return fingerprint(facts)

    def _stops(self, ids: NDArray[np.int64], loss_weights: NDArray[np.float32]) -> bool:
        learnt = np.flatnonzero(loss_weights)
        last = int(learnt[-1]) if len(learnt) else 0
        return len(ids) > 0 and int(ids[last]) in self._special_ids


def _is_same(part: Part, other: Part) -> bool:
    """Tells whether two parts are laid out alike; values of tool calls that are equal may be written differently."""
    if part is other:
        return True
    return part == other and _values_in(part) == _values_in(other)


def _values_in(part: Part) -> str:
    if not isinstance(part, Conversation):
        return ""
    return repr([part.tools, [message.tool_calls for message in part.messages if message.tool_calls]])


def _together(parts: Sequence[Encoded]) -> Encoded:
    """Returns what became of a record whose parts were encoded by themselves."""
    if len(parts) == 1:
        return parts[0]
    return Encoded(
        examples=[example for part in parts for example in part.examples],
        truncated=any(part.truncated for part in parts),
        stops=bool(parts) and all(part.stops for part in parts),
        left_out=frozenset().union(*(part.left_out for part in parts)),
        spells=next((part.spells for part in parts if part.spells), None),
        unmarked=any(part.unmarked for part in parts),
    )


def _as_arrays(ids: Sequence[int], loss_weights: Sequence[float]) -> Weighted:
    return np.array(ids, np.int64), np.array(loss_weights, np.float32)


def _example(ids: NDArray[np.int64], loss_weights: NDArray[np.float32]) -> Example:
    weights = loss_weights.copy()
    weights[:1] = 0  # nothing stands before the first token to predict it from
    return Example(ids, weights, prompt_length(loss_weights))
