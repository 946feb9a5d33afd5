"""Pairs of a chosen and a rejected answer, and answers that are labelled as wanted or not."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from graftkit import Column, Conversation, LabelledAnswer, Message, PreferencePair
from graftkit.errors import DataError, NothingToLearn
from graftkit.interfaces.bounded_json import parse_json
from graftkit.interfaces.samples import ANSWERED

from graftkit_formats.answered import conversation
from graftkit_formats.config import PreferenceConfig
from graftkit_formats.transcripts import is_transcript, messages_of_transcript
from graftkit_formats.turns import SYSTEMS, TOOLS, TurnKeys, messages_of, string_of, tools_of, turns_of, with_system

__all__ = ["Preference"]

_PROMPTS = ("prompt", "question", "instruction", "query")
_CONVERSATIONS = ("conversations", "conversation")
_WANTED = ("prompt", "completion", "label")
_LABELLED = 'An answer that is wanted or not has "prompt", "completion", and "label", which is true or false.'
_MOST_VALUES = 2_000_000
"""Values of a text that is looked at as JSON: one with more, as with deeper ones than are read, is an answer."""
_KEYS = TurnKeys("preference")
_SHAREGPT = TurnKeys("preference", "from", ("value",))


class Preference:
    r"""Reads `{"prompt": ..., "chosen": ..., "rejected": ...}`: texts or messages, with or without a prompt.

    Texts may be transcripts, "\n\nHuman: ...\n\nAssistant: ...", which are conversations.

    The prompt may have another name, an "input" after it, a system prompt before it, and "tools". `{"prompt": ...,
    "completion": ..., "label": true}` is an answer that is wanted or not.

    Args:
        config: Its fields.
    """

    def __init__(self, config: PreferenceConfig) -> None:
        self._config, self._learn = config, config.learn

    def columns(self, found: Mapping[str, Column]) -> Collection[str] | None:
        """Fits where a chosen and a rejected answer are there, or a completion that is wanted or not."""
        if {*_WANTED} <= found.keys() and found["label"].types == {"boolean"}:
            return [*_WANTED, *_beside("prompt", found)]
        if not {"chosen", "rejected"} <= found.keys():
            return None
        prompt = _prompt_in(found)
        return ["chosen", "rejected", *([prompt] if prompt else []), *_beside(prompt, found)]

    def reading(self, record: Mapping[str, Any]) -> str:
        """Says which texts are transcripts."""
        prompt = _prompt_in(record)
        texts = {name: record.get(name) for name in (*([prompt] if prompt else []), "chosen", "rejected", "completion")}
        found = [name for name, text in texts.items() if isinstance(text, str) and is_transcript(text)]
        return f"{', '.join(found)}: transcripts, cut at Human: and Assistant: after empty lines" if found else ""

    def sample(self, record: Mapping[str, Any], where: str) -> Conversation | PreferencePair | LabelledAnswer:
        """Returns both answers, each after the prompt; or the chosen one, where the config says so."""
        if {*_WANTED} <= record.keys():
            if not isinstance(record["label"], bool):
                raise DataError('"label" is neither true nor false', where=where, hint=_LABELLED)
            return LabelledAnswer(self._answered(record, "completion", where), record["label"], where)
        if "completion" in record and not {"chosen", "rejected"} & record.keys():
            missing = next(name for name in _WANTED if name not in record)
            raise DataError(f'"{missing}" is missing, or null', where=where, hint=_LABELLED)
        chosen = self._answered(record, "chosen", where)
        if self._learn == "chosen":
            return chosen
        rejected = self._answered(record, "rejected", where)
        if chosen.messages[:-1] != rejected.messages[:-1]:
            raise NothingToLearn(
                "what stands before the chosen answer is not what stands before the rejected one: a pair is of two "
                "answers to the same prompt",
                where=where,
            )
        if chosen.key() == rejected.key():
            raise NothingToLearn("the chosen answer is the rejected one: there is nothing to learn", where=where)
        return PreferencePair(chosen, rejected, where)

    def _answered(self, record: Mapping[str, Any], key: str, where: str) -> Conversation:
        """Returns the prompt and an answer, which alone is learnt, whatever weights the messages before it have."""
        answer = self._messages(record, key, "assistant", where)
        prompt = _prompt_in(record)
        if prompt and isinstance(record[prompt], str) and is_transcript(record[prompt]) and len(answer) == 1:
            answer = (replace(answer[0], content=answer[0].content.strip()),)  # "Assistant:" is followed by a space
        *before, last = with_system(record, _joined(self._prompt(record, where), answer, key, where), where)
        if not before:
            raise DataError(
                f'"{key}" is a text, and there is no prompt',
                where=where,
                hint="Put what stands before both answers into a column of its own, prompt. "
                f"To learn the whole text: {{path: FILE, format: text, columns: {{text: {key}}}}}.",
            )
        if last.role in ANSWERED:
            raise NothingToLearn(f'"{key}" ends with a message of the {last.role}, and no answer', where=where)
        if self._learn is None and last.weight not in (None, 0.0, 1.0):
            raise DataError(
                f'the answer in "{key}" has the weight {last.weight:g}: answers that are compared count in full',
                where=where,
                hint="Leave it out. How often an epoch sees the records of a file is the weight of its entry.",
            )
        silent = [replace(message, weight=0.0) for message in before]
        return conversation((*silent, last), where, tools_of(record, where))

    def _prompt(self, record: Mapping[str, Any], where: str) -> tuple[Message, ...]:
        """Returns the messages before the answer; nothing where the answer is a conversation."""
        key = _prompt_in(record)
        if key is None:
            return ()
        messages = self._messages(record, key, "user", where)
        if key == "input" or record.get("input") in (None, ""):
            return messages
        if not isinstance(record[key], str) or _holds_turns(record[key]):
            raise DataError(
                f'"input" stands beside "{key}", which is messages: to which of them it belongs is not known',
                where=where,
                hint="Put it into its message, or give it a name that is not read: columns: {unread: input}.",
            )
        asked = "\n\n".join([messages[0].content, string_of(record, "input", where)])
        return (replace(messages[0], content=asked),)

    def _messages(self, record: Mapping[str, Any], key: str, role: str, where: str) -> tuple[Message, ...]:
        value = record.get(key)
        if isinstance(value, str) and is_transcript(value):
            return _begun(messages_of_transcript(string_of(record, key, where)), role)
        if isinstance(value, str) and not _holds_turns(value):
            return (Message(role, string_of(record, key, where)),)
        turns = [value] if isinstance(value, dict) else turns_of(record, key, where)
        sharegpt = isinstance(turns[0], dict) and "from" in turns[0]
        return messages_of(turns, f"{where}: {key}", self._config, _SHAREGPT if sharegpt else _KEYS)


def _prompt_in(names: Collection[str]) -> str | None:
    """Returns the column that stands before both answers, if there is one."""
    return next((name for name in (*_PROMPTS, *_CONVERSATIONS, "input") if name in names), None)


def _begun(messages: tuple[Message, ...], role: str) -> tuple[Message, ...]:
    """Returns the messages of a transcript; of one before answers without the mark of an answer that follows it."""
    return messages[:-1] if role == "user" and messages[-1] == Message("assistant", "") else messages


def _beside(prompt: str | None, found: Mapping[str, Column]) -> list[str]:
    """Returns the columns that go with the rest: an input after a prompt's text, a system prompt, and tools."""
    names = (*(("input",) if prompt and prompt != "input" and found[prompt].is_text else ()), *SYSTEMS)
    texts = [name for name in names if name in found and found[name].is_text]
    return [*texts, *(name for name in TOOLS if name in found)]


def _joined(prompt: tuple[Message, ...], answer: tuple[Message, ...], key: str, where: str) -> tuple[Message, ...]:
    """Returns the conversation: the answer after the prompt, or the answer alone where that is the whole of it.

    Raises:
        DataError: The answer has a user's turn of its own, right after that of the prompt, and not the prompt's.
    """
    if answer[: len(prompt)] == prompt:
        return answer
    if prompt[-1].role != "user" or not any(message.role == "user" for message in answer):
        return (*prompt, *answer)
    system = prompt[:1] if prompt[0].role == "system" and answer[0].role != "system" else ()
    said = {(message.role, message.content.strip()) for message in (*system, *answer)}
    if any((message.role, message.content.strip()) not in said for message in prompt):
        raise DataError(
            f'"{key}" is a conversation with a turn of the user, and the prompt is none of its messages',
            where=where,
            hint="Give the answer alone beside the prompt, or a conversation that holds the prompt.",
        )
    return (*system, *answer)


def _holds_turns(text: str) -> bool:
    """Tells whether a text is the JSON of messages, as tables hold them; any other list, as of calls, is an answer."""
    if not text.lstrip().startswith("[{"):
        return False
    try:
        turns = parse_json(text, _MOST_VALUES)
    except ValueError:
        return False
    return isinstance(turns, list) and all(isinstance(turn, dict) and turn.keys() & {"role", "from"} for turn in turns)
