"""Answers of a run, an export, an adapter, a model's folder or a GGUF file."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from graftkit.arguments import (
    check_flags,
    check_is,
    check_mappings,
    check_number,
    check_path,
    check_several,
    check_text,
)
from graftkit.errors import RequestError, named
from graftkit.flow.answering.plugins_of_run import plugins_of_run
from graftkit.host.host import PluginHost
from graftkit.interfaces.offline import no_network_if
from graftkit.interfaces.samples import Message

if TYPE_CHECKING:
    from graftkit.flow.answering.reload import AdapterBase, ReloadedModel, Reply

__all__ = ["SEEDS", "Answer", "Asking", "Prompt", "Turn", "generate"]

Prompt = str | Sequence[Mapping[str, Any]]
"""A text, or a conversation: mappings with a role and a content, the last one of the user."""

SEEDS = -(1 << 63), (1 << 63) - 1
"""The least and the largest seed of random numbers."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model answered to a prompt.

    Attributes:
        prompt: The prompt; of a conversation what the user said last.
        answer: The answer.
        prompt_tokens: How many tokens the prompt has, as it was laid out.
        tokens: How many tokens were made.
        stopped: "end" where the model ended its answer, "length" where it had no room left.
        base: What the base model answered, where that was asked, too.
    """

    prompt: str
    answer: str
    prompt_tokens: int
    tokens: int
    stopped: Literal["", "end", "length"]
    base: Answer | None = None

    def to_json(self) -> dict[str, Any]:
        """Returns it as JSON; the base model's answer under `base`, where there is one."""
        facts = asdict(self)
        if self.base is None:
            return {key: value for key, value in facts.items() if key != "base"}
        return {**facts, "base": {key: facts["base"][key] for key in ("answer", "prompt_tokens", "tokens", "stopped")}}


def generate(
    source: str | os.PathLike[str],
    prompts: Prompt | Iterable[Prompt],
    *,
    on: AdapterBase | None = None,
    compare: bool = False,
    system: str | None = None,
    tools: Sequence[Mapping[str, Any]] | None = None,
    plain: bool | None = None,
    max_new_tokens: int = 256,
    seed: int = 0,
    temperature: float | None = None,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    repetition_penalty: float | None = None,
    batch_size: int = 1,
    host: PluginHost | None = None,
    offline: bool = False,
) -> list[Answer]:
    """Answers prompts; what was said before is no part of the next one.

    Without temperature, top_k, top_p and min_p the likeliest token is taken. With one of them, those left out are as
    the model's generation_config.json says.

    Args:
        source: A run's folder, an export, an adapter of peft's, a model's folder, a GGUF file, or a hub id.
        prompts: The prompts, or one: each a text, or a conversation such as `[{"role": "user", "content": "Hello"}]`,
            whose own system message is taken where it begins with one.
        on: What an adapter is loaded on.
        compare: Whether the base model answers, too.
        system: The system message; that of the training when left out.
        tools: Descriptions of functions, as chat templates take them; those of the training when left out.
        plain: Whether texts are continued as they are, without the chat template; as in training when left out.
        max_new_tokens: Tokens of an answer at most.
        seed: What random numbers are derived from, of each prompt anew.
        temperature: What scores are divided by; 0 takes the likeliest token.
        top_k: Draw from so many of the likeliest tokens; 0 for all.
        top_p: Draw from the likeliest tokens with this share together.
        min_p: Leave out tokens below this share of the likeliest one's.
        repetition_penalty: Above 1: say less of what was there.
        batch_size: How many prompts are answered side by side, which takes less time for each and more memory; with
            more than one the likeliest token is taken.
        host: The plugins; those that are installed, without those that the run's recipe leaves out, when left out.
        offline: Whether nothing is fetched: a hub id that is not on this machine is refused.

    Raises:
        RequestError: Nothing can be loaded from it, or it can't be asked so.
    """
    name = check_path(source, "source")
    turns = _turns(prompts)
    if plain and any(turn.talk for turn in turns):
        raise RequestError("a conversation is laid out by the chat template", where="plain", hint="Leave it out.")
    check_number(max_new_tokens, "max_new_tokens", 1)
    check_number(seed, "seed", *SEEDS)
    check_number(batch_size, "batch_size", 1)
    check_flags("plain", compare=compare, offline=offline, plain=plain)
    if host is not None:
        check_is(host, PluginHost, "host")
    if system is not None:
        check_text(system, "system")
    if tools is not None:
        check_mappings(tools, "tools")

    from graftkit.flow.answering.reload import AdapterBase, reload
    from graftkit.flow.answering.reload_base import reload_base

    if on is not None:
        check_is(on, AdapterBase, "on")
    sampling = {
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "min_p": min_p,
        "repetition_penalty": repetition_penalty,
    }
    asking = Asking(system, tools, plain, max_new_tokens, seed, sampling)
    asking.check(batch_size)
    host = host or plugins_of_run(name)
    with no_network_if(offline):
        model = reload(name, host, on)
        base = reload_base(name, model, host, on) if compare else None
    answers = []
    for first in range(0, len(turns), batch_size):
        some = turns[first : first + batch_size]
        answers += asking.of(model).answers(some, asking.of(base) if base else None)
    return answers


class Turn(NamedTuple):
    """A prompt as a model is asked.

    Attributes:
        text: What the user says.
        history: What was said before.
        system: The system message where the prompt has one of its own.
        talk: Whether it is a conversation, which takes a chat template.
        where: Which of the prompts it is, for errors.
    """

    text: str
    history: tuple[Message, ...] = ()
    system: str | None = None
    talk: bool = False
    where: str = "prompts"


def _turns(prompts: Prompt | Iterable[Prompt]) -> list[Turn]:
    """Returns prompts as a model is asked; a list of mappings is one conversation.

    Raises:
        RequestError: Something else was given.
    """
    if isinstance(prompts, str):
        return [Turn(prompts)]
    check_several(prompts, "prompts", "prompts", _PROMPTS, RequestError)
    found: list[Any] = list(prompts)
    if found and isinstance(found[0], Mapping):
        return [_conversation(found, "prompts")]
    where = [f"prompts[{number}]" for number in range(len(found))]
    return [
        Turn(one, where=at) if isinstance(one, str) else _conversation(one, at)
        for one, at in zip(found, where, strict=True)
    ]


_PROMPTS = 'Give texts, or conversations, each a list of messages such as {"role": "user", "content": "..."}.'


def _conversation(messages: Any, where: str) -> Turn:
    if not isinstance(messages, list | tuple) or not messages:
        raise RequestError("it is neither a text nor a list of messages", where=where, hint=_PROMPTS)
    for number, message in enumerate(messages):
        known = isinstance(message, Mapping) and message.keys() == {"role", "content"}
        if not known or not isinstance(message["content"], str) or message["role"] not in _ROLES:
            raise RequestError(
                f"a message has a role, which is one of {', '.join(_ROLES)}, and a content, which is a text",
                where=f"{where}[{number}]",
                hint="What else may be said of messages, such as calls, `toolkit serve` takes.",
            )
    said = [Message(message["role"], message["content"]) for message in messages]
    if said[-1].role != "user":
        raise RequestError(f"its last message is of the role {said[-1].role}", where=where, hint="Let the user ask.")
    begins = said[0].role == "system"
    return Turn(said[-1].content, tuple(said[begins:-1]), said[0].content if begins else None, talk=True, where=where)


_ROLES = ("system", "user", "assistant")


class Asking:
    """How models are asked: the same way for each of them.

    Args:
        system: The system message, or None.
        tools: Descriptions of functions, or None.
        plain: Whether the text is continued as it is; None for as in training.
        max_new_tokens: Tokens of an answer at most.
        seed: What random numbers are derived from.
        sampling: The options of sampling by name; None for those left out.
    """

    def __init__(
        self,
        system: str | None,
        tools: Sequence[Mapping[str, Any]] | None,
        plain: bool | None,
        max_new_tokens: int,
        seed: int,
        sampling: Mapping[str, float | None],
    ) -> None:
        self._options: dict[str, Any] = {
            "system": system,
            "tools": tools,
            "plain": plain,
            "max_new_tokens": max_new_tokens,
        }
        self._seed, self._sampling = seed, sampling

    def check(self, batch_size: int = 1) -> None:
        """Makes sure that models can be asked so, before one is loaded.

        Args:
            batch_size: How many prompts are answered side by side.

        Raises:
            RequestError: An option of sampling is out of its range, or one is given and several prompts are answered
                side by side.
        """
        from graftkit.model.sampling import Sampling

        found = Sampling.asked({}, seed=self._seed, **self._sampling)
        if batch_size > 1 and not (found.is_greedy and found.repetition_penalty == 1):
            raise RequestError(
                f"{batch_size} prompts are answered side by side by the likeliest tokens, without options of sampling",
                where="batch_size",
                hint="Leave it out, or those options.",
            )

    def of(self, model: ReloadedModel) -> Asked:
        """Returns a model that is asked so; random numbers go on between prompts.

        Raises:
            RequestError: An option of sampling is out of its range.
        """
        from graftkit.model.sampling import Sampler, Sampling

        return Asked(model, Sampler(Sampling.asked(model.generation, seed=self._seed, **self._sampling)), self._options)


class Asked:
    """A model that is asked in one way; see `Asking`."""

    def __init__(self, model: ReloadedModel, sampler: Any, options: Mapping[str, Any]) -> None:
        self._model, self._sampler, self._options = model, sampler, options

    def __call__(
        self,
        prompt: str,
        history: Sequence[Message] = (),
        *,
        system: str | None = None,
        talk: bool = False,
    ) -> Reply:
        """Returns the answer to a prompt, piece by piece.

        Args:
            prompt: What the user says.
            history: What was said before.
            system: Another system message than the one that all prompts have.
            talk: Whether the chat template is used even where training used none.
        """
        return self._model.stream(prompt, history=history, sampler=self._sampler, **self._asked(system, talk=talk))

    def answers(self, asked: Sequence[str | Turn], base: Asked | None = None) -> list[Answer]:
        """Returns the whole answers to some prompts, computed side by side, and what another model says to them."""
        turns = [Turn(one) if isinstance(one, str) else one for one in asked]
        if len(turns) == 1:
            with named(turns[0].where):
                return [self.answer(turns[0], base)]
        beside: Sequence[Answer | None] = base.answers(turns) if base else [None] * len(turns)
        found = []
        for turn, reply, other in zip(turns, self._together(turns), beside, strict=True):
            text = "".join(reply)
            found.append(Answer(turn.text, text, reply.prompt_tokens, reply.tokens, reply.stopped, other))
        return found

    def _together(self, turns: Sequence[Turn]) -> list[Reply]:
        laid_out: dict[bool | None, list[tuple[int, list[int]]]] = {}
        for number, turn in enumerate(turns):
            asked = self._asked(turn.system, talk=turn.talk)
            limit, plain = asked.pop("max_new_tokens"), asked["plain"]
            with named(turn.where):
                ids = self._model.prompt(turn.text, history=turn.history, **asked)
                self._model.check_room(ids)
            laid_out.setdefault(plain, []).append((number, ids))
        replies: dict[int, Reply] = {}
        for plain, prompts in laid_out.items():
            found = self._model.replies([ids for _, ids in prompts], plain=plain, max_new_tokens=limit)
            replies |= {number: reply for (number, _), reply in zip(prompts, found, strict=True)}
        return [replies[number] for number in range(len(turns))]

    def _asked(self, system: str | None, *, talk: bool) -> dict[str, Any]:
        own = {} if system is None else {"system": system}
        return {**self._options, **own, **({"plain": False} if talk else {})}

    def answer(self, asked: str | Turn, base: Asked | None = None) -> Answer:
        """Returns the whole answer to a prompt, and what another model says to it."""
        turn = Turn(asked) if isinstance(asked, str) else asked
        reply = self(turn.text, turn.history, system=turn.system, talk=turn.talk)
        text = "".join(reply)
        beside = base.answer(turn) if base else None
        return Answer(turn.text, text, reply.prompt_tokens, reply.tokens, reply.stopped, beside)
