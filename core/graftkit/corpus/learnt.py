"""Which parts of a rendered conversation are learnt, and with what weight."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property

from graftkit.corpus.layout import Piece, lay_out
from graftkit.corpus.template import ChatTemplate
from graftkit.errors import DataError
from graftkit.interfaces.samples import Conversation, Message

__all__ = ["LearntParts", "Part", "misses_an_answer"]

_MOST_LOOKED_AT = 64
"""How many different texts between turns are looked at, of one conversation, as they are where it ends there."""


@dataclass(frozen=True, slots=True)
class Part:
    """A stretch of the rendered text with one weight.

    Attributes:
        text: The stretch.
        weight: What each of its tokens weighs in the loss; 0 where it is not learnt.
        written: Whether the template wrote it, so that control tokens in it are such.
    """

    text: str
    weight: float
    written: bool


@dataclass(frozen=True, slots=True)
class _Turn:
    """A turn that is learnt.

    Attributes:
        last: The number of its last piece.
        weight: What each of its tokens weighs in the loss.
        number: The number of its message.
        conversation: What it is a turn of.
    """

    last: int
    weight: float
    number: int
    conversation: Conversation

    @property
    def message(self) -> Message:
        """Its message."""
        return self.conversation.messages[self.number]

    @property
    def begins_with_calls(self) -> bool:
        """Whether nothing is said before its calls."""
        return bool(self.message.tool_calls) and not (self.message.content or self.message.reasoning)


class LearntParts:
    """Tells what is learnt of a conversation: what a model writes in use, and nothing else.

    In use, the text ends with the template's generation prompt, and the model writes up to its turn's end. So of an
    assistant's turn everything is learnt from the end of the generation prompt on (or, where a turn begins otherwise,
    from its first text), up to and with the last control token of what the template writes after the last turn. A
    template that marks what the assistant writes with `{% generation %}` blocks is believed. Where the template's
    options say what ends a turn, a turn is learnt up to the end of that, which is added after the last turn where the
    template writes none.

    Args:
        template: The chat template.
        controls: The texts of control tokens.
    """

    def __init__(self, template: ChatTemplate, controls: Collection[str]) -> None:
        self._template, self._texts = template, controls
        self._closings: dict[str, int] = {}
        self._prompts: dict[str, int] = {}
        ordered = sorted(filter(None, controls), key=len, reverse=True)
        self._control = re.compile("|".join(map(re.escape, ordered))) if ordered else None

    def parts(
        self, pieces: Sequence[Piece], conversation: Conversation, *, add_end_of_turn: bool = True
    ) -> Iterator[Part]:
        """Yields the stretches of a layout with their weights.

        Args:
            pieces: The layout.
            conversation: What was laid out.
            add_end_of_turn: Whether the text that ends a turn is added where the last one has none.
        """
        end = self._template.options.end_of_turn
        parts = self._weighted(pieces, conversation)
        return parts if end is None else _ended(list(parts), end, add_end_of_turn)

    def _weighted(self, pieces: Sequence[Piece], conversation: Conversation) -> Iterator[Part]:
        weights = [message.loss_weight for message in conversation.messages]
        if any(piece.block is not None for piece in pieces):
            yield from self._in_blocks(pieces, conversation)
            return
        self._closings, self._prompts = {}, {}  # what one conversation shows is nothing to the next
        turns = {}
        for number, (first, last) in self._turns(pieces).items():
            if weights[number]:
                turns[first] = _Turn(last, weights[number], number, conversation)
        yield from self._walk(pieces, weights, turns)

    def _in_blocks(self, pieces: Sequence[Piece], conversation: Conversation) -> Iterator[Part]:
        """Yields what stands in `{% generation %}` blocks with the weight of its message."""
        for place, (piece, beside) in enumerate(zip(pieces, _beside(pieces, conversation.messages), strict=True)):
            if piece.message is not None and piece.message >= 0:
                message = conversation.messages[piece.message]
                learnt = piece.block is not None or message.weight is not None
                yield Part(piece.text, message.loss_weight if learnt else 0.0, False)
            elif piece.block is None:
                yield Part(piece.text, 0.0, piece.message is None)
            else:
                yield from self._words_in_block(pieces, place, beside, conversation)

    def _words_in_block(
        self, pieces: Sequence[Piece], place: int, beside: Sequence[int], conversation: Conversation
    ) -> Iterator[Part]:
        """Yields what the template writes in a block: what ends the turn before it, and the rest.

        Args:
            pieces: The layout.
            place: Which of its pieces it is.
            beside: The messages that it may be of.
            conversation: What was laid out.

        Raises:
            DataError: Of which message it is can't be told, and these have several weights.
        """
        messages, piece = conversation.messages, pieces[place]
        weights = [messages[number].loss_weight for number in beside] or [1.0]
        end = len(piece.text)
        if len({*weights}) > 1:
            before = pieces[place - 1].message if place else None
            after = pieces[place + 1].message if place + 1 < len(pieces) else None
            end = self._end_of_turn(piece.text, bool(messages[beside[0]].tool_calls)) if before == beside[0] else 0
            if end == 0 or (end < len(piece.text) and after != beside[-1]):
                weights = [messages[number].loss_weight for number in beside if _is_assistants(messages[number])]
                if len({*weights}) > 1:
                    raise _of_several(beside, conversation)
        for text, weight in ((piece.text[:end], weights[0]), (piece.text[end:], weights[-1])):
            if text:
                yield Part(text, weight, piece.message is None)

    def _turns(self, pieces: Sequence[Piece]) -> dict[int, tuple[int, int]]:
        """Returns the first and the last piece of each message; where another turn begins, it has ended.

        A turn that begins with the generation prompt right after a piece of a message goes on with that message, such
        as the answer after the reasoning (gpt-oss), if the next piece is of it, too.
        """
        found: dict[int, tuple[int, int]] = {}
        opened, said = 0, None
        for place, piece in enumerate(pieces):
            if piece.message is None and self._opener and self._opener in piece.text:
                following = pieces[place + 1].message if place + 1 < len(pieces) else None
                if said is None or following != said or not self._opens_an_answer(piece.text):
                    opened = place
            elif piece.message is not None and piece.message >= 0:
                first, last = found.get(piece.message, (place, place))
                found[piece.message] = (first, place if first >= opened else last)
                said = piece.message
        return found

    def _opens_an_answer(self, text: str) -> bool:
        """Tells whether the one turn that begins in what the template writes begins with the generation prompt."""
        place = text.find(self._opener)
        return place == text.rfind(self._opener) and text.startswith(self.generation_prompt, place)

    def _walk(self, pieces: Sequence[Piece], weights: Sequence[float], turns: Mapping[int, _Turn]) -> Iterator[Part]:
        turn, last = None, -1
        for place, piece in enumerate(pieces):
            if place in turns:
                turn = turns[place]
                last = turn.last
            if piece.message is not None:
                yield Part(piece.text, weights[piece.message] if piece.message >= 0 and place <= last else 0.0, False)
            elif turn and place < last and pieces[place - 1].message == turn.number == pieces[place + 1].message:
                yield Part(piece.text, turn.weight, True)
            else:  # between two turns, or beside another message's words within one
                ended = turn if turn and place <= last + 1 and pieces[place - 1].message == turn.number else None
                end = self._end_of_turn(piece.text, bool(ended.message.tool_calls), ended) if ended else 0
                yield from self._between(piece.text, end, ended, turns.get(place + 1), pieces[place - 1].message)
            if place > last:
                turn = None

    def _between(
        self, text: str, end: int, before: _Turn | None, after: _Turn | None, said: int | None
    ) -> Iterator[Part]:
        """Splits what the template writes between two turns.

        Args:
            text: It.
            end: How much of it ends the first turn.
            before: The first turn; None where it is not learnt.
            after: The second turn; None where none that is learnt begins in it.
            said: The number of the message whose words stand before it.
        """
        start = self._start_of_answer(text, end, after, said) if after else len(text)
        own = [turn.weight if turn else 0.0 for turn in (before, after)]
        for stretch, weight in ((text[:end], own[0]), (text[end:start], 0.0), (text[start:], own[1])):
            if stretch:
                yield Part(stretch, weight, True)

    def _end_of_turn(self, text: str, calls: bool, turn: _Turn | None = None) -> int:
        """Returns how much of what follows a turn is learnt.

        Args:
            text: What the template writes there.
            calls: Whether the turn ends with tool calls, which the template closes in its own way.
            turn: The turn, where it is known.
        """
        if self._template.options.end_of_turn is not None:  # see `_ended`
            return 0
        opens = text.find(self._opener) if self._opener else -1
        limit = opens if opens >= 0 else len(text)
        if self._last_end:
            place = text.find(self._last_end, 0, limit)
            if place >= 0 and (calls or not text[:place].strip()):
                return place + len(self._last_end)
        if calls and (opens >= 0 or self._last_end == ""):
            closing = self._closing(text, turn) if turn and opens < 0 else 0
            next_turn = self._control.match(text, closing) if self._control and closing else None
            return next_turn.end() if next_turn else closing or len(text[:limit].rstrip())
        if self._last_end == "":
            return 0
        found = self._control.search(text, 0, limit) if self._control else None
        end = found.end() if found else 0
        return max(end, self._closing(text[:limit], turn)) if calls and turn else end

    def _closing(self, text: str, turn: _Turn) -> int:
        """Returns how much of what follows calls the template writes where nothing follows them, which closes them."""
        if text not in self._closings:
            called = replace(turn.message, content="", reasoning="")
            messages = (*turn.conversation.messages[: turn.number], called)
            alike = _alike(text, self._last_words(messages, turn, False, turn.number))
            controls = [found.end() for found in self._controls_in(text, 0) if found.end() <= alike]
            self._closings[text] = max(controls, default=len(text[:alike].rstrip()))
        return self._closings[text]

    def _asked(self, text: str, turn: _Turn, said: int | None) -> int:
        """Returns how much of what precedes a turn stands before it in use, too; all where that is something else."""
        if text not in self._prompts:
            asked = self._last_words(turn.conversation.messages[: turn.number], turn, True, said)
            self._prompts[text] = len(asked) if asked and text.startswith(asked) else len(text)
        return self._prompts[text]

    def _last_words(self, messages: Sequence[Message], turn: _Turn, reply: bool, said: int | None) -> str:
        """Returns what the template writes at the end of some messages; "" where no words of message `said` precede it.

        These need not be the last message's: Gemma 4's template writes what is said beside a call after its result.
        """
        so_far, texts = replace(turn.conversation, messages=tuple(messages)), self._texts
        if max(len(self._closings), len(self._prompts)) >= _MOST_LOOKED_AT:
            return ""
        with suppress(DataError):
            pieces = lay_out(self._template, so_far, add_generation_prompt=reply, controls=texts, left_out=set())
            last = [piece.message for piece in pieces[-2:]]
            return pieces[-1].text if last == [said, None] else ""
        return ""

    def _start_of_answer(self, text: str, begin: int, turn: _Turn, said: int | None) -> int:
        """Returns where what is learnt begins in what precedes a turn: after the generation prompt.

        Where that has more than the turn begins with, such as `<think>`, a turn that begins with calls is learnt from
        where the two differ, or from the control token after it that begins a turn: without it no call is ever begun.
        Where no turn is begun, as after a result within one (Gemma 4), it begins where a prompt in use ends.

        Args:
            text: What the template writes there.
            begin: Where the turn before it has ended.
            turn: The turn.
            said: The number of the message whose words stand before the text.
        """
        prompt, opener = self.generation_prompt, self._opener
        place = text.rfind(prompt, begin) if prompt else -1
        if place >= 0:
            return place + len(prompt)
        place = text.rfind(opener, begin) if opener else -1
        if place < 0:
            return max(begin, self._asked(text, turn, said)) if opener else len(text)
        if not turn.begins_with_calls:
            return len(text)
        differs = place + _alike(text[place:], prompt[prompt.index(opener) :])
        later = [found.start() for found in self._controls_in(text, place + len(opener)) if found.end() > differs]
        if differs > place + len(opener):
            return min([differs, *later])
        return later[0] if later else len(text)

    def _controls_in(self, text: str, begin: int) -> Iterator[re.Match[str]]:
        return self._control.finditer(text, begin) if self._control else iter(())

    @cached_property
    def generation_prompt(self) -> str:
        """What the template writes after a user's turn to have the assistant answer; "" where that can't be told."""
        asked = Conversation((Message("user", "x"),), "")
        plain, prompted = (self._rendered(asked, reply) for reply in (False, True))
        return prompted[len(plain) :] if plain and prompted.startswith(plain) else ""

    @cached_property
    def _opener(self) -> str:
        """The control token that begins a turn; "" where the generation prompt has none."""
        found = self._control.search(self.generation_prompt) if self._control else None
        return found[0] if found else ""

    @cached_property
    def _last_end(self) -> str | None:
        """What the template writes after the last answer, up to its last control token or word; None if unknown."""
        said = Conversation((Message("user", "x"), Message("assistant", "y")), "")
        try:
            pieces = lay_out(self._template, said)
        except DataError:
            return None
        text = pieces[-1].text if pieces and pieces[-1].message is None else ""
        text = text.partition(self._opener)[0] if self._opener else text
        controls = list(self._control.finditer(text)) if self._control else []
        return text[: controls[-1].end()] if controls else text.rstrip()

    def _rendered(self, conversation: Conversation, reply: bool) -> str:
        try:
            return "".join(piece.text for piece in lay_out(self._template, conversation, add_generation_prompt=reply))
        except DataError:
            return ""


def _ended(parts: Sequence[Part], end: str, add: bool) -> Iterator[Part]:
    """Yields parts with the text that ends a turn learnt after each learnt one.

    Args:
        parts: The parts; what ends a turn is not learnt yet, but where a block of the template holds it.
        end: What ends a turn.
        add: Whether it takes the place of what follows the last turn where it does not stand there.
    """
    last = max((number for number, part in enumerate(parts) if part.weight), default=-1)
    for number, part in enumerate(parts):
        before = parts[number - 1] if number else Part("", 0.0, True)
        if number > last + 1 or part.weight or not before.weight or (before.written and before.text.endswith(end)):
            yield part
            continue
        place = part.text.find(end) + len(end) if part.written and end in part.text else 0
        if place:
            yield Part(part.text[:place], before.weight, True)
            yield from [Part(part.text[place:], 0.0, True)] if part.text[place:] else []
        elif add and number == last + 1 and all(rest.written for rest in parts[number:]):
            yield Part(end, before.weight, True)
            return
        else:
            yield part
    if add and parts and last == len(parts) - 1 and not (parts[last].written and parts[last].text.endswith(end)):
        yield Part(end, parts[last].weight, True)


def misses_an_answer(pieces: Sequence[Piece], conversation: Conversation) -> bool:
    """Tells whether an answer stands outside the template's `{% generation %}` blocks while others stand in one.

    Args:
        pieces: The conversation's layout.
        conversation: The conversation.
    """
    marked = {piece.message for piece in pieces if piece.block is not None}
    shown = {piece.message for piece in pieces if piece.text.strip()}
    answers = (
        number
        for number, message in enumerate(conversation.messages)
        if message.loss_weight and message.weight is None and number in shown
    )
    return bool(marked) and not marked.issuperset(answers)


def _beside(pieces: Sequence[Piece], messages: Sequence[Message]) -> Iterator[Sequence[int]]:
    """Yields for each piece the numbers of the messages that what the template writes there in a block may be of.

    These are the nearest ones before and after it in the same block; in one without a message, those of the assistant's
    that stand there in the conversation, shown or not.
    """
    before = _nearest(pieces)
    after = _nearest(pieces[::-1])[::-1]
    for piece, (own, earlier), (next_own, later) in zip(pieces, before, after, strict=True):
        if piece.block is None:
            yield ()
            continue
        there = range(earlier or 0, len(messages) if later is None else later + 1)
        near = [number for number in (own, next_own) if number is not None]
        yield near or [number for number in there if _is_assistants(messages[number])]


def _nearest(pieces: Sequence[Piece]) -> list[tuple[int | None, int | None]]:
    """Returns for each piece the last message that stands before it in its block, and the last one of all."""
    found = []
    own: int | None = None
    last: int | None = None
    block: int | None = None
    for piece in pieces:
        if piece.block != block:
            own, block = None, piece.block
        found.append((own, last))
        if piece.message is not None and piece.message >= 0:
            own = last = piece.message
    return found


def _alike(one: str, other: str) -> int:
    """Returns how many characters two texts begin with alike."""
    pairs = zip(one, other, strict=False)
    return next((place for place, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


def _is_assistants(message: Message) -> bool:
    return message.role == "assistant" or message.loss_weight > 0


def _of_several(numbers: Sequence[int], conversation: Conversation) -> DataError:
    return DataError(
        f"messages {numbers[0] + 1} and {numbers[-1] + 1} have other weights, and of which of them the chat template's "
        "words are that stand beside them in a {% generation %} block can't be told",
        where=conversation.where,
        hint="Give both one weight, or another template with data.chat_template.",
    )
