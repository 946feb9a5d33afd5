"""With `turns: each` every answer is an example, laid out as when it was given: its prompt is the one of use."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from graftkit import Tokenizer
from graftkit.corpus.encode import Encoder, Overflow, chat_template_of
from graftkit.errors import DataError
from graftkit.interfaces.chat_options import ChatOptions
from graftkit.interfaces.samples import Conversation, Message
from graftkit.testing import tiny_tokenizer_files
from graftkit_tokenizers.huggingface import HuggingFaceBackend
from transformers import AutoTokenizer

DROPS_EARLIER_REASONING = """{%- set last = namespace(asked=0) %}
{%- for m in messages %}{% if m.role == 'user' %}{% set last.asked = loop.index0 %}{% endif %}{% endfor %}
{%- for m in messages %}
    {%- if m.role != 'assistant' %}{{- '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}
    {%- else %}
        {%- set thought = m.reasoning_content or '' %}{% set said = m.content %}
        {%- if '</think>' in m.content %}
            {%- set thought = m.content.split('</think>')[0].split('<think>')[-1].strip('\n') %}
            {%- set said = m.content.split('</think>')[-1].lstrip('\n') %}
        {%- endif %}
        {{- '<|im_start|>assistant\n' }}
        {%- if loop.index0 > last.asked %}{{- '<think>\n' + thought.strip('\n') + '\n</think>\n\n' }}{% endif %}
        {{- said + '<|im_end|>\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}
    {%- if enable_thinking is false %}{{- '<think>\n\n</think>\n\n' }}{% endif %}
{%- endif %}"""

IN_FIELDS = (
    Message("system", "be kind"),
    Message("user", "a?"),
    Message("assistant", "one", reasoning="first I think"),
    Message("user", "b?"),
    Message("assistant", "two", reasoning="then again"),
    Message("user", "c?"),
    Message("assistant", "three"),
)
IN_CONTENTS = tuple(
    Message(m.role, f"<think>\n{m.reasoning}\n</think>\n\n{m.content}" if m.reasoning else m.content) for m in IN_FIELDS
)
ANSWERS = (2, 4, 6)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("drops")
    files = tiny_tokenizer_files()
    config = json.loads(files["tokenizer_config.json"]) | {"chat_template": DROPS_EARLIER_REASONING}
    for name, content in {**files, "tokenizer_config.json": json.dumps(config).encode()}.items():
        (place / name).write_bytes(content)
    return place


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Tokenizer:
    return HuggingFaceBackend().load(folder)


def encoder(
    tokenizer: Tokenizer, options: ChatOptions | None = None, length: int = 4096, overflow: Overflow = "drop_turns"
) -> Encoder:
    template = chat_template_of(tokenizer, options=options or ChatOptions(turns="each"))
    return Encoder(tokenizer, template, length, overflow=overflow)


@pytest.mark.parametrize("turns", [IN_FIELDS, IN_CONTENTS])
def test_each_example_is_what_apply_chat_template_gives_at_that_moment(
    folder: Path, tokenizer: Tokenizer, turns: tuple[Message, ...]
) -> None:
    theirs = AutoTokenizer.from_pretrained(folder)
    messages = [
        {"role": m.role, "content": m.content, **({"reasoning_content": m.reasoning} if m.reasoning else {})}
        for m in turns
    ]
    encoded = encoder(tokenizer).encode(Conversation(turns, "record"))
    assert len(encoded.examples) == 3 and encoded.stops and not encoded.truncated and not encoded.left_out
    for number, example in zip(ANSWERS, encoded.examples, strict=True):
        whole = theirs.apply_chat_template(messages[: number + 1], return_dict=False)
        asked = theirs.apply_chat_template(messages[:number], add_generation_prompt=True, return_dict=False)
        assert example.ids.tolist() == whole
        assert example.ids[: example.prompt_length].tolist() == asked
        ends = theirs.decode(example.ids[example.loss_mask])
        assert ends == theirs.decode(whole)[len(theirs.decode(asked)) :].rstrip("\n"), "this answer alone, to its end"


def test_arguments_of_the_template_decide_the_prompt(folder: Path, tokenizer: Tokenizer) -> None:
    options = ChatOptions(arguments={"enable_thinking": False}, turns="each")
    record = Conversation((IN_FIELDS[1], Message("assistant", "one"), IN_FIELDS[3], Message("assistant", "two")), "x")
    theirs = AutoTokenizer.from_pretrained(folder)
    for number, example in zip((1, 3), encoder(tokenizer, options).encode(record).examples, strict=True):
        messages = [{"role": m.role, "content": m.content} for m in record.messages[:number]]
        asked = theirs.apply_chat_template(
            messages, add_generation_prompt=True, return_dict=False, enable_thinking=False
        )
        assert example.ids[: example.prompt_length].tolist() == asked


def test_all_turns_at_once_are_refused_and_the_refusal_names_the_way_out(tokenizer: Tokenizer) -> None:
    for turns, what in ((IN_FIELDS, "message 3's reasoning"), (IN_CONTENTS, "a part of message 3")):
        with pytest.raises(DataError, match=f"leaves out {what}") as caught:
            encoder(tokenizer, ChatOptions()).encode(Conversation(turns, "record"))
        assert "data.turns: each" in caught.value.hint


def test_what_no_turn_shows_is_refused_in_the_turn_itself(tokenizer: Tokenizer) -> None:
    plain = tokenizer.with_chat_template("{% for m in messages %}{{ m.role }}:{{ m.content }};{% endfor %}")
    with pytest.raises(DataError, match="leaves out message 3's reasoning") as caught:
        encoder(plain).encode(Conversation(IN_FIELDS, "record"))
    assert "data.turns" not in caught.value.hint
    silent = tokenizer.with_chat_template("{% for m in messages if m.role != 'user' %}{{ m.content }};{% endfor %}")
    with pytest.raises(DataError, match="leaves out message 2"):
        encoder(silent).encode(Conversation(IN_FIELDS, "record"))


def test_weights_say_which_answers_are_examples(tokenizer: Tokenizer) -> None:
    turns = (IN_FIELDS[1], Message("assistant", "one", 0.0), Message("user", "b?"), Message("assistant", "two", 0.5))
    [example] = encoder(tokenizer).encode(Conversation(turns, "record")).examples
    assert {float(weight) for weight in example.loss_weight} == {0.0, 0.5}
    assert tokenizer.decode(example.ids[example.loss_mask].tolist()).endswith("two<|im_end|>")


def test_an_answer_that_is_too_long_follows_overflow_by_itself(tokenizer: Tokenizer) -> None:
    record = Conversation(IN_FIELDS, "a.jsonl:1")
    lengths = [len(example.ids) for example in encoder(tokenizer).encode(record).examples]
    assert lengths == sorted(lengths)
    limit = lengths[1]
    for overflow, kept in (("drop_turns", lengths[:2]), ("drop", lengths[:2]), ("truncate", [*lengths[:2], limit])):
        encoded = encoder(tokenizer, length=limit, overflow=overflow).encode(record)  # type: ignore[arg-type]
        learnt = [len(example.ids) for example in encoded.examples]
        assert encoded.truncated and learnt == kept[: len(learnt)] and len(learnt) >= 2
    with pytest.raises(DataError, match="more than data.max_length"):
        encoder(tokenizer, length=limit, overflow="error").encode(record)


def test_the_prompt_in_use_is_that_of_the_last_answer_that_is_kept(tokenizer: Tokenizer) -> None:
    turns = tuple(Message(m.role, m.content) for m in IN_FIELDS)
    for options in (ChatOptions(), ChatOptions(turns="each")):
        whole = encoder(tokenizer, options)
        prompts = [whole.prompt(Conversation(turns[:number], "record")) for number in ANSWERS]
        assert [whole.prompt_in_use(part) for part in whole.turns(Conversation(turns, "record"))] == (
            prompts if options.turns == "each" else prompts[-1:]
        )
    cut = encoder(tokenizer, ChatOptions(), length=len(prompts[-1]))
    assert cut.prompt_in_use(Conversation(turns, "record")) == prompts[-2]
