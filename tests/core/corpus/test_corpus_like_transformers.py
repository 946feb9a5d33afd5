"""A conversation becomes the ids that `transformers` gives it, whatever the tokenizer does at its seams."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from graftkit.corpus.encode import Encoder
from graftkit.corpus.sample_digest import digest_sample
from graftkit.corpus.tokenizer_template import chat_template_of
from graftkit.errors import DataError
from graftkit.interfaces.chat_options import ChatOptions
from graftkit.interfaces.samples import Conversation, Message, Text
from graftkit.testing import tiny_tokenizer_files
from graftkit_tokenizers.huggingface import HuggingFaceBackend
from transformers import AutoTokenizer

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
    assert example.ids[: example.prompt_length].tolist() == asked == encoder.prompt_in_use(record)


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
