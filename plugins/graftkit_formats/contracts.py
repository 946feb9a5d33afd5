"""The contract of formats, with records of each."""

from __future__ import annotations

from typing import Any, ClassVar

from graftkit.testing import FormatContract

__all__ = [
    "AlpacaContract",
    "LabelContract",
    "LabelsContract",
    "MessageTreeContract",
    "MessagesContract",
    "PlainTextContract",
    "PreferenceContract",
    "PromptCompletionContract",
    "PromptsContract",
    "QuestionAnswerContract",
    "RetrievalContract",
    "ScoreContract",
    "ShareGptContract",
    "TagsContract",
    "TokenIdsContract",
    "TranslationContract",
]

_MESSAGES = [{"role": "user", "content": "one"}, {"role": "assistant", "content": "two"}]


class PromptsContract(FormatContract):
    """Prompts without an answer."""

    records = ({"prompt": "one"}, {"prompt": _MESSAGES[:1], "system": "short"})


class MessagesContract(FormatContract):
    """Lists of messages."""

    records = (
        {"messages": _MESSAGES},
        {"conversation": _MESSAGES, "system": "short"},
        {"conversations": ["one", "two"]},
        {"conversation": [{"input": "one", "output": "two"}]},
    )


class MessageTreeContract(FormatContract):
    """Trees of messages."""

    records = (
        {"prompt": {"role": "prompter", "text": "one", "replies": [{"role": "assistant", "text": "two"}]}},
        {"prompt": {"role": "user", "content": "one", "replies": [{"role": "assistant", "content": "two"}]}},
    )


class ShareGptContract(FormatContract):
    """Lists of turns."""

    records = (
        {"conversations": [{"from": "human", "value": "one"}, {"from": "gpt", "value": "two"}]},
        {"conversations": [{"from": "human", "value": "one"}, {"from": "gpt", "value": "two"}], "system": "short"},
    )


class AlpacaContract(FormatContract):
    """Instructions."""

    records = (
        {"instruction": "add", "input": "one", "output": "two"},
        {"instruction": "add", "response": "two", "system": "short"},
        {"instruction": "add", "context": "", "output": "two", "history": [["a", "b"]]},
    )


class PromptCompletionContract(FormatContract):
    """Prompts and completions."""

    records = ({"prompt": "1 + 1 =", "completion": " 2"}, {"prompt": _MESSAGES[:1], "completion": _MESSAGES[1:]})


class QuestionAnswerContract(FormatContract):
    """Questions and answers."""

    records = (
        {"question": "one", "answer": "two"},
        {"input": "one", "output": "two"},
        {"system_prompt": "short", "question": "one", "response": "two"},
        {"question": "one", "context": "two", "answers": {"text": ["two"], "answer_start": [0]}},
    )


class PlainTextContract(FormatContract):
    """Texts."""

    records = ({"text": "one"}, {"content": "two\n"})


class PreferenceContract(FormatContract):
    """Pairs of answers, of which the chosen one is learnt."""

    options: ClassVar[dict[str, Any]] = {"learn": "chosen"}
    records = (
        {"prompt": "one", "chosen": "two", "rejected": "two"},
        {"chosen": _MESSAGES, "rejected": _MESSAGES},
        {"system": "short", "instruction": "one", "input": "two", "chosen": "two", "rejected": "two"},
        {"input": "one", "chosen": "two", "rejected": "two"},
    )


class TokenIdsContract(FormatContract):
    """Token ids."""

    records = (
        {"input_ids": [1, 2, 3], "labels": [-100, 2, 3], "attention_mask": [1, 1, 1]},
        {"input_ids": [1, 2], "loss_mask": [0, 1]},
        {"input_ids": [1, 2]},
    )


class LabelContract(FormatContract):
    """Texts with labels."""

    options: ClassVar[dict[str, Any]] = {"names": ["bad", "good"]}
    records = ({"text": "one", "label": "good"}, {"text": "one", "label": 1}, {"text": "one", "label": 0.0})


class LabelsContract(FormatContract):
    """Texts with any number of labels."""

    options: ClassVar[dict[str, Any]] = {"names": ["bad", "good"]}
    records = (
        {"text": "one", "labels": ["good", "long"]},
        {"text": "one", "labels": [0, 1]},
        {"text": "one", "labels": []},
    )


class TagsContract(FormatContract):
    """Words with tags."""

    options: ClassVar[dict[str, Any]] = {"names": ["O", "B-PER"]}
    records = (
        {"tokens": ["Ada", "lives"], "tags": ["B-PER", "O"]},
        {"words": ["Ada", "lives"], "ner_tags": [1, 0]},
        {"text": "Ada lives.", "entities": [{"start": 0, "end": 3, "label": "PER"}]},
        {"text": "Ada lives.", "label": [[0, 3, "PER"]]},
    )


class ScoreContract(FormatContract):
    """Texts with numbers."""

    records = ({"text": "one", "score": 0.5}, {"text": "one", "score": 3})


class TranslationContract(FormatContract):
    """Texts in several languages."""

    options: ClassVar[dict[str, Any]] = {"source": "en", "target": "fr"}
    records = (
        {"translation": {"en": "one", "fr": "un"}},
        {"translation": {"de": "eins", "en": "one", "fr": "un"}, "system": "short"},
    )


class RetrievalContract(FormatContract):
    """Texts that are to be found by another."""

    records = (
        {"query": "one", "positive": "two"},
        {"anchor": "one", "positive": "two", "negative": "three"},
        {"query": "one", "pos": ["two", "three"], "neg": ["four"]},
        {"query": "one", "positive_passages": [{"title": "two", "text": "three"}], "negative_passages": []},
        {"query": "one", "positive": "two", "negative_1": "three", "negative_2": "four"},
    )
