"""Lays records out as runs: stretches of characters with their weight in the loss, and special tokens."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice

from graftkit.corpus.answer_in_use import after_prompt_in_use
from graftkit.corpus.layout import Piece, lay_out
from graftkit.corpus.learnt import LearntParts, misses_an_answer
from graftkit.corpus.learnt import Part as LearntPart
from graftkit.corpus.runs import Run
from graftkit.corpus.special_token_injection import InjectionCheck
from graftkit.corpus.stretches import is_long, stretches_of
from graftkit.corpus.template import ChatTemplate
from graftkit.corpus.turns import TOOLS
from graftkit.errors import DataError
from graftkit.interfaces.samples import Completion, Conversation, LongText, Prompt, Text, TextPrompt, Tokens
from graftkit.interfaces.tokenizer import Tokenizer
from graftkit.tokenization.text_search import TextSearch

__all__ = ["Notes", "RecordRuns", "Unencoded"]

Unencoded = Conversation | Completion | Text | LongText
"""What is laid out: a record of text, or one of its answers."""

_SHOWN = 1 << 11
"""The characters of a long text that are shown, about."""


@dataclass(slots=True)
class Notes:
    """What is to be told of a conversation.

    Attributes:
        left_out: What the chat template leaves out of it.
        unmarked: Whether it has an answer that is not learnt, outside the template's `{% generation %}` blocks.
        spells: A control token that an answer spells in plain characters.
    """

    left_out: set[str] = field(default_factory=set)
    unmarked: bool = False
    spells: str | None = None


class RecordRuns:
    """Lays records out for one tokenizer and its chat template.

    Only control tokens that the template writes become special tokens; in messages they are ordinary text.

    Args:
        tokenizer: The tokenizer, to which the template's control tokens are special.
        template: The chat template, or None.
        reports_dropped: Whether what a template leaves out of a conversation is told, rather than refused.
        parses: Whether special tokens that texts, prompts and completions spell are such.

    Attributes:
        template: The chat template, or None.
        specials: The special tokens, longer ones first.
    """

    def __init__(
        self, tokenizer: Tokenizer, template: ChatTemplate | None, *, reports_dropped: bool, parses: bool
    ) -> None:
        self._tokenizer, self.template = tokenizer, template
        self._reports_dropped, self._parses = reports_dropped, parses
        self._names = {id: name for name, id in tokenizer.special_tokens.items()}
        self.specials = sorted(tokenizer.special_tokens, key=len, reverse=True)
        self._search = TextSearch(self.specials)
        self._injection = InjectionCheck(self._search)
        self._learnt_parts: dict[str, LearntParts] = {}

    @property
    def each(self) -> bool:
        """Whether every answer of a conversation is an example of its own."""
        return self.template is not None and self.template.options.turns == "each"

    def of(self, sample: Unencoded, notes: Notes) -> list[Run]:
        """Returns the runs of a record; arguments and errors as for `stretches`."""
        return [run for stretch in self.stretches(sample, notes) for run in self.split(stretch)]

    def stretches(self, sample: Unencoded, notes: Notes) -> Sequence[Run | LearntPart]:
        """Returns the stretches of a record that runs are made of, by `split`.

        Args:
            sample: The record.
            notes: What is to be told of a conversation is put into it.

        Raises:
            DataError: The chat template refuses the record, a conversation has no template, or a special token would be
                formed across the boundary of a message.
        """
        if isinstance(sample, Conversation):
            return self._chat_parts(sample, notes, reply=isinstance(sample, Prompt))
        if isinstance(sample, TextPrompt):
            return self.of_prompt(sample.prompt)
        if isinstance(sample, Completion):
            parts = [(sample.prompt, 0.0), (sample.completion, 1.0)]
        else:
            parts = [(sample.text, 1.0)]
        inside = [run for text, weight in parts for run in self._plain(text, weight)]
        ends = self._parses and bool(inside) and inside[-1].special is not None
        return [*self._start_of(parts[0][0]), *inside, *([] if ends else self.end)]

    def split(self, stretch: Run | LearntPart) -> Iterator[Run]:
        """Yields the runs of a stretch: what the template wrote is split at its special tokens."""
        if isinstance(stretch, Run):
            yield stretch
        elif stretch.written:
            for run in self._template_runs(stretch.text):
                yield Run(run.text, stretch.weight, run.special)
        else:
            yield Run(stretch.text, stretch.weight)

    def _plain(self, text: str, weight: float) -> Iterator[Run]:
        """Yields the parts of a text: one, or those around the special tokens that it spells."""
        if not self._parses:
            yield Run(text, weight)
            return
        for run in self._template_runs(text):
            yield Run(run.text, weight, run.special)

    def _start_of(self, text: str) -> list[Run]:
        """Returns what is put before a text."""
        return [] if self._parses and self.start and text.startswith(self.start[0].text) else self.start

    def _required_template(self, where: str) -> ChatTemplate:
        if self.template is None:
            raise DataError(
                "the model's tokenizer has no chat template for conversations",
                where=where,
                hint="Give one with data.chat_template, or records with a prompt and a completion.",
            )
        return self.template

    @cached_property
    def start(self) -> list[Run]:
        """What is put before a text: the `bos` token, or nothing."""
        bos = self._tokenizer.role_token("bos") if self._tokenizer.adds_bos else None
        return [] if bos is None else [Run(self._names.get(bos, ""), 0.0, bos)]

    @cached_property
    def end(self) -> list[Run]:
        """What is put after a text, and learnt: the `eos` token, or nothing."""
        eos = self._tokenizer.role_token("eos")
        return [] if eos is None else [Run(self._names.get(eos, ""), 1.0, eos)]

    def pieces(self, conversation: Conversation, left_out: set[str], *, reply: bool = False) -> list[Piece]:
        """Lays a conversation out; what it leaves out of earlier reasoning in use, it may leave out.

        With `turns: each` an answer stands after its prompt in use, whatever the template would write before it.

        Args:
            conversation: The conversation.
            left_out: What the template leaves out of it is put into it, where that is told rather than refused.
            reply: Whether an assistant's turn begins after it.

        Raises:
            DataError: The chat template refuses it, or there is none.
        """
        count = len(conversation.messages)
        template = self._required_template(conversation.where).taking(conversation.tools)
        told = left_out if self._reports_dropped else None
        pieces = lay_out(
            template,
            conversation,
            add_generation_prompt=reply,
            controls=self.specials,
            left_out=told,
            shortened=count if reply else count - 1 if self.each else 0,
        )
        if reply or not self.each:
            return pieces
        prompt = self._learnt(conversation).generation_prompt
        return after_prompt_in_use(pieces, template, conversation, prompt, self.specials, told) or pieces

    def _chat_parts(self, conversation: Conversation, notes: Notes, *, reply: bool = False) -> list[LearntPart]:
        """Lays a conversation out; what is to be told of it is put into `notes`."""
        pieces = self.pieces(conversation, notes.left_out, reply=reply)
        self._injection.check(pieces, conversation.where)
        notes.unmarked = misses_an_answer(pieces, conversation)
        notes.spells = self._first_spelt(piece.text for piece in pieces if _is_an_answers(piece, conversation))
        return list(self._learnt(conversation).parts(pieces, conversation, add_end_of_turn=not reply))

    def _learnt(self, conversation: Conversation) -> LearntParts:
        template = self._required_template(conversation.where).taking(conversation.tools)
        if template.source not in self._learnt_parts:
            self._learnt_parts[template.source] = LearntParts(template, self.specials)
        return self._learnt_parts[template.source]

    def of_prompt(self, messages: Conversation | str) -> list[Run]:
        """Returns the runs of a prompt: a conversation with the start of the assistant's turn, or a text.

        Raises:
            DataError: As for `stretches`.
        """
        if isinstance(messages, str):
            return [*self._start_of(messages), *self._plain(messages, 0.0)]
        return [run for part in self._chat_parts(messages, Notes(), reply=True) for run in self.split(part)]

    def _template_runs(self, text: str) -> Iterator[Run]:
        start = 0
        while found := self._search.next(text, start):
            place, special = found
            if place > start:
                yield Run(text[start:place], 0.0)
            yield Run(special, 0.0, self._tokenizer.special_tokens[special])
            start = place + len(special)
        if start < len(text):
            yield Run(text[start:], 0.0)

    def spelt(self, sample: Text | LongText | Completion | Tokens) -> str | None:
        """Returns the first control token that a record spells in plain characters; None where it spells none.

        Of a text as long as a file only the beginning is looked at.
        """
        texts: Iterable[str]
        match sample:
            case Tokens():
                texts = ()
            case LongText():
                texts = islice(stretches_of(sample), 1)
            case Completion():
                texts = (sample.prompt, sample.completion)
            case _:
                texts = (sample.text,)
        return None if self._parses else self._first_spelt(texts)

    def _first_spelt(self, texts: Iterable[str]) -> str | None:
        found = (self._search.next(text, 0) for text in texts)
        return next((match[1] for match in found if match is not None), None)

    def authors(self, sample: Unencoded | Tokens) -> list[tuple[str, str]]:
        """Returns the text of a record in stretches, each with who wrote it: "template", "message 1 (user)", ...

        Of a text of over 4 MB it is the beginning.

        Raises:
            DataError: As for `stretches`.
        """
        if isinstance(sample, Conversation):
            pieces = self.pieces(sample, set(), reply=isinstance(sample, Prompt))
            return [(piece.text, _author(piece.message, sample)) for piece in pieces if piece.text]
        if isinstance(sample, Tokens):
            return [(self._tokenizer.decode(sample.ids), "tokens")]
        parts = (
            {"prompt": sample.prompt, "completion": sample.completion}
            if isinstance(sample, Completion)
            else {"text": next(stretches_of(sample, _SHOWN), "") if is_long(sample) else sample.text}
        )
        return [(text, name) for name, text in parts.items() if text]


def _is_an_answers(piece: Piece, conversation: Conversation) -> bool:
    """Whether an assistant says it."""
    number = piece.message
    return number is not None and number >= 0 and conversation.messages[number].role == "assistant"


def _author(message: int | None, conversation: Conversation) -> str:
    if message is None:
        return "template"
    return "tools" if message == TOOLS else f"message {message + 1} ({conversation.messages[message].role})"
