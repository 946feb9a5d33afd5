"""A model that answers, as `graftkit.flow.answering.reload` loads it."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, TypedDict

from graftkit.arguments import check_unicode
from graftkit.corpus.encode import Encoder
from graftkit.corpus.encoding_rules import EncodingRules
from graftkit.corpus.tokenizer_template import chat_template_of
from graftkit.errors import ContextLengthError, DataError, RequestError
from graftkit.flow.answering.answer_reader import AnswerReader
from graftkit.flow.answering.call_notation import CallNotation, call_notation
from graftkit.flow.answering.reasoning_notation import ReasoningNotation, reasoning_notation
from graftkit.flow.answering.stop_texts import StopTexts
from graftkit.flow.answering.turn_end import TurnEnd, Unended, turn_end
from graftkit.interfaces.chat_options import ChatOptions
from graftkit.interfaces.samples import Conversation, Message
from graftkit.interfaces.tokenizer import Tokenizer
from graftkit.model.adapt import adapters_disabled
from graftkit.model.context import context_length
from graftkit.model.continuation import Continuation
from graftkit.model.decoding_trial import choose_decoding
from graftkit.model.generate import generate_greedily
from graftkit.model.sampling import Sampler

__all__ = ["LayOut", "ReloadedModel", "Reply"]

LayOut = Callable[[int, Callable[[], list[int]]], list[int]]
"""Given the characters of a prompt, about, and what lays it out as ids, returns those ids."""


class Reply:
    """An answer's text, piece by piece as it comes; what is known of it stands in the attributes meanwhile.

    Attributes:
        text: What has been said so far.
        prompt_tokens: How many tokens the prompt has.
        tokens: How many tokens were made, without that which ended the answer.
        stopped: "end" where the model or a stop text ended the answer, "length" where it had no room left; "" before
            that.
        reader: What takes reasoning and calls of functions out of the text.
    """

    def __init__(
        self,
        tokens: Iterator[int],
        tokenizer: Tokenizer,
        end: TurnEnd,
        *,
        prompt_tokens: int,
        most: int,
        stop_texts: Sequence[str] = (),
        reader: AnswerReader | None = None,
    ) -> None:
        self.reader = reader or AnswerReader()
        self.text, self.tokens, self.prompt_tokens = "", 0, prompt_tokens
        self.stopped: Literal["", "end", "length"] = ""
        self._pieces = self._read(tokens, tokenizer, end, most, StopTexts(stop_texts))

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        piece = next(self._pieces)
        self.text += piece
        return piece

    def close(self) -> None:
        """Stops the answer where it is."""
        self._pieces.close()

    def _read(
        self, tokens: Iterator[int], tokenizer: Tokenizer, end: TurnEnd, most: int, stops: StopTexts
    ) -> Generator[str, None, None]:
        decoder, unended = tokenizer.stream_decoder(), Unended(end)
        specials = {*tokenizer.special_tokens.values()}
        for token in tokens:
            self.tokens += 1
            yield stops.push(unended.push("" if token in specials else decoder.push(token)))
            if unended.ended or stops.found:
                self.stopped = "end"
                yield stops.finish()
                return
        stopped = self.tokens < most
        rest = unended.push(decoder.finish()) + unended.finish(stopped=stopped)
        yield stops.push(rest) + stops.finish()
        self.stopped = "end" if stopped or unended.ended or stops.found else "length"


class _Notations(TypedDict, total=False):
    """How the chat template writes what an answer holds besides text, as far as it was asked for."""

    reasoning: ReasoningNotation | None
    calls: CallNotation | None


@dataclass(frozen=True, slots=True)
class ReloadedModel:
    """A model that answers.

    Attributes:
        network: The model.
        tokenizer: Its tokenizer.
        stop: The tokens that end an answer.
        system: The system message that it was trained with, or None.
        tools: Descriptions of the functions that it was trained with, where those were always the same.
        chat: How conversations were laid out.
        prompts: How it was asked in training: "chat" for the chat template, "plain" for the text alone.
        generation: Its own generation settings, with the keys of a `generation_config.json`.
        adapted: Whether its adapter is used, where it has one beside its weights.
    """

    network: Any
    tokenizer: Tokenizer
    stop: Sequence[int]
    system: str | None = None
    tools: Sequence[Mapping[str, Any]] = ()
    chat: ChatOptions = field(default_factory=ChatOptions)
    prompts: Literal["chat", "plain"] = "chat"
    generation: Mapping[str, Any] = field(default_factory=dict)
    adapted: bool = True
    _continuation: Continuation = field(init=False, repr=False, compare=False)
    _end: TurnEnd = field(init=False, repr=False, compare=False)
    _notations: _Notations = field(init=False, repr=False, compare=False, default_factory=lambda: _Notations())

    def __post_init__(self) -> None:
        continuation = Continuation(self.network, choose_decoding(self.network), self._within)
        object.__setattr__(self, "_continuation", continuation)
        laid_out = self.tokenizer.chat_template is not None
        object.__setattr__(self, "_end", turn_end(self._encoder()) if laid_out else TurnEnd())

    def stream(
        self,
        prompt: str,
        *,
        system: str | None = None,
        tools: Sequence[Mapping[str, Any]] | None = None,
        plain: bool | None = None,
        history: Sequence[Message] = (),
        max_new_tokens: int = 256,
        sampler: Sampler | None = None,
        stop_texts: Sequence[str] = (),
        lay_out: LayOut | None = None,
        unwanted: Callable[[], bool] | None = None,
    ) -> Reply:
        """Returns the answer to a prompt, which is made as its pieces are taken.

        Args:
            prompt: What the user says.
            system: The system message; the one of the training when left out.
            tools: Descriptions of the functions that may be called, as JSON schemas; those of the training when left
                out, none where the list is empty.
            plain: Whether the text is continued as it is, without the chat template; as in training when left out.
            history: What was said before by user and assistant.
            max_new_tokens: Tokens at most.
            sampler: What chooses tokens; the likeliest when left out.
            stop_texts: Texts that end the answer, and are no part of it.
            lay_out: How the prompt's ids are made, such as within a limit of time; at once when left out.
            unwanted: Tells, while the prompt is computed, whether nobody wants the answer any more, which ends it.

        Raises:
            RequestError: The prompt is empty, too long or no text, or a chat template is needed that is not there, or
                not used.
        """
        asked = (prompt, system, plain, tools, history)
        ids = self._laid_out(lay_out, asked, partial(self.prompt, *asked))
        return self._reply(ids, self._end_of(plain), max_new_tokens, sampler, stop_texts, unwanted)

    def replies(
        self, prompts: Sequence[Sequence[int]], *, plain: bool | None = None, max_new_tokens: int = 256
    ) -> list[Reply]:
        """Returns the answers to several prompts, computed side by side: the likeliest tokens, as for each alone.

        Args:
            prompts: Token ids of each, as `prompt` returns them.
            plain: As for `stream`.
            max_new_tokens: Tokens at most; a prompt that leaves less room in the model's context is answered alone.

        Raises:
            RequestError: A prompt is empty or too long.
        """
        rooms = [self._room(len(ids), max_new_tokens) for ids in prompts]
        together = [number for number, room in enumerate(rooms) if room == max_new_tokens]
        with self._within():
            wanted = [prompts[number] for number in together]
            found = generate_greedily(self.network, wanted, max_new_tokens=max_new_tokens, stop=self.stop)
        tokens = dict(zip(together, map(iter, found), strict=True))
        end = self._end_of(plain)
        return [
            Reply(tokens[number], self.tokenizer, end, prompt_tokens=len(ids), most=max_new_tokens)
            if number in tokens
            else self._reply(ids, end, max_new_tokens, None, (), None)
            for number, ids in enumerate(prompts)
        ]

    def _within(self) -> AbstractContextManager[None]:
        return nullcontext() if self.adapted else adapters_disabled(self.network)

    def _end_of(self, plain: bool | None) -> TurnEnd:
        return TurnEnd() if (self.asks_plainly if plain is None else plain) else self._end

    def answer(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        max_new_tokens: int = 256,
        sampler: Sampler | None = None,
        stop_texts: Sequence[str] = (),
        lay_out: LayOut | None = None,
        unwanted: Callable[[], bool] | None = None,
    ) -> Reply:
        """Returns the answer to a conversation in the chat template, which is made as its pieces are taken.

        Args:
            messages: What was said; the system message of the training goes before it where it has none. An empty
                system message stands for none.
            tools: As for `stream`.
            max_new_tokens: Tokens at most.
            sampler: What chooses tokens; the likeliest when left out.
            stop_texts: Texts that end the answer, and are no part of it.
            lay_out: As for `stream`.
            unwanted: As for `stream`.

        Raises:
            RequestError: There is no chat template, or it refuses the conversation or leaves out some of it; or the
                conversation is too long.
        """
        if self.tokenizer.chat_template is None:
            raise RequestError("the tokenizer has no chat template", hint="Continue a text instead.")
        asked = (messages, tools)
        ids = self._laid_out(lay_out, asked, partial(self._conversation_prompt, *asked))
        return self._reply(ids, self._end, max_new_tokens, sampler, stop_texts, unwanted, self._reader(tools or ()))

    def _reader(self, tools: Sequence[Mapping[str, Any]]) -> AnswerReader:
        """Returns what takes reasoning, and calls of these functions, out of an answer as the chat template writes it.

        How it does is found out once, when it is first asked for.
        """
        kept = self._notations
        if "reasoning" not in kept:
            kept["reasoning"] = reasoning_notation(self._encoder())
        if tools and "calls" not in kept:
            kept["calls"] = call_notation(self._encoder(), self._end.text)
        names = {tool["function"]["name"] for tool in tools if isinstance(tool.get("function"), Mapping)}
        return AnswerReader(kept["reasoning"], kept["calls"] if tools else None, names)

    def _laid_out(self, lay_out: LayOut | None, asked: Any, work: Callable[[], list[int]]) -> list[int]:
        """Returns a prompt's ids; their number of characters is told as a little more than it is."""
        return lay_out(len(repr((asked, self.system, self.tools))), work) if lay_out else work()

    def _conversation_prompt(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] | None) -> list[int]:
        """Returns the ids of a conversation; arguments and errors as for `answer`.

        All that was given must be written by the template. What the training gives it besides may be left out, as it
        was from records whose template leaves it out.
        """
        said = tuple(message for message in messages if message.content or message.role != "system")
        given = Conversation(said, "", tuple(tools or ()))
        system = () if any(message.role == "system" for message in messages) else self._training_system
        whole = Conversation((*system, *said), "", tuple(self.tools if tools is None else tools))
        strict = self._encoder(report_dropped=False)
        try:
            return strict.prompt(whole)
        except DataError:
            if whole == given:
                raise
            strict.prompt(given)
            return self._encoder().prompt(whole)

    @property
    def _training_system(self) -> tuple[Message, ...]:
        return (Message("system", self.system),) if self.system else ()

    def forget(self) -> None:
        """Has the next answer computed from its first token, whatever the prompt before it began with.

        What was computed in other parts differs in its last bits, as matrix products of other shapes do.
        """
        self._continuation.forget()

    def _reply(
        self,
        ids: Sequence[int],
        end: TurnEnd,
        wanted: int,
        sampler: Sampler | None,
        stop_texts: Sequence[str],
        unwanted: Callable[[], bool] | None,
        reader: AnswerReader | None = None,
    ) -> Reply:
        most = self._room(len(ids), wanted)
        tokens = self._continuation.stream(ids, max_new_tokens=most, stop=self.stop, sampler=sampler, unwanted=unwanted)
        return Reply(
            tokens, self.tokenizer, end, prompt_tokens=len(ids), most=most, stop_texts=stop_texts, reader=reader
        )

    def check_room(self, prompt: Sequence[int]) -> None:
        """Makes sure that a prompt's ids can be answered.

        Raises:
            RequestError: There are none, or more than the model's context has room for.
        """
        self._room(len(prompt), 1)

    def _room(self, prompt: int, wanted: int) -> int:
        """Returns how many tokens an answer may have, within the model's context."""
        context = context_length(self.network.config.to_dict()) or prompt + wanted
        if prompt == 0:
            raise RequestError("the prompt is empty", hint="Give it a word.")
        if prompt >= context:
            raise ContextLengthError(f"the prompt has {prompt} tokens; the model's context is {context}")
        return min(wanted, context - prompt)

    @property
    def turn_stops(self) -> list[int]:
        """The special token that its chat template ends an assistant's turn with, where it does."""
        return [] if self._end.stop is None else [self._end.stop]

    @property
    def asks_plainly(self) -> bool:
        """Whether a prompt is given without a chat template where nothing else is asked for."""
        return self.prompts == "plain" or self.tokenizer.chat_template is None

    def prompt(
        self,
        prompt: str,
        system: str | None = None,
        plain: bool | None = None,
        tools: Sequence[Mapping[str, Any]] | None = None,
        history: Sequence[Message] = (),
    ) -> list[int]:
        """Returns the ids that the model goes on with; arguments and errors as for `stream`."""
        check_unicode(prompt, "prompt")
        plain = self.asks_plainly if plain is None else plain
        if plain and (system or tools):
            what = "a system message is" if system else "tools are"
            raise RequestError(
                f"{what} laid out by the chat template, which is not used here",
                hint="Leave it out, or ask in the chat template: --chat.",
            )
        if not plain and self.tokenizer.chat_template is None:
            raise RequestError("the tokenizer has no chat template", hint="Leave --chat out.")
        encoder = self._encoder()
        if plain:
            return encoder.prompt(prompt)
        turns = self._training_system if system is None else (Message("system", system),) if system else ()
        offered = tuple(self.tools if tools is None else tools)
        return encoder.prompt(Conversation((*turns, *history, Message("user", prompt)), "prompt", offered))

    def _encoder(self, *, report_dropped: bool = True) -> Encoder:
        return Encoder(
            self.tokenizer,
            chat_template_of(self.tokenizer, options=self.chat),
            max_length=1 << 30,
            rows=self.network.get_input_embeddings().num_embeddings,
            rules=EncodingRules(report_dropped=report_dropped),
        )
