"""Encodes records to token ids with their loss mask."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftkit.corpus.answers_compared import WANTED, TwoAnswers, WithMismatched, as_one_example, labelled_in
from graftkit.corpus.control_tokens import with_control_tokens
from graftkit.corpus.encoded import Encoded, Overflow, refuse_length
from graftkit.corpus.encoding_rules import EncodingRules
from graftkit.corpus.exact_runs import ExactRuns
from graftkit.corpus.fitting_answers import fitting_answers
from graftkit.corpus.kept_runs import CHARACTERS_A_TOKEN, KeptRuns, LaidOut
from graftkit.corpus.plain_text import PlainTexts
from graftkit.corpus.prompt_in_use import prompt_in_use
from graftkit.corpus.record_runs import Notes, RecordRuns, Unencoded
from graftkit.corpus.runs import Run, RunsTogether, Weighted
from graftkit.corpus.template import ChatTemplate
from graftkit.corpus.text_targets import JudgedText, parts_of
from graftkit.corpus.turns import ByAnswer, sizes_of
from graftkit.corpus.whole_texts import WholeTexts
from graftkit.errors import DataError
from graftkit.interfaces.samples import (
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
from graftkit.interfaces.tokenizer import ROLES, Tokenizer
from graftkit.store.fingerprint import fingerprint
from graftkit.store.token_store import Example, prompt_length

__all__ = ["Encoded", "Encoder", "Overflow", "Part", "has_answer"]

Part = Unencoded | Tokens
"""What is encoded by itself: a record, one of its answers, or one of the answers that it compares."""

_USUAL = EncodingRules()

_UNLIMITED = 1 << 30
"""As the most tokens of an example: more than any has."""

_RUNS = 50_000
"""The parts of rendered records that are encoded in one call, about: each takes hundreds of bytes."""


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
        rules: What of records is encoded and learnt.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        template: ChatTemplate | None,
        max_length: int,
        rows: int | None = None,
        rules: EncodingRules = _USUAL,
    ) -> None:
        self._tokenizer = with_control_tokens(tokenizer, template)
        self._rows = rows if rows is not None and rows < tokenizer.vocab_size else None
        self.max_length = max_length
        self._layout = RecordRuns(
            self._tokenizer, template, reports_dropped=rules.report_dropped, parses=rules.parse_special_tokens
        )
        self._special_ids = frozenset(self._tokenizer.special_tokens.values())
        self._exact = ExactRuns(self._tokenizer)
        self._kept = KeptRuns(self._layout, self._tokenizer, max_length)
        self.rules = rules

    def for_tokenizer(
        self,
        tokenizer: Tokenizer,
        template: ChatTemplate | None,
        rows: int | None = None,
        *,
        max_length: int | None = None,
    ) -> Encoder:
        """Returns an encoder with the same rules for another tokenizer, or for examples of another length."""
        return Encoder(tokenizer, template, self.max_length if max_length is None else max_length, rows, self.rules)

    @cached_property
    def uncut(self) -> Encoder:
        """An encoder with the same rules that cuts nothing."""
        return self.for_tokenizer(self._tokenizer, self.template, self._rows, max_length=_UNLIMITED)

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
        if self.in_turn:
            return self.texts.of(samples)
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
            case LabelledText() | TextWithLabels() | ScoredText() | TaggedText() | SimilarTexts() if self.rules.targets:
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
        longest = CHARACTERS_A_TOKEN * self.max_length
        return len(ByAnswer(sample)) * min(sum(sizes_of(sample)) // 2, longest)

    def _count(self, text: str) -> int:
        """Returns how many tokens a text has that may hold special ones, or more than an example of a longer one."""
        return len(self._tokenizer.encode(self._kept.beginning(text), "all"))

    def _together(self, sample: Sample, parts: Sequence[Encoded]) -> Encoded:
        """Returns what became of a record whose parts were encoded by themselves."""
        if isinstance(sample, TwoAnswers):
            half = len(parts) // 2
            both = zip(labelled_in(sample), (parts[:half], parts[half:]), strict=True)
            return _together([self._together(each, own) for each, own in both])
        if not isinstance(sample, PreferencePair | LabelledAnswer):
            return _together(parts)
        own = _together(parts if isinstance(sample, PreferencePair) else parts[:1])
        cut = own.truncated and self.rules.overflow != "truncate"
        sequences = [] if cut else [example for part in parts for example in part.examples]
        whole = len(sequences) == len(parts)
        return replace(own, examples=[as_one_example(sample, sequences)] if whole else [])

    @property
    def in_turn(self) -> bool:
        """Whether every record, a text too, becomes examples by itself, and none a stretch at a time."""
        return self.rules.whole_texts or self.rules.targets is not None

    @cached_property
    def texts(self) -> WholeTexts:
        """The encoder of texts as wholes."""
        return WholeTexts(
            self._tokenizer,
            [run.special for run in self._layout.start if run.special is not None],
            self.max_length,
            self.rules,
            self.encode_plainly,
            self.check_rows,
            self._layout.spelt,
        )

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
            weighted = self._weighted([found.runs for _, found in laid_out])
            for (part, found), of_runs in zip(laid_out, weighted, strict=True):
                tokens = self._given(part) if isinstance(part, Tokens) else of_runs
                overflow = "truncate" if id(part) in only_cut else self.rules.overflow
                yield self._finished(part, found, tokens, overflow)
            if not laid_out:
                break
        if refused is not None:  # once those before it have been encoded, which may be refused, too
            raise refused

    def _laid_out(self, parts: Iterator[Part]) -> tuple[list[tuple[Part, LaidOut]], DataError | None]:
        """Lays out as many parts as are encoded in one call; returns them, and why the one after them is refused."""
        found: list[tuple[Part, LaidOut]] = []
        runs = 0
        try:
            for part in parts:
                laid_out = LaidOut([], Notes()) if isinstance(part, Tokens) else self._kept.of(part)
                found.append((part, laid_out))
                runs += len(laid_out.runs)
                if runs >= _RUNS:
                    break
        except DataError as error:
            return found, error
        return found, None

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

    def _finished(self, sample: Part, laid_out: LaidOut, weighted: Weighted, overflow: Overflow) -> Encoded:
        """Returns what is kept of a record's tokens."""
        notes, (ids, loss_weights) = laid_out.notes, weighted
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
        if not self.rules.asks or len(ids) <= self.max_length or isinstance(sample, Tokens):
            return None
        prompt = prompt_in_use(self, sample, cut=False) or []
        if not 0 < len(prompt) < self.max_length:
            return None
        return _example(np.array(prompt, np.int64), np.zeros(len(prompt), np.float32))

    def _prompt(self, sample: Unanswered, ids: NDArray[np.int64], notes: Notes) -> Encoded:
        """Returns a prompt that the model answers itself: no token of it is in the loss; one too long is left out.

        Raises:
            DataError: It leaves no room for an answer, and `overflow` is "error".
        """
        fits = len(ids) < self.max_length
        if not fits and self.rules.overflow == "error":
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
            refuse_length(f"{'over ' if shortened else ''}{len(ids):,}", self.max_length, where)
        if overflow == "drop_turns":  # up to the end of the last answer that fits as a whole
            learnt = loss_weights[: self.max_length + 1] != 0
            ends = np.flatnonzero(learnt[:-1] & ~learnt[1:]) + 1
            return int(ends[-1]) if len(ends) else 0
        return self.max_length if overflow == "truncate" else 0

    def prompt(self, messages: Conversation | str) -> list[int]:
        """Returns the ids of a prompt: a conversation with the start of the assistant's turn, or a text.

        Raises:
            DataError: As for `encode`.
        """
        [(found, _)] = self._weighted([self._layout.of_prompt(messages)])
        ids: list[int] = found.tolist()
        self.check_rows(ids, "the prompt" if isinstance(messages, str) else messages.where)
        return ids

    def is_cut(self, part: Part) -> bool:
        """Tells whether what is encoded by itself is longer than an example.

        Raises:
            DataError: As for `encode`.
        """
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
            negatives = self.rules.targets.negatives if self.rules.targets else 0
            found += [("negative", text) for text in sample.negatives[:negatives]]
            return [(text, what) for what, text in found]
        if self.rules.targets and isinstance(sample, JudgedText):
            texts = zip(parts_of(sample), ("text", "text_pair"), strict=False)
            return [*texts, self.rules.targets.shown(sample)]
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
            self._layout.specials if self.rules.parse_special_tokens else (),
        )

    def encode_plainly(self, texts: Sequence[str]) -> list[list[int]]:
        """Returns the ids of plain texts without what is put around them."""
        return self._tokenizer.encode_batch(texts, "all" if self.rules.parse_special_tokens else "none")

    def begins_itself(self, ids: Sequence[int]) -> bool:
        """Tells whether a text that begins with these ids needs no `bos` token before it."""
        return self.rules.parse_special_tokens and list(ids[:1]) == [run.special for run in self._layout.start]

    def ends_itself(self, ids: Sequence[int]) -> bool:
        """Tells whether a text that ends with these ids needs no `eos` token after it."""
        return self.rules.parse_special_tokens and bool(ids) and ids[-1] in self._special_ids

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
            "overflow": self.rules.overflow,
            "report_dropped": self.rules.report_dropped,
            **({"special_tokens": "parse"} if self.rules.parse_special_tokens else {}),
            **({**self.rules.targets.facts(), "around": self.texts.put_around} if self.rules.targets else {}),
            **({"types": self.rules.token_types} if self.rules.token_types and self.rules.targets else {}),
            **({"whole texts": self.texts.put_around} if self.rules.whole_texts else {}),
            **({"asks": True} if self.rules.asks else {}),
        }
        return fingerprint(facts)

    def _stops(self, ids: NDArray[np.int64], loss_weights: NDArray[np.float32]) -> bool:
        learnt = np.flatnonzero(loss_weights)
        last = int(learnt[-1]) if len(learnt) else 0
        return len(ids) > 0 and int(ids[last]) in self._special_ids


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
