"""With `turns: each` every answer is an example, laid out as when it was given: its prompt is the one of use."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from graftkit import Tokenizer
from graftkit.corpus import encode, fitting_answers
from graftkit.corpus.encode import Encoder, Overflow
from graftkit.corpus.encoding_rules import EncodingRules
from graftkit.corpus.prompt_in_use import prompt_in_use
from graftkit.corpus.template import ChatTemplate
from graftkit.corpus.tokenizer_template import chat_template_of
from graftkit.corpus.turns import ByAnswer
from graftkit.errors import DataError
from graftkit.interfaces.chat_options import ChatOptions
from graftkit.interfaces.samples import Conversation, Message, ToolCall
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
    return Encoder(tokenizer, template, length, rules=EncodingRules(overflow=overflow))


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


def test_an_answer_stands_after_its_own_prompt_in_use(tokenizer: Tokenizer) -> None:
    """gpt-oss leaves out the reasoning before a call once its result is answered; as it answers, the model sees it."""
    pytest.importorskip("trl")
    source = (Path(str(find_spec("trl").origin)).parent / "chat_templates" / "gptoss.jinja").read_text()  # type: ignore[union-attr]
    controls = {"start": "im_start", "end": "im_end", "call": "im_end", "return": "endoftext"}
    for theirs, ours in controls.items():
        source = source.replace(f"<|{theirs}|>", f"<|{ours}|>")
    called = Message("assistant", "", reasoning="I look it up", tool_calls=(ToolCall("get", {"city": "Rome"}),))
    turns = (
        Message("user", "Weather?"),
        called,
        Message("tool", "sunny", name="get"),
        Message("assistant", "Sunny.", reasoning="it says so"),
        Message("user", "Sure?"),
        Message("assistant", "Yes."),
    )
    ours = encoder(tokenizer.with_chat_template(source))
    parts = list(ours.turns(Conversation(turns, "record")))
    shown = []
    for part in parts:
        [example] = ours.encode(part).examples
        assert example.ids[: example.prompt_length].tolist() == prompt_in_use(ours, part)
        assert example.loss_mask[example.prompt_length :].all()
        shown.append([tokenizer.decode(ids.tolist()) for ids in np.split(example.ids, [example.prompt_length])])
    assert [("I look it up" in prompt, answer) for prompt, answer in shown] == [
        (
            False,
            "<|channel|>analysis<|message|>I look it up<|im_end|><|im_start|>assistant to=functions.get<|channel|>"
            'commentary json<|message|>{"city": "Rome"}<|im_end|>',
        ),
        (
            True,
            "<|channel|>analysis<|message|>it says so<|im_end|><|im_start|>assistant<|channel|>final<|message|>"
            "Sunny.<|endoftext|>",
        ),
        (False, "<|channel|>final<|message|>Yes.<|endoftext|>"),
    ]
    assert "".join(text for text, _ in ours.authors(parts[1])) == "".join(shown[1])


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


SHOWS_ALL = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
SHOWS_THE_LAST_SIX = SHOWS_ALL.replace("messages", "messages[-6:]")


def chat(count: int, reasoning: bool) -> Conversation:
    """Questions that are answered in turns of three, or without reasoning one by one."""
    messages = []
    for number in range(count):
        role = "assistant" if number % 3 else "user"
        thought = "so I think " * (number % 5) if role == "assistant" and reasoning else ""
        messages.append(Message(role, f"it is number {number}", reasoning=thought))
    return Conversation(tuple(messages), "a.jsonl:1")


@pytest.mark.parametrize("overflow", ["drop_turns", "drop", "truncate"])
@pytest.mark.parametrize(
    ("template", "reasoning"), [(DROPS_EARLIER_REASONING, True), (SHOWS_ALL, False), (SHOWS_THE_LAST_SIX, False)]
)
def test_a_long_conversation_gives_the_examples_of_its_answers_one_by_one(
    tokenizer: Tokenizer,
    template: str,
    reasoning: bool,
    overflow: Overflow,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    chosen = tokenizer.with_chat_template(template)
    laid_out = chat_template_of(chosen, options=ChatOptions(turns="each"))
    ours = Encoder(chosen, laid_out, 300, rules=EncodingRules(overflow=overflow, report_dropped=True))
    record = chat(90, reasoning)
    apart = [example for part in ByAnswer(record) for example in ours.encode(part).examples]
    rendered: list[int] = []
    render = ChatTemplate.render

    def noted(self: ChatTemplate, messages: Sequence[Mapping[str, Any]], where: str, **options: Any) -> str:
        rendered.append(len(messages))
        return render(self, messages, where, **options)

    monkeypatch.setattr(ChatTemplate, "render", noted)
    encoded = ours.encode(record)
    assert [example.ids.tolist() for example in encoded.examples] == [example.ids.tolist() for example in apart]
    assert [example.loss_weight.tolist() for example in encoded.examples] == [e.loss_weight.tolist() for e in apart]
    assert encoded.truncated == (template != SHOWS_THE_LAST_SIX)
    if encoded.truncated:
        assert sum(rendered) < sum(len(part.messages) for part in ByAnswer(record)), "most answers are too long unseen"


def test_answers_that_fit_and_take_too_long_to_lay_out_are_refused(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fitting_answers, "MOST_LAID_OUT", 100)
    plain = tokenizer.with_chat_template(SHOWS_ALL)
    assert len(encoder(plain).encode(chat(12, False)).examples) == 8
    fine, long = chat(3, False), chat(90, False)
    with pytest.raises(DataError, match="has 60 answers; with turns: each") as caught:
        encoder(plain).encode_many([fine, long])
    assert caught.value.where == "a.jsonl:1" and "data.turns: all" in caught.value.hint


def test_long_conversations_are_encoded_few_at_a_time(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, record = encoder(tokenizer.with_chat_template(SHOWS_ALL)), chat(300, False)
    assert plain.characters_by_answer(chat(6, False)) < 1000
    assert plain.characters_by_answer(record) > 200 * 4096
    calls: list[int] = []
    batch = type(tokenizer).encode_batch
    monkeypatch.setattr(encode, "_RUNS", 100)
    monkeypatch.setattr(
        type(tokenizer),
        "encode_batch",
        lambda self, texts, *given: calls.append(len(texts)) or batch(self, texts, *given),
    )
    kept = plain.encode_many([chat(12, False), chat(9, False)])
    assert [len(one.examples) for one in kept] == [8, 6] and len(calls) > 1


def test_the_prompt_in_use_is_that_of_the_last_answer_that_is_kept(tokenizer: Tokenizer) -> None:
    turns = tuple(Message(m.role, m.content) for m in IN_FIELDS)
    for options in (ChatOptions(), ChatOptions(turns="each")):
        whole = encoder(tokenizer, options)
        prompts = [whole.prompt(Conversation(turns[:number], "record")) for number in ANSWERS]
        assert [prompt_in_use(whole, part) for part in whole.turns(Conversation(turns, "record"))] == (
            prompts if options.turns == "each" else prompts[-1:]
        )
    cut = encoder(tokenizer, ChatOptions(), length=len(prompts[-1]))
    assert prompt_in_use(cut, Conversation(turns, "record")) == prompts[-2]
