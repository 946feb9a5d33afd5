"""Reasoning is read from an answer as its chat template writes it."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import pytest
from graftkit.corpus.encode import Encoder
from graftkit.corpus.tokenizer_template import chat_template_of
from graftkit.flow.answering.reasoning_notation import ReasoningNotation, ReasoningReader, reasoning_notation

HEAD = "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}"
END = "{{ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
QWEN3 = """{%- if m.reasoning_content %}{{- '<think>\n' + m.reasoning_content.strip('\n') + '\n</think>\n\n' }}
{%- endif %}{{- m.content }}"""
LEFT_OUT = "{{- m.content.split('</think>')[-1] }}"
OPENED = "{{ '<think>\n' }}"
OPENED_AND_CLOSED = "{{ '<think>\n\n</think>\n\n' }}"

TEMPLATES = {
    "own": ((files("graftkit.corpus") / "chatml.jinja").read_text(), ReasoningNotation("<think>", "</think>")),
    "as Qwen3": (HEAD + QWEN3 + END + "{% endif %}", ReasoningNotation("<think>", "</think>")),
    "opened by the prompt": (HEAD + QWEN3 + END + OPENED + "{% endif %}", ReasoningNotation("", "</think>")),
    "as DeepSeek-R1": (HEAD + LEFT_OUT + END + OPENED + "{% endif %}", ReasoningNotation("", "</think>")),
    "thinking switched off": (HEAD + LEFT_OUT + END + OPENED_AND_CLOSED + "{% endif %}", None),
    "of no model that reasons": (HEAD + "{{- m.content }}" + END + "{% endif %}", None),
    "a tag that nothing closes": (HEAD + "{{- m.content }}" + END + "{{ '<answer>' }}{% endif %}", None),
}


@pytest.mark.parametrize("kind", TEMPLATES)
def test_a_template_says_how_reasoning_is_written(tokenizer: Any, kind: str) -> None:
    template, notation = TEMPLATES[kind]
    tokenizer = tokenizer.with_chat_template(template)
    assert reasoning_notation(Encoder(tokenizer, chat_template_of(tokenizer), max_length=1 << 30)) == notation


ANSWERS = {
    "<think>\nFirst.\n\nThen.\n</think>\n\nHello": ("First.\n\nThen.", "Hello"),
    "<think>\n\n</think>\n\nHello": ("", "Hello"),
    "Hello </think> you": ("", "Hello </think> you"),
    "<thin": ("", "<thin"),
    "<b>bold</b>": ("", "<b>bold</b>"),
    "<think>\nand never comes to an end </thi\n": ("and never comes to an end </thi", ""),
    "\n<think>a</think>b <think>c</think>": ("a", "b <think>c</think>"),
    "": ("", ""),
}


@pytest.mark.parametrize("cut", [1, 3, 1000])
@pytest.mark.parametrize("text", ANSWERS)
def test_reasoning_is_taken_out_as_it_comes(text: str, cut: int) -> None:
    reader = ReasoningReader(ReasoningNotation("<think>", "</think>"))
    parts = [reader.push(text[place : place + cut]) for place in range(0, len(text), cut)] + [reader.finish()]
    assert tuple("".join(found) for found in zip(*parts, strict=True)) == ANSWERS[text]


def test_an_answer_that_begins_with_reasoning_needs_no_start() -> None:
    reader = ReasoningReader(ReasoningNotation("", "</think>"))
    assert reader.push("\nSo </") == ("So", "")
    assert reader.push("b>. </think>\n\nYes ") == (" </b>.", "Yes ")
    assert reader.push("no") == ("", "no")
    assert ReasoningReader().push("<think>") == ("", "<think>"), "nothing is held where none is read"
