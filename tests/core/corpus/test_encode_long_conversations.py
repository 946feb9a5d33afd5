"""The time to encode a conversation grows with its length, not with the square of its turns."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from graftkit.corpus.encode import Encoder, Overflow
from graftkit.corpus.encoding_rules import EncodingRules
from graftkit.corpus.layout import lay_out
from graftkit.corpus.prompt_in_use import prompt_in_use
from graftkit.corpus.template import ChatTemplate
from graftkit.corpus.tokenizer_template import chat_template_of
from graftkit.errors import DataError
from graftkit.interfaces.samples import Completion, Conversation, Message
from graftkit.testing import tiny_tokenizer_files
from graftkit_tokenizers.tokenizer_json.tokenizer import HuggingFaceTokenizer
from tokenizer_kinds import kind_of_tokenizer, tokenizer_file

CHATML = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
PLAIN = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"


KNOWN = [
    "byte-level, gpt2",
    "byte-level, llama3",
    "byte-level, qwen2 with NFC",
    "byte-level, a space before",
    "byte-level, whole text",
    "pieces, metaspace",
    "pieces, first metaspace",
    "pieces, whole text",
    "pieces, spaces that are no more",
    "unigram",
    "wordpiece",
]


class _Counting(HuggingFaceTokenizer):
    """Counts the characters that it is asked to encode."""

    characters = 0

    def encode(self, text: str, specials: Any = "none") -> list[int]:
        self.characters += len(text)
        return super().encode(text, specials)

    def encode_batch(self, texts: Any, specials: Any = "none") -> list[list[int]]:
        self.characters += sum(map(len, texts))
        return super().encode_batch(texts, specials)

    def encode_offsets(self, text: str, specials: Any = "none") -> Any:
        self.characters += len(text)
        return super().encode_offsets(text, specials)


def conversation(turns: int, characters: int = 400) -> Conversation:
    contents = (f"{n} " + "word " * (characters // 5) for n in range(turns))
    return Conversation(tuple(Message(("user", "assistant")[n % 2], text) for n, text in enumerate(contents)), "x")


def tokenizer() -> _Counting:
    return _Counting(tiny_tokenizer_files())


def without_certain_cuts(encoder: Encoder) -> Encoder:
    """Has an encoder take the way for tokenizers that do not tell where they cut."""
    encoder._runs_together._cuts = None
    return encoder


@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize("turns", [20, 200, 1000])
def test_it_encodes_each_character_a_few_times(turns: int, told: bool) -> None:
    counting = tokenizer()
    encoder = Encoder(counting, chat_template_of(counting), 1 << 30)
    if not told:
        without_certain_cuts(encoder)
    (example,) = encoder.encode(conversation(turns)).examples
    assert counting.characters < 4 * len(counting.decode(example.ids.tolist()))


@pytest.mark.parametrize("turns", [20, 200, 1000])
def test_it_does_without_special_tokens_between_turns_too(turns: int) -> None:
    counting = tokenizer().with_chat_template(PLAIN)
    encoder = Encoder(counting, chat_template_of(counting), 1 << 30)
    (example,) = encoder.encode(conversation(turns)).examples
    assert counting.characters < 4 * len(counting.decode(example.ids.tolist()))


@pytest.mark.parametrize(
    "template", [PLAIN, "{% for m in messages %}### {{ m.role }}:\n{{ m.content }}\n\n{% endfor %}"]
)
@pytest.mark.parametrize("kind", KNOWN)
def test_other_kinds_of_tokenizers_do_too(kind: str, template: str) -> None:
    counting = _Counting({"tokenizer.json": tokenizer_file(kind)}).with_chat_template(template)
    spent = []
    for turns in (50, 400):
        counting.characters = 0
        asked = conversation(turns, 200)
        assert Encoder(counting, chat_template_of(counting), 1 << 30).encode(asked).examples
        spent.append(counting.characters / sum(len(message.content) for message in asked.messages))
    assert max(spent) < 5, spent


@pytest.mark.parametrize("turns", [2, 20])
def test_it_gives_what_whole_prefixes_give(turns: int) -> None:
    counting = tokenizer()
    encoder, exact = (without_certain_cuts(Encoder(counting, chat_template_of(counting), 1 << 30)) for _ in range(2))
    exact._exact._cuts_hold = False
    ours, theirs = (one.encode(conversation(turns)).examples[0] for one in (encoder, exact))
    assert ours.ids.tolist() == theirs.ids.tolist()
    assert ours.loss_mask.tolist() == theirs.loss_mask.tolist()
    assert encoder._exact._cuts_hold


def test_thousands_of_turns_without_special_tokens_need_no_deep_stack() -> None:
    counting = tokenizer().with_chat_template(PLAIN)
    encoder = Encoder(counting, chat_template_of(counting), 1 << 30)
    assert encoder.encode(conversation(2400, 10)).examples


OVERFLOWS: tuple[Overflow, ...] = ("truncate", "drop_turns", "drop")


@pytest.mark.parametrize("template", [PLAIN, CHATML])
@pytest.mark.parametrize("name", KNOWN)
def test_the_beginning_of_what_does_not_fit_stands_for_all_of_it(
    name: str, template: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = kind_of_tokenizer(name, template)
    words = [f"{number} some words, " for number in range(200)]
    long = "".join(words)
    texts = ("Hi there", "Hello", "On we go", long, "And on", long)
    records = [
        Conversation(tuple(Message(("user", "assistant")[n % 2], text) for n, text in enumerate(texts)), "x:1"),
        Conversation(tuple(Message(("user", "assistant")[n % 2], word) for n, word in enumerate(words)), "x:5"),
        Completion("Count", long, "x:2"),
        Completion("Blanks", " " * 4000, "x:3"),
        Completion("A word", "b" * 4000, "x:4"),
    ]
    for overflow in OVERFLOWS:
        encoder = Encoder(known, chat_template_of(known), 64, rules=EncodingRules(overflow=overflow))
        whole = encoder.encode_many(records)
        with monkeypatch.context() as patch:
            patch.setattr("graftkit.corpus.kept_runs._LONG", 300)
            found = encoder.encode_many(records)
        assert whole[0].truncated and whole[1].truncated
        for ours, theirs in zip(found, whole, strict=True):
            assert (ours.truncated, ours.stops) == (theirs.truncated, theirs.stops)
            assert len(ours.examples) == len(theirs.examples)
            for left, right in zip(ours.examples, theirs.examples, strict=True):
                assert np.array_equal(left.ids, right.ids) and np.array_equal(left.loss_weight, right.loss_weight)


def test_of_an_answer_of_millions_of_characters_only_the_beginning_is_encoded() -> None:
    counting = tokenizer()
    encoder = Encoder(counting, None, 64, rules=EncodingRules(overflow="error"))
    with pytest.raises(DataError, match="it has over .* tokens, more than"):
        encoder.encode(Completion("Count", "word " * 600_000, "x"))
    assert counting.characters < 300_000


def test_of_a_conversation_of_thousands_of_turns_only_the_beginning_is_encoded() -> None:
    counting = tokenizer()
    encoder = without_certain_cuts(Encoder(counting, chat_template_of(counting), 64))
    assert encoder.encode(conversation(2000)).truncated
    assert counting.characters < 300_000


def test_what_is_cut_is_laid_out_once(monkeypatch: pytest.MonkeyPatch) -> None:
    counting = tokenizer()
    encoder = Encoder(counting, chat_template_of(counting), 200)
    laid_out: list[int] = []

    def counted(template: ChatTemplate, asked: Conversation, **options: Any) -> Any:
        laid_out.append(len(asked.messages))
        return lay_out(template, asked, **options)

    monkeypatch.setattr("graftkit.corpus.record_runs.lay_out", counted)
    found = [encoder.encode(conversation(2000, 20)).examples for _ in range(2)]
    assert np.array_equal(found[0][0].ids, found[1][0].ids)
    assert prompt_in_use(encoder, conversation(2000, 20))
    assert laid_out.count(2000) == 1
    for value in (1, True, 1.0):  # equal, and written each in its way
        encoder.encode(replace(conversation(2000, 20), tools=({"b": value},)))
    assert laid_out.count(2000) == 4
