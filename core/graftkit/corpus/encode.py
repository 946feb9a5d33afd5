"""Encodes records to token ids with their loss mask."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from graftkit.corpus.layout import Piece, lay_out
from graftkit.corpus.learnt import LearntParts
from graftkit.corpus.plain_text import PlainTexts
from graftkit.corpus.runs import Run, RunsTogether, Weighted
from graftkit.corpus.special_token_injection import InjectionCheck
from graftkit.corpus.template import ChatTemplate
from graftkit.corpus.turns import TOOLS
from graftkit.errors import DataError
from graftkit.interfaces.samples import Completion, Conversation, LongText, Sample, Text, Tokens
from graftkit.interfaces.tokenizer import ROLES, Encoding, Tokenizer
from graftkit.store.fingerprint import fingerprint
from graftkit.store.token_store import Example

__all__ = ["Encoded", "Encoder", "Overflow", "chat_template_of"]

Overflow = Literal["drop_turns", "drop", "truncate", "error"]
"""What becomes of a conversation or completion that is too long."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """An encoded record.

    Attributes:
        examples: Token sequences of at most `max_length`: one, or several of a long text; those without a
            token are left out.
        truncated: Whether it was too long: its end was cut off, or all of it.
        stops: Whether the last token in the loss is a special one, so that the model learns to stop there.
        left_out: What the chat template leaves out of it: see `graftkit.corpus.layout.lay_out`.
    """

    examples: list[Example]
    truncated: bool
    stops: bool
    left_out: frozenset[str] = frozenset()


def chat_template_of(tokenizer: Tokenizer, today: date | None = None) -> ChatTemplate | None:
    """Returns the tokenizer's chat template; None where there is none.

    Args:
        tokenizer: The tokenizer.
        today: The date that the template gets from `strftime_now`; None for the day of rendering.

    Raises:
        ModelError: The template can't be parsed.
    """
    text = tokenizer.chat_template
    if text is None:
        return None
    names = {id: name for name, id in tokenizer.special_tokens.items()}
    tokens = {}
    for role in ("bos", "eos", "pad", "unk"):
        id = tokenizer.role_token(role)
        if id is not None:  # a missing token is an undefined variable of the template
            tokens[f"{role}_token"] = names.get(id, "")
    return ChatTemplate(text, tokens, today)


class Encoder:
    """Encodes records for one tokenizer.

    Only special tokens that the chat template writes are encoded as such; in messages they are ordinary text.

    Args:
        tokenizer: The tokenizer.
        template: The chat template, or None.
        max_length: The most tokens of an example.
        rows: The number of embedding rows; None where every id has one.
        report_dropped: Whether what a template leaves out of a conversation is told, rather than refused.
        overflow: What becomes of a conversation or completion that is longer than `max_length`: "drop_turns": it ends
            with the last answer that fits as a whole; "drop": it is left out; "truncate": it is cut off; "error".
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
    ) -> None:
        self._tokenizer = tokenizer
        self._rows = rows if rows is not None and rows < tokenizer.vocab_size else None
        self._template = template
        self.max_length = max_length
        self._names = {id: name for name, id in tokenizer.special_tokens.items()}
        self._specials = sorted(tokenizer.special_tokens, key=len, reverse=True)
        self._injection = InjectionCheck(self._specials)
        self._cuts_hold: bool | None = None
        self.report_dropped, self.overflow = report_dropped, overflow

    def for_tokenizer(self, tokenizer: Tokenizer, template: ChatTemplate | None, rows: int | None = None) -> Encoder:
        """Returns an encoder with the same rules for another tokenizer."""
        return Encoder(
            tokenizer,
            template,
            self.max_length,
            rows,
            report_dropped=self.report_dropped,
            overflow=self.overflow,
        )

    def encode(self, sample: Sample) -> Encoded:
        """Returns the tokens of a record.

        A conversation or completion longer than `max_length` is cut as `overflow` says. A text is cut into several
        examples, each of which begins with the last token of the one before, so that every token but the first is
        predicted once.

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
        laid_out: list[list[Run]] = []
        left_out: list[set[str]] = []
        refused: DataError | None = None
        for sample in samples:
            left_out.append(set())
            try:
                laid_out.append([] if isinstance(sample, Tokens) else self._runs(sample, left_out[-1]))
            except DataError as error:  # once those before it have been encoded, which may be refused, too
                refused = error
                break
        found = [
            self._finished(sample, self._given(sample) if isinstance(sample, Tokens) else weighted, left)
            for sample, weighted, left in zip(samples, self._weighted(laid_out), left_out, strict=False)
        ]
        if refused is not None:
            raise refused
        return found

    def _weighted(self, laid_out: Sequence[Sequence[Run]]) -> list[Weighted]:
        """Returns the tokens of records that are laid out, and their weights."""
        found = iter(self._together.encode(filter(self._together.takes, laid_out)))
        return [
            next(found) if self._together.takes(runs) else _as_arrays(*self._encode_runs(runs)) for runs in laid_out
        ]

    @cached_property
    def _together(self) -> RunsTogether:
        return RunsTogether(self._tokenizer, self._encode_stretches)

    def _finished(self, sample: Sample, weighted: Weighted, left_out: set[str]) -> Encoded:
        """Returns what is kept of a record's tokens."""
        ids, loss_weights = weighted
        self.check_rows(ids, sample.where)
        is_text = isinstance(sample, Text | LongText)
        if is_text:
            windows = range(0, len(ids) - 1, self.max_length - 1)
            examples = [
                _example(ids[at : at + self.max_length], loss_weights[at : at + self.max_length]) for at in windows
            ]
        else:
            length = self._fitting(ids, loss_weights, sample.where)
            examples = [_example(ids[:length], loss_weights[:length])]
        return Encoded(
            examples=[example for example in examples if example.loss_mask.any()],
            truncated=not is_text and len(ids) > self.max_length,
            stops=self._stops(ids, loss_weights),
            left_out=frozenset(left_out),
        )

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

    def _fitting(self, ids: NDArray[np.int64], loss_weights: NDArray[np.float32], where: str) -> int:
        """Returns how many tokens of a record are kept: all where they fit.

        Raises:
            DataError: They don't, and `overflow` is "error".
        """
        if len(ids) <= self.max_length:
            return len(ids)
        if self.overflow == "error":
            raise DataError(
                f"it has {len(ids):,} tokens, more than data.max_length ({self.max_length:,})",
                where=where,
                hint="Raise data.max_length, or say data.overflow: drop_turns.",
            )
        if self.overflow == "drop_turns":  # up to the end of the last answer that fits as a whole
            learnt = loss_weights[: self.max_length + 1] != 0
            ends = np.flatnonzero(learnt[:-1] & ~learnt[1:]) + 1
            return int(ends[-1]) if len(ends) else 0
        return self.max_length if self.overflow == "truncate" else 0

    def prompt(self, messages: Conversation | str) -> list[int]:
        """Returns the ids of a prompt: a conversation with the start of the assistant's turn, or a text.

        Raises:
            DataError: As for `encode`.
        """
        ids = self._prompt(messages)
        self.check_rows(ids, "the prompt" if isinstance(messages, str) else messages.where)
        return ids

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
            hint="Leave it out of the data, or give it a row: with a section 'tokenizer' that extends the vocabulary.",
        )

    def _prompt(self, messages: Conversation | str) -> list[int]:
        if isinstance(messages, str):
            runs = [*self._start, Run(messages, 0.0)]
        else:
            runs = list(self._chat_runs(messages, set(), reply=True))
        return [int(id) for id in self._weighted([runs])[0][0]]

    def authors(self, sample: Sample) -> list[tuple[str, str]]:
        """Returns the text of a record in stretches, each with who wrote it: "template", "message 1 (user)", ...

        Raises:
            DataError: As for `encode`.
        """
        if isinstance(sample, Conversation):
            pieces = self._pieces(sample, set())
            return [(piece.text, _author(piece.message, sample)) for piece in pieces if piece.text]
        if isinstance(sample, Tokens):
            return [(self._tokenizer.decode(sample.ids), "tokens")]
        parts = (
            {"prompt": sample.prompt, "completion": sample.completion}
            if isinstance(sample, Completion)
            else {"text": sample.text}
        )
        return [(text, name) for name, text in parts.items() if text]

    @property
    def has_template(self) -> bool:
        """Whether there is a chat template."""
        return self._template is not None

    @cached_property
    def plain(self) -> PlainTexts:
        """The encoder of plain texts in batches."""
        start, end = self._start, self._end
        tokens = [(run[0].text, run[0].special) if run and run[0].special is not None else None for run in (start, end)]
        return PlainTexts(
            self._tokenizer,
            tokens[0],
            tokens[1],
            self.max_length,
            lambda text: self._encode_runs(self._runs(Text(text, ""), set())),
        )

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer."""
        return self._tokenizer

    @cached_property
    def fingerprint(self) -> str:
        """A sha256, in hex, of everything that the ids and the loss mask of a record depend on."""
        facts = {
            "version": 2,
            "tokenizer": self._tokenizer.fingerprint,
            "specials": sorted(self._tokenizer.special_tokens.items()),
            "template": self._template.fingerprint if self._template else None,
            "start": [run.special for run in self._start],
            "end": [run.special for run in self._end],
            "max_length": self.max_length,
            "overflow": self.overflow,
            "report_dropped": self.report_dropped,
        }
        return fingerprint(facts)

    def _stops(self, ids: NDArray[np.int64], loss_weights: NDArray[np.float32]) -> bool:
        learnt = np.flatnonzero(loss_weights)
        last = int(learnt[-1]) if len(learnt) else 0
        return len(ids) > 0 and int(ids[last]) in self._names

    def _runs(self, sample: Conversation | Completion | Text | LongText, left_out: set[str]) -> list[Run]:
        """Returns the parts of a record; what a template leaves out of it is put into `left_out`."""
        if isinstance(sample, Conversation):
            return list(self._chat_runs(sample, left_out))
        if isinstance(sample, Completion):
            return [*self._start, Run(sample.prompt, 0.0), Run(sample.completion, 1.0), *self._end]
        return [*self._start, Run(sample.text, 1.0), *self._end]

    def _required_template(self, where: str) -> ChatTemplate:
        if self._template is None:
            raise DataError(
                "the model's tokenizer has no chat template for conversations",
                where=where,
                hint="Give one with data.chat_template, or records with a prompt and a completion.",
            )
        return self._template

    @cached_property
    def _start(self) -> list[Run]:
        bos = self._tokenizer.role_token("bos") if self._tokenizer.adds_bos else None
        return [] if bos is None else [Run(self._names.get(bos, ""), 0.0, bos)]

    @cached_property
    def _end(self) -> list[Run]:
        eos = self._tokenizer.role_token("eos")
        return [] if eos is None else [Run(self._names.get(eos, ""), 1.0, eos)]

    def _pieces(self, conversation: Conversation, left_out: set[str], *, reply: bool = False) -> list[Piece]:
        """Lays a conversation out."""
        return lay_out(
            self._required_template(conversation.where),
            conversation,
            add_generation_prompt=reply,
            controls=self._specials,
            left_out=left_out if self.report_dropped else None,
        )

    def _chat_runs(self, conversation: Conversation, left_out: set[str], *, reply: bool = False) -> Iterator[Run]:
        """Lays a conversation out, and splits what the template wrote at its special tokens."""
        pieces = self._pieces(conversation, left_out, reply=reply)
        self._injection.check(pieces, conversation.where)
        for part in self._learnt.parts(pieces, conversation):
            if part.written:
                for run in self._template_runs(part.text):
                    yield Run(run.text, part.weight, run.special)
            else:
                yield Run(part.text, part.weight)

    @cached_property
    def _learnt(self) -> LearntParts:
        return LearntParts(self._required_template(""), self._specials)

    def _template_runs(self, text: str) -> Iterator[Run]:
        while found := self._find_special(text):
            place, special = found
            if place:
                yield Run(text[:place], 0.0)
            yield Run(special, 0.0, self._tokenizer.special_tokens[special])
            text = text[place + len(special) :]
        if text:
            yield Run(text, 0.0)

    def _find_special(self, text: str) -> tuple[int, str] | None:
        """Finds the leftmost special token, the longest of those that start there: `(place, token)`."""
        found = [(text.find(special), -len(special), special) for special in self._specials if special in text]
        if not found:
            return None
        place, _, special = min(found)
        return place, special

    def _encode_runs(self, runs: Sequence[Run]) -> tuple[list[int], list[float]]:
        """Encodes the whole text at once where that is right, or else part by part.

        It is wrong where a message contains a special token, and where a prompt is encoded differently alone than as
        the start of the whole. `RunsTogether` gives the same tokens, sooner, where the tokenizer tells where it cuts.
        """
        return self._encode_whole(runs) or self._encode_stretches(runs)

    def _encode_whole(self, runs: Sequence[Run]) -> tuple[list[int], list[float]] | None:
        text = "".join(run.text for run in runs)
        encoding = self._tokenizer.encode_offsets(text, "all")
        specials = set(self._tokenizer.special_tokens.values())
        found = [(id, left) for id, (left, _) in zip(encoding.ids, encoding.offsets, strict=True) if id in specials]
        lefts = [left for left, _ in encoding.offsets]
        cuts = [left for _, left in found]
        written, start, opens = [], 0, False
        for number, run in enumerate(runs):
            if run.special is not None:
                written.append((run.special, start))
            opens = bool(number and run.loss_weight and not runs[number - 1].loss_weight)
            if opens and not self._same_alone(text, start, encoding.ids, lefts, cuts):
                return None
            start += len(run.text)
        return (encoding.ids, list(_marks(runs, encoding.offsets))) if found == written else None

    def _same_alone(self, text: str, place: int, ids: Sequence[int], lefts: Sequence[int], cuts: Sequence[int]) -> bool:
        """Tells whether the text before a place is encoded alone as it is in the whole text.

        Special tokens cut a text into parts that are encoded one by one, so that only what follows the last one has to
        be encoded again, and the time does not grow with the square of the turns. That they do is checked once.

        Args:
            text: The whole text.
            place: Where the part in question ends, in characters.
            ids: The whole text's token ids.
            lefts: Where each token begins.
            cuts: Where each special token begins.
        """
        last = bisect_left(lefts, place)
        near = bisect_left(cuts, place)
        cut = cuts[near - 1] if near and self._cuts_hold is not False else 0
        same: bool = ids[bisect_left(lefts, cut) : last] == self._tokenizer.encode(text[cut:place], "all")
        if cut and self._cuts_hold is None:
            whole = ids[:last] == self._tokenizer.encode(text[:place], "all")
            self._cuts_hold = whole == same
            return whole
        return same

    def _encode_stretches(self, runs: Sequence[Run]) -> tuple[list[int], list[float]]:
        ids: list[int] = []
        loss_weights: list[float] = []
        group: list[Run] = []
        for run in [*runs, None]:
            if run is not None and run.special is None:
                group.append(run)
                continue
            self._encode_group(group, ids, loss_weights)
            group = []
            if run is not None and run.special is not None:
                ids.append(run.special)
                loss_weights.append(run.loss_weight)
        return ids, loss_weights

    def _encode_group(self, group: Sequence[Run], ids: list[int], loss_weights: list[float]) -> None:
        """Encodes neighbouring parts as one text.

        Where the text before a part in the loss is encoded differently alone, the text is split there: at inference the
        prompt's tokens are fixed before the answer's first token.
        """
        rest = [(group, False)]
        while rest:
            part, follows = rest.pop()
            text = "".join(run.text for run in part)
            if not text:
                continue
            encoding = self._encode_part(text, follows)
            split = self._first_split(part, text, encoding, follows)
            if split:
                rest += [(part[split:], True), (part[:split], follows)]
            else:
                ids.extend(encoding.ids)
                loss_weights.extend(_marks(part, encoding.offsets))

    def _first_split(self, group: Sequence[Run], text: str, encoding: Encoding, follows: bool) -> int:
        """Returns the number of the first part in the loss before which the text is encoded differently alone, or 0."""
        start = 0
        for number, run in enumerate(group):
            opens = number and run.loss_weight and not group[number - 1].loss_weight
            if opens and _tokens_before(start, encoding) != self._encode_part(text[:start], follows).ids:
                return number
            start += len(run.text)
        return 0

    def _encode_part(self, text: str, follows: bool) -> Encoding:
        """Encodes a part of a text: as its beginning, or so that it follows what has been encoded before.

        Many tokenizers put a space before every text; one that goes on with another text has none, or it would be
        decoded with a space that nobody wrote. Such a text is encoded after a character whose tokens are then dropped.
        """
        if not (follows and self._begins_with_a_space):
            return self._tokenizer.encode_offsets(text)
        for before in _BEFORE:
            head, found = self._tokenizer.encode(before), self._tokenizer.encode_offsets(before + text)
            offsets = found.offsets[len(head) :]
            if found.ids[: len(head)] == head and all(left >= len(before) for left, _ in offsets[:1]):
                moved = [(left - len(before), right - len(before)) for left, right in offsets]
                return Encoding(found.ids[len(head) :], moved)
        return self._tokenizer.encode_offsets(text)

    @cached_property
    def _begins_with_a_space(self) -> bool:
        """Whether the tokenizer puts something before a text that another text does not have."""
        head = self._tokenizer.encode(_BEFORE[0])
        return self._tokenizer.encode(f"{_BEFORE[0]}x") != [*head, *self._tokenizer.encode("x")]


_BEFORE = ("\n", ".", "a")
"""Characters after which a text may be encoded that follows another one."""


def _tokens_before(place: int, encoding: Encoding) -> list[int]:
    return [token for token, (left, _) in zip(encoding.ids, encoding.offsets, strict=True) if left < place]


def _author(message: int | None, conversation: Conversation) -> str:
    if message is None:
        return "template"
    return "tools" if message == TOOLS else f"message {message + 1} ({conversation.messages[message].role})"


def _marks(group: Sequence[Run], offsets: Sequence[tuple[int, int]]) -> Iterator[float]:
    """Yields each token's weight in the loss: that of the part that it begins in."""
    ends, end = [], 0
    for run in group:
        end += len(run.text)
        ends.append(end)
    number = 0
    for left, _ in offsets:
        while number < len(group) - 1 and left >= ends[number]:
            number += 1
        yield group[number].loss_weight


def _as_arrays(ids: Sequence[int], loss_weights: Sequence[float]) -> Weighted:
    return np.array(ids, np.int64), np.array(loss_weights, np.float32)


def _example(ids: NDArray[np.int64], loss_weights: NDArray[np.float32]) -> Example:
    weights = loss_weights.copy()
    learnt = weights != 0
    starts = np.flatnonzero(learnt & ~np.concatenate([[False], learnt[:-1]]))
    weights[:1] = 0  # nothing stands before the first token to predict it from
    return Example(ids, weights, int(starts[-1]) if len(starts) else len(ids))
