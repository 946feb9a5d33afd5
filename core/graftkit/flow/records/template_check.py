"""Compares what stands before an answer in training with the prompt in use, for conversations of every shape."""

from __future__ import annotations

import time
from collections.abc import Hashable, Iterator, Sequence
from itertools import islice

import numpy as np

from graftkit.corpus.encode import Encoder
from graftkit.corpus.prompt_in_use import prompt_in_use
from graftkit.corpus.split import Split
from graftkit.corpus.turns import ByAnswer
from graftkit.interfaces.samples import Conversation, Message, Prompt, Sample
from graftkit.store.token_store import Example

__all__ = ["check_template"]

_LOOKED_AT = 100
"""Conversations of which one of each shape is laid out."""

_EACH = "data.turns: each lays every answer out as in use"

_SECONDS = 5.0
"""After which no other shape is laid out."""

_BEFORE, _SHOWN = 3, 20
"""Tokens shown of a difference: before it, and in all."""


def check_template(encoder: Encoder, samples: Split) -> list[str]:
    """Lays out one conversation of each shape among the first ones, so that what is wrong with the template shows now.

    A shape is which roles take part, whether there are several answers, tools, tool calls and reasoning.

    Args:
        encoder: Lays them out.
        samples: The records; holdout ones are looked at where there is no conversation to train on.

    Returns:
        A notice for each way in which what stands before an answer in training is not what stands there in use.

    Raises:
        DataError: A conversation can't be laid out.
    """
    ends = time.monotonic() + _SECONDS
    found: dict[Hashable, str] = {}
    for number, sample in enumerate(_of_each_shape(samples)):
        if number and time.monotonic() > ends:
            break
        for prompts, earlier in _prompts(encoder, sample):
            place = _first_difference(*prompts)
            if place is None:
                continue
            shown = [repr(encoder.tokenizer.decode(ids[max(0, place - _BEFORE) :][:_SHOWN])) for ids in prompts]
            text = f"another text before an answer in training than in use: {shown[0]} against {shown[1]}"
            text += f"; {_EACH}" if earlier else ""
            difference = tuple(tuple(ids[place:][:_SHOWN]) for ids in prompts)
            found.setdefault(difference, f"the chat template has {text}; seen at {sample.where}")
    return list(found.values())


def _of_each_shape(samples: Split) -> Iterator[Conversation]:
    seen: set[Hashable] = set()
    chats = samples.train if samples.train.has_chat else samples.holdout
    for sample in islice(chats.chats(), _LOOKED_AT):
        shape = _shape(sample)
        if shape not in seen:
            seen.add(shape)
            yield sample


def _shape(sample: Conversation) -> Hashable:
    """Returns what tells conversations apart that a template may lay out in different ways."""
    answers = [message for message in sample.messages if message.loss_weight]
    return (
        sample.messages[0].role,
        frozenset(message.role for message in sample.messages),
        len(answers) > 1,
        bool(sample.tools),
        frozenset((bool(message.tool_calls), bool(message.reasoning)) for message in answers[:-1]),
        tuple((bool(message.tool_calls), bool(message.reasoning)) for message in answers[-1:]),
    )


def _prompts(encoder: Encoder, sample: Conversation) -> Iterator[tuple[tuple[list[int], list[int]], bool]]:
    """Yields the tokens before an answer in training and those in use, and whether others follow it in its example.

    They are those of the last answer, and of one of each kind: after whom it is, and whether it has calls and
    reasoning.
    """
    kinds: dict[Hashable, tuple[Sample, Example]] = {}
    for part in encoder.turns(sample):
        kind = _kind(part.messages[-2:]) if isinstance(part, Conversation) else None
        for example in encoder.encode(part).examples:
            kinds[kind] = part, example
    for answer, example in kinds.values():
        used = prompt_in_use(encoder, answer)
        if used is not None:
            yield (example.ids[: example.prompt_length].tolist(), used), False
        if answer is sample and not isinstance(sample, Prompt):  # whose earlier answers nobody learns
            for prompts in _earlier_prompts(encoder, sample, example):
                yield prompts, True


def _earlier_prompts(
    encoder: Encoder, conversation: Conversation, example: Example
) -> Iterator[tuple[list[int], list[int]]]:
    """Yields the tokens before an answer in training, and those in use, of the first one of each kind but the last.

    Args:
        encoder: Lays out what is asked in use.
        conversation: The conversation.
        example: All of its answers, in one example.
    """
    messages = conversation.messages
    places = [place for place, message in enumerate(messages) if message.loss_weight and message.says_something]
    firsts: dict[Hashable, int] = {}
    for number, place in enumerate(places[:-1]):
        firsts.setdefault(_kind(messages[max(0, place - 1) : place + 1]), number)
    for number in firsts.values():
        used = prompt_in_use(encoder, ByAnswer(conversation)[number])
        if used is None or len(used) >= len(example.ids):
            continue
        trained = example.ids.tolist()
        differs = _first_difference(trained[: len(used)], used)
        begin = len(used) if differs is None else differs
        learnt = np.flatnonzero(example.loss_mask[begin:])
        yield trained[: begin + int(learnt[0]) if len(learnt) else None], used


def _kind(messages: Sequence[Message]) -> Hashable:
    """Returns what tells answers apart that a template may write in different ways; the last message is the answer."""
    return messages[0].role, bool(messages[-1].tool_calls), bool(messages[-1].reasoning)


def _first_difference(trained: Sequence[int], used: Sequence[int]) -> int | None:
    """Returns the first place at which two sequences differ; None where they are equal."""
    if trained == used:
        return None
    pairs = zip(trained, used, strict=False)
    return next((place for place, pair in enumerate(pairs) if len({*pair}) > 1), min(len(trained), len(used)))
