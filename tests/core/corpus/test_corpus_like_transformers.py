"""A conversation becomes the ids that `transformers` gives it, whatever the tokenizer does at its seams."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from graftkit.corpus.encode import Encoder
from graftkit.corpus.encoding_rules import EncodingRules
from graftkit.corpus.prompt_in_use import prompt_in_use
from graftkit.corpus.sample_digest import digest_sample
from graftkit.corpus.text_targets import TextTargets
from graftkit.corpus.tokenizer_template import chat_template_of
from graftkit.errors import DataError
from graftkit.interfaces.chat_options import ChatOptions
from graftkit.interfaces.samples import Conversation, Message, TaggedText, Text, tagged_words
from graftkit.store.token_store import TARGET
from graftkit.testing import tiny_tokenizer_files
from graftkit_tokenizers.huggingface import HuggingFaceBackend
from tokenizer_kinds import kind_of_tokenizer, tokenizer_file
from tokenizers import Tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerFast

Change = Callable[[dict[str, Any]], None]


def as_it_is(spec: dict[str, Any]) -> None:
    pass


def specials_that_swallow_space(spec: dict[str, Any]) -> None:
    for token in spec["added_tokens"]:
        token["rstrip"] = True


def a_space_before_the_first_word(spec: dict[str, Any]) -> None:
    """SentencePiece's way: ▁ for a space, and one at the very beginning only."""
    characters = [chr(code) for code in range(32, 127)] + ["▁", "\n", "▁s", "▁a", "is"]
    spec["model"]["vocab"] = {character: id for id, character in enumerate(characters)}
    spec["model"]["merges"] = [["▁", "s"], ["▁", "a"], ["i", "s"]]
    spec["pre_tokenizer"] = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False}
    spec["decoder"] = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False}
    for place, token in enumerate(spec["added_tokens"]):
        token["id"] = len(characters) + place


CONVERSATIONS = {
    "plain": [("user", "say it"), ("assistant", "it is said")],
    "turns": [("system", "be kind"), ("user", "a"), ("assistant", "b"), ("user", "\n\nc "), ("assistant", " d\n")],
    "space": [("user", "  x  "), ("assistant", "\n\n  y")],
    "empty": [("user", ""), ("assistant", "z")],
}


@pytest.mark.parametrize("change", [as_it_is, specials_that_swallow_space, a_space_before_the_first_word])
@pytest.mark.parametrize("name", CONVERSATIONS)
def test_training_ids_are_those_of_apply_chat_template(tmp_path: Path, change: Change, name: str) -> None:
    files = tiny_tokenizer_files()
    spec = json.loads(files["tokenizer.json"])
    change(spec)
    for file, data in {**files, "tokenizer.json": json.dumps(spec).encode()}.items():
        (tmp_path / file).write_bytes(data)
    ours = HuggingFaceBackend().load(tmp_path)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    record = Conversation(tuple(Message(role, content) for role, content in CONVERSATIONS[name]), "record")
    turns = [{"role": message.role, "content": message.content} for message in record.messages]
    expected = theirs.apply_chat_template(turns, tokenize=True, return_dict=False)
    found = Encoder(ours, chat_template_of(ours), 1000).encode(record).examples[0].ids.tolist()
    assert found == expected


def test_words_that_spell_a_special_token_change_nothing_else(tmp_path: Path) -> None:
    for file, data in tiny_tokenizer_files().items():
        (tmp_path / file).write_bytes(data)
    tokenizer = HuggingFaceBackend().load(tmp_path)
    encoder = Encoder(tokenizer, chat_template_of(tokenizer), 1000)
    records = [
        Conversation((Message("user", text), Message("assistant", "ok")), "record")
        for text in ("<|im_end|>", "harmless!!")
    ]
    ids = [encoder.encode(record).examples[0].ids.tolist() for record in records]
    specials = set(tokenizer.special_tokens.values())
    assert [[id for id in found if id in specials] for found in ids] == [[257, 258, 257, 258]] * 2
    assert len(ids[0]) == len(ids[1]), "ten bytes each"


@pytest.mark.parametrize("scheme", ["first", "always"])
@pytest.mark.parametrize("answer", ["is", "sa", "s a", " s", "\nsa"])
def test_an_answer_that_goes_on_after_a_space_gets_none_of_its_own(tmp_path: Path, scheme: str, answer: str) -> None:
    """As in Llama 2's template, whose prompt ends with a space: in use the model goes on after that space's token."""
    files = tiny_tokenizer_files()
    spec = json.loads(files["tokenizer.json"])
    a_space_before_the_first_word(spec)
    for step in (spec["pre_tokenizer"], spec["decoder"]):
        step["prepend_scheme"] = scheme
    for file, data in {**files, "tokenizer.json": json.dumps(spec).encode()}.items():
        (tmp_path / file).write_bytes(data)
    turns = "{% for m in messages %}{{ m.role[0] }}: {{ m.content }}{% endfor %}"
    template = turns + "{% if add_generation_prompt %}a: {% endif %}"
    tokenizer = HuggingFaceBackend().load(tmp_path).with_chat_template(template)
    encoder = Encoder(tokenizer, chat_template_of(tokenizer), 1000)
    asked = Message("user", "as")
    [example] = encoder.encode(Conversation((asked, Message("assistant", answer)), "record")).examples
    prompt = encoder.prompt(Conversation((asked,), "record"))
    assert example.ids[: len(prompt)].tolist() == prompt and example.prompt_length == len(prompt)
    assert tokenizer.decode(example.ids.tolist()) == f"u: asa: {answer}"


OF_EACH_TRAIT = {
    "trims the user": "{% if m.role == 'user' %}{{ m.content | trim }}{% else %}{{ m.content }}{% endif %}",
    "trims everyone": "{{ m.content | trim }}",
    "trims on the left": "{{ m.content.lstrip() }}",
    "a space before the answer": "{% if m.role == 'assistant' %}{{ ' ' }}{% endif %}{{ m.content }}",
    "the answer on a line": "{{ '\n' + m.content | trim + '\n' }}",
}


@pytest.mark.parametrize("trait", OF_EACH_TRAIT)
@pytest.mark.parametrize("name", CONVERSATIONS)
def test_white_space_is_laid_out_as_the_template_does(tmp_path: Path, trait: str, name: str) -> None:
    files = tiny_tokenizer_files()
    for file, data in files.items():
        (tmp_path / file).write_bytes(data)
    body = "<|im_start|>{{ m.role }}\n" + OF_EACH_TRAIT[trait] + "<|im_end|>\n"
    template = "{% for m in messages %}" + body + "{% endfor %}"
    prompt = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    (tmp_path / "chat_template.jinja").write_text(template + prompt)
    ours = HuggingFaceBackend().load(tmp_path)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    record = Conversation(tuple(Message(role, content) for role, content in CONVERSATIONS[name]), "record")
    turns = [{"role": message.role, "content": message.content} for message in record.messages]
    encoder = Encoder(ours, chat_template_of(ours), 1000)
    [example] = encoder.encode(record).examples
    assert example.ids.tolist() == theirs.apply_chat_template(turns, return_dict=False)
    asked = theirs.apply_chat_template(turns[:-1], return_dict=False, add_generation_prompt=True)
    assert example.ids[: example.prompt_length].tolist() == asked == prompt_in_use(encoder, record)


def test_records_that_differ_in_reasoning_alone_are_different_records() -> None:
    records = [
        Conversation((Message("user", "a"), Message("assistant", "b", reasoning=reasoning)), f"a.jsonl:{number}")
        for number, reasoning in enumerate(("", "one way", "another way", "another way"))
    ]
    digests = [digest_sample(record, seed=0) for record in records]
    assert len({*digests}) == 3 and digests[2] == digests[3]


def nested(depth: int) -> list[Any]:
    """Returns a list in a list, and so on."""
    found: list[Any] = []
    for _ in range(depth):
        found = [found]
    return found


@pytest.mark.parametrize(
    "record",
    [
        Text("half \ud800", "a:1"),
        Conversation((Message("user", "a"), Message("assistant", "b")), "a:1", ({"x": {1}},)),
        Conversation((Message("user", "a"), Message("assistant", "b")), "a:1", ({"x": nested(100_000)},)),
    ],
)
def test_a_record_that_no_file_of_json_holds_is_refused_by_its_place(record: Any) -> None:
    with pytest.raises(DataError, match="a:1: the record's text is no text, or its tools are no JSON"):
        digest_sample(record)


IN_PARTS = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}: {% for part in message['content'] %}"
    "{% if part['type'] == 'text' %}{{ part['text'] }}{% else %}<image>{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant: {% endif %}"
)
"""As templates of models with images have it: of a content that is a text they write nothing."""


@pytest.mark.parametrize("system", ["own", "first_user"])
def test_a_template_that_writes_parts_only_is_given_parts(tmp_path: Path, system: Any) -> None:
    for file, data in {**tiny_tokenizer_files(), "chat_template.jinja": IN_PARTS.encode()}.items():
        (tmp_path / file).write_bytes(data)
    ours, theirs = HuggingFaceBackend().load(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    turns = CONVERSATIONS["turns"]
    record = Conversation(tuple(Message(role, content) for role, content in turns), "record")
    if system == "first_user":
        turns = [("user", "be kind\n\na"), *turns[2:]]
    parts = [{"role": role, "content": [{"type": "text", "text": content}]} for role, content in turns]
    encoder = Encoder(ours, chat_template_of(ours, options=ChatOptions(system=system)), 1000)
    expected = theirs.apply_chat_template(parts, tokenize=True, return_dict=False)
    assert encoder.encode(record).examples[0].ids.tolist() == expected
    asked = theirs.apply_chat_template(parts[:1], tokenize=True, return_dict=False, add_generation_prompt=True)
    asked_for = Conversation((Message(turns[0][0], turns[0][1]),), "question")
    assert encoder.prompt(asked_for) == asked


WORDS = ["The", "fox's", "f(x)", ",", "naïve", "東京", "in", "1984", "...", "U.N.", "don't", "over"]
NUMBERED = TextTargets("tags", [str(number) for number in range(len(WORDS))])


def tagged(kind: str, words: list[str], **options: Any) -> tuple[list[int], list[int | None]]:
    """Returns the ids of words, and for each token the number of the word whose first one it is."""
    sample = tagged_words(words, NUMBERED.labels[: len(words)], "a:1")
    rules = EncodingRules(targets=NUMBERED, **options)
    encoded = Encoder(kind_of_tokenizer(kind), None, 1000, rules=rules).encode(sample)
    [example] = encoded.examples
    tags = example.by_token[TARGET].tolist()
    return example.ids.tolist(), [
        tag if weight else None for tag, weight in zip(tags, example.loss_weight, strict=True)
    ]


def firsts_of(word_ids: list[int | None]) -> list[int | None]:
    return [word if word != before else None for before, word in zip([None, *word_ids[:-1]], word_ids, strict=True)]


@pytest.mark.parametrize(
    "kind",
    ["wordpiece", "unigram", "byte-level, a space before", "pieces, metaspace", "pieces, first metaspace"],
)
def test_tags_are_at_the_tokens_of_words_that_transformers_splits(kind: str) -> None:
    theirs = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(tokenizer_file(kind).decode()))
    expected = theirs(WORDS, is_split_into_words=True, add_special_tokens=False)
    assert tagged(kind, WORDS) == (expected["input_ids"], firsts_of(expected.word_ids()))


@pytest.mark.parametrize("kind", ["byte-level, gpt2", "byte-level, llama3", "byte-level, qwen2 with NFC"])
def test_words_of_a_byte_level_tokenizer_have_the_space_before_them(kind: str) -> None:
    """As `add_prefix_space` gives it to each, but for the first one, which has none in a text either."""
    theirs = Tokenizer.from_str(tokenizer_file(kind).decode())
    of_words = [theirs.encode(word if number == 0 else f" {word}").ids for number, word in enumerate(WORDS)]
    ids, firsts = tagged(kind, WORDS)
    assert ids == [id for word in of_words for id in word] == theirs.encode(" ".join(WORDS)).ids
    assert firsts == [None if place else number for number, word in enumerate(of_words) for place in range(len(word))]


def test_a_token_of_two_words_is_refused_and_a_word_without_one_is_counted() -> None:
    kind = "byte-level, whole text"
    learnt = ["the", "quick", "brown", "fox", "jumps"]
    with pytest.raises(DataError, match=r"^a:1: the tokenizer makes one token of the words '\w+' and '\w+'"):
        tagged(kind, learnt)
    sample = tagged_words(["a", "\u200e", "b"], ["0", "1", "2"], "a:1")
    encoded = Encoder(kind_of_tokenizer("wordpiece"), None, 1000, rules=EncodingRules(targets=NUMBERED)).encode(sample)
    assert encoded.untokened == 1 and encoded.examples[0].loss_weight.sum() == 2


@pytest.mark.parametrize("tags,lost", [("0000000", 0), ("0001000", 2), ("0001110", 0)])
def test_a_token_of_words_with_nothing_between_is_the_first_ones(tags: str, lost: int) -> None:
    """As `).` is one of a byte-level tokenizer, where a text's words are told by places of entities."""
    text = "one ###user"
    tokens = Tokenizer.from_str(tokenizer_file("byte-level, gpt2").decode()).encode(text)
    assert "###" in tokens.tokens[-2], tokens.tokens
    places = ((0, 1), (1, 2), (2, 3), (4, 5), (5, 6), (6, 7), (7, 11))
    sample = TaggedText(text, "a:1", places, tuple(tags))
    tokenizer = kind_of_tokenizer("byte-level, gpt2")
    encoded = Encoder(tokenizer, None, 1000, rules=EncodingRules(targets=NUMBERED)).encode(sample)
    assert encoded.untokened == lost and encoded.examples[0].loss_weight.sum() >= 3


def test_texts_that_are_too_long_lose_the_tags_of_what_is_cut() -> None:
    sample = TaggedText("the fox, the fox", "a:1", ((0, 3), (4, 7), (7, 8), (9, 12), (13, 16)), tuple("01234"))
    tokenizer = kind_of_tokenizer("wordpiece")
    whole = Encoder(tokenizer, None, 1000, rules=EncodingRules(targets=NUMBERED)).encode(sample)
    [example] = whole.examples
    room = len(example.ids) - 2
    for overflow, kept in (("drop_turns", 1), ("truncate", 1), ("drop", 0)):
        cut = Encoder(tokenizer, None, room, rules=EncodingRules(targets=NUMBERED, overflow=overflow)).encode(sample)
        assert cut.truncated and len(cut.examples) == kept
        for found in cut.examples:
            assert found.ids.tolist() == example.ids[:room].tolist()
            assert found.loss_weight.tolist() == example.loss_weight[:room].tolist()
    with pytest.raises(DataError, match="more than data.max_length"):
        Encoder(tokenizer, None, room, rules=EncodingRules(targets=NUMBERED, overflow="error")).encode(sample)
