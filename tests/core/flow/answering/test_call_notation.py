"""Calls of functions are read from an answer as its chat template writes them."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

import pytest
from graftkit.corpus.encode import Encoder
from graftkit.corpus.tokenizer_template import chat_template_of
from graftkit.flow.answering.call_notation import CallNotation, CallReader, call_notation
from graftkit.interfaces.samples import Conversation, Message, ToolCall

TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {}}}}

HEAD = "{% if tools %}{{ tools | tojson }}{% endif %}{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}"
TAIL = "{{ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
LIST = """{{- m.content }}{%- if m.tool_calls %}{{- '<|endoftext|>[' }}{%- for c in m.tool_calls %}
{{- '{"name": ' + c.function.name | tojson + ', "arguments": ' + c.function.arguments | tojson + ', "id": ' +
    (c.id or '000000000') | tojson + '}' }}{{- ', ' if not loop.last }}{%- endfor %}{{- ']' }}{%- endif %}"""
OBJECT = """{{- m.content }}{%- if m.tool_calls %}
{%- if m.tool_calls | length != 1 %}{{ raise_exception('one') }}{% endif %}{%- set c = m.tool_calls[0].function %}
{{- '{"name": "' + c.name + '", "parameters": ' + c.arguments | tojson + '}' }}{%- endif %}"""
TAGS = """{{- m.content }}{%- for c in m.tool_calls or [] %}
{{- '<call>' + c.function | tojson + '</call>' }}{%- endfor %}"""
NO_JSON = """{{- m.content }}{%- for c in m.tool_calls or [] %}
{{- '<call>' + c.function.name + '(' + c.function.arguments | tojson + ')</call>' }}{%- endfor %}"""

OWN = (files("graftkit.corpus") / "chatml.jinja").read_text()
TEMPLATES = {
    "own": (OWN, CallNotation("<tool_call>", "</tool_call>\n<tool_call>", "</tool_call>", "name", "arguments")),
    "list": (HEAD + LIST + TAIL, CallNotation("[", ",", "]", "name", "arguments")),
    "object": (HEAD + OBJECT + TAIL, CallNotation("", None, "", "name", "parameters")),
    "tags": (HEAD + TAGS + TAIL, CallNotation("<call>", "</call><call>", "</call>", "name", "arguments")),
    "no JSON": (HEAD + NO_JSON + TAIL, None),
    "no calls": (HEAD + "{{- m.content }}" + TAIL, None),
}


def encoder_of(tokenizer: Any, template: str) -> Encoder:
    tokenizer = tokenizer.with_chat_template(template)
    return Encoder(tokenizer, chat_template_of(tokenizer), max_length=1 << 30)


@pytest.mark.parametrize("kind", TEMPLATES)
def test_a_template_says_how_calls_are_written(tokenizer: Any, kind: str) -> None:
    template, notation = TEMPLATES[kind]
    assert call_notation(encoder_of(tokenizer, template), "") == notation


def read(reader: CallReader, text: str, cut: int) -> tuple[str, list[ToolCall]]:
    said = "".join(reader.push(text[place : place + cut]) for place in range(0, len(text), cut))
    rest, calls = reader.finish()
    return said + rest, calls


@pytest.mark.parametrize("cut", [1, 3, 1000])
@pytest.mark.parametrize("kind", ["own", "list", "object", "tags"])
def test_calls_are_read_as_the_template_wrote_them(tokenizer: Any, kind: str, cut: int) -> None:
    template, notation = TEMPLATES[kind]
    assert notation is not None
    arguments: list[dict[str, Any]] = [{"a": 1, "b": {"c": "}\n</tool_call> é"}}, {}][
        : 1 if notation.between is None else 2
    ]
    said = "At once. " if notation.start else ""
    answer = Message("assistant", said, tool_calls=tuple(ToolCall("add", given) for given in arguments))
    encoder = encoder_of(tokenizer, template)
    [example] = encoder.encode(Conversation((Message("user", "x"), answer), "here", (TOOL,))).examples
    specials = {*tokenizer.special_tokens.values()}
    text = tokenizer.decode([id for id in example.ids[example.loss_mask].tolist() if id not in specials])
    content, calls = read(CallReader(notation, {"add"}), text, cut)
    assert content.strip() == said.strip()
    assert [(call.name, json.loads(call.arguments)) for call in calls] == [("add", given) for given in arguments]


@pytest.mark.parametrize("cut", [1, 1000])
@pytest.mark.parametrize(
    "text",
    [
        "no call",
        "a < b and <tool_",
        "<tool_call>",
        '<tool_call>{"name": "add", "arguments": {}}',
        '<tool_call>{"name": "add", "arguments": {}}</tool_call> and more',
        '<tool_call>{"name": "add", "arguments": {"a": NaN}}</tool_call>',
        '<tool_call>{"name": "add", "arguments": 3}</tool_call>',
        '<tool_call>{"name": 3, "arguments": {}}</tool_call>',
        '<tool_call>{"name": "add"}</tool_call>',
        "<tool_call>" + '{"a":' * 100_000,
    ],
)
def test_what_is_no_whole_call_stays_text(text: str, cut: int) -> None:
    notation = TEMPLATES["own"][1]
    if cut == 1:
        text = text[:200]
    assert read(CallReader(notation, {"add"}), text, cut) == (text, [])


def test_an_object_alone_is_a_call_of_a_function_that_was_offered() -> None:
    notation, text = TEMPLATES["object"][1], '{"name": "add", "parameters": {"a": 1}}'
    assert read(CallReader(notation, {"add"}), text, 2) == ("", [ToolCall("add", '{"a": 1}')])
    assert read(CallReader(notation, {"other"}), text, 2) == (text, [])
    assert read(CallReader(notation, {"add"}), "See: " + text, 2) == ("See: " + text, [])
    assert CallReader(notation, {"add"}).push("See") == "See", "at once: it is no call"
