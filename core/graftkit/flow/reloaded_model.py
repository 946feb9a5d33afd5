"""A model that answers, as `graftkit.flow.reload` loads it."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

from graftkit.corpus.encode import Encoder, chat_template_of
from graftkit.errors import RequestError
from graftkit.flow.turn_end import TurnEnd, Unended, turn_end
from graftkit.interfaces.chat_options import ChatOptions
from graftkit.interfaces.samples import Conversation, Message
from graftkit.interfaces.tokenizer import Tokenizer
from graftkit.model.adapt import adapters_disabled
from graftkit.model.context import context_length
from graftkit.model.generate import Continuation
from graftkit.model.sampling import Sampler

__all__ = ["ReloadedModel", "Reply"]


class Reply:
    """An answer's text, piece by piece as it comes; what is known of it stands in the attributes meanwhile.

    Attributes:
        text: What has been said so far.
        prompt_tokens: How many tokens the prompt has.
        tokens: How many tokens were made, without that which ended the answer.
        stopped: "end" where the model ended its answer, "length" where it had no room left; "" before that.
    """

    def __init__(
        self, tokens: Iterator[int], tokenizer: Tokenizer, end: TurnEnd, *, prompt_tokens: int, most: int
    ) -> None:
        self.text, self.tokens, self.prompt_tokens = "", 0, prompt_tokens
        self.stopped: Literal["", "end", "length"] = ""
        self._pieces = self._read(tokens, tokenizer, end, most)

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        piece = next(self._pieces)
        self.text += piece
        return piece

    def close(self) -> None:
        """Stops the answer where it is."""
        self._pieces.close()

    def _read(self, tokens: Iterator[int], tokenizer: Tokenizer, end: TurnEnd, most: int) -> Generator[str, None, None]:
        decoder, unended = tokenizer.stream_decoder(), Unended(end)
        specials = {*tokenizer.special_tokens.values()}
        for token in tokens:
            self.tokens += 1
            yield unended.push("" if token in specials else decoder.push(token))
            if unended.ended:
                self.stopped = "end"
                return
        self.stopped = "length" if self.tokens >= most else "end"
        yield unended.push(decoder.finish())
        yield unended.finish(stopped=self.stopped == "end")


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

    def __post_init__(self) -> None:
        within = nullcontext if self.adapted else partial(adapters_disabled, self.network)
        object.__setattr__(self, "_continuation", Continuation(self.network, within))
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
    ) -> Reply:
        """Returns the answer, which is made as its pieces are taken.

        Args:
            prompt: What the user says.
            system: The system message; the one of the training when left out.
            tools: Descriptions of the functions that may be called, as JSON schemas; those of the training when left
                out, none where the list is empty.
            plain: Whether the text is continued as it is, without the chat template; as in training when left out.
            history: What was said before by user and assistant.
            max_new_tokens: Tokens at most.
            sampler: What chooses tokens; the likeliest when left out.

        Raises:
            RequestError: The prompt is empty, too long or no text, or a chat template is needed that is not there, or
                not used.
        """
        try:
            prompt.encode("utf-8")
        except UnicodeEncodeError:
            raise RequestError("the prompt is not UTF-8") from None
        ids = self.prompt(prompt, system, plain, tools, history)
        most = self._room(len(ids), max_new_tokens)
        end = TurnEnd() if (self.asks_plainly if plain is None else plain) else self._end
        tokens = self._continuation.stream(ids, max_new_tokens=most, stop=self.stop, sampler=sampler)
        return Reply(tokens, self.tokenizer, end, prompt_tokens=len(ids), most=most)

    def _room(self, prompt: int, wanted: int) -> int:
        """Returns how many tokens an answer may have, within the model's context."""
        context = context_length(self.network.config.to_dict()) or prompt + wanted
        if prompt == 0:
            raise RequestError("the prompt is empty", hint="Give it a word.")
        if prompt >= context:
            raise RequestError(f"the prompt has {prompt} tokens; the model's context is {context}")
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
        said = self.system if system is None else system
        turns = [Message("system", said)] if said else []
        offered = tuple(self.tools if tools is None else tools)
        return encoder.prompt(Conversation((*turns, *history, Message("user", prompt)), "prompt", offered))

    def _encoder(self) -> Encoder:
        return Encoder(
            self.tokenizer,
            chat_template_of(self.tokenizer, options=self.chat),
            max_length=1 << 30,
            rows=self.network.get_input_embeddings().num_embeddings,
            report_dropped=True,
        )
