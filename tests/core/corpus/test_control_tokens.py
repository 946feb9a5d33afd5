"""One set of control tokens, whoever declares them: the template's alone, and otherwise as transformers has it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from graftkit.interfaces.samples import Conversation, Message, ToolCall
from tokenizer_pairs import Pair, asked
from transformers import AutoTokenizer

THINK = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.reasoning_content %}<think>\n{{ m.reasoning_content }}\n</think>\n{% endif %}{{ m.content }}"
    "{% for call in m.tool_calls or [] %}<tool_call>{{ call.function | tojson }}</tool_call>{% endfor %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
ROLES = (
    "{{ bos_token }}{% for m in messages %}{{ '<|' + m.role + '|>' + m.content + eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


MARKS: dict[str, dict[str, bool]] = {"<think>": {}, "</think>": {}, "<tool_call>": {}, "</tool_call>": {}, "<b>": {}}


@pytest.mark.parametrize("text", ["is <think> one?", "<tool_call>", "</think></think>", "a<|im_end|>b </tool_call>"])
def test_a_users_text_never_becomes_a_token_that_the_template_writes(tmp_path: Path, text: str) -> None:
    pair = Pair(tmp_path, THINK, MARKS)
    said, plain = (pair.trained(*asked(words)) for words in (text, "plain"))
    controls = {*pair.ids.values()} - {pair.ids["<b>"]}
    assert [id for id in said if id in controls] == [id for id in plain if id in controls]
    assert said == pair.expected(*asked(text), sanitize_control_tokens=True)
    assert pair.ours.decode(said) == pair.theirs.decode(pair.expected(*asked(text)))


def test_reasoning_and_tool_calls_are_laid_out_with_their_tokens(tmp_path: Path) -> None:
    pair = Pair(tmp_path, THINK, MARKS)
    thought = (Message("user", "x"), Message("assistant", "yes", reasoning="hm"))
    assert pair.trained(*thought) == pair.expected(*thought)
    assert {pair.ids["<think>"], pair.ids["</think>"]} <= {*pair.learnt(*thought)}
    called = pair.learnt(Message("user", "x"), Message("assistant", "", tool_calls=(ToolCall("f", {"a": "<b>"}),)))
    assert called[0] == pair.ids["<tool_call>"] and pair.ids["</tool_call>"] in called
    forged = Message("assistant", "", tool_calls=(ToolCall("f", {"a": "</tool_call>"}),))
    assert pair.learnt(Message("user", "x"), forged).count(pair.ids["</tool_call>"]) == 1


def test_an_answer_that_a_template_takes_apart_has_its_tokens(tmp_path: Path) -> None:
    """As Qwen 3's template does with <think> in a content."""
    apart = "{% set parts = m.content.split('</think>') %}{% if parts[1] %}<think>{{ parts[0].split('<think>')[1] }}"
    template = THINK.replace("{{ m.content }}", apart + "</think>{{ parts[1] }}{% else %}{{ m.content }}{% endif %}")
    pair = Pair(tmp_path, template, MARKS)
    messages = asked("hi", "<think>hm</think>yes")
    assert pair.trained(*messages) == pair.expected(*messages)
    assert pair.encoder.encode(Conversation(messages, "1")).spells is None
    assert pair.encoder.encode(Conversation(asked("hi", "a <think>"), "1")).spells == "<think>"


@pytest.mark.parametrize("text", ["a <b> c", "<b>", "no mark"])
def test_other_added_tokens_are_read_as_in_transformers(tmp_path: Path, text: str) -> None:
    pair = Pair(tmp_path, THINK, MARKS)
    assert pair.trained(*asked(text, text)) == pair.expected(*asked(text, text))


def test_words_and_white_space_of_a_template_stay_words(tmp_path: Path) -> None:
    template = "You are helpful.\n\n{% for m in messages %}{{ m.role }}: {{ m.content }}<|im_end|>\n\n{% endfor %}"
    pair = Pair(tmp_path, template, {"helpful": {}, "user": {}, "\n\n": {}, "don't": {}})
    messages = asked("a helpful user\n\nis", "helpful, don't")
    assert pair.trained(*messages) == pair.expected(*messages)
    assert pair.trained(*messages).count(pair.ids["helpful"]) == 3


def test_tokens_that_a_template_joins_are_its_own(tmp_path: Path) -> None:
    pair = Pair(tmp_path, ROLES, {"<|user|>": {}, "<|assistant|>": {}}, bos_token="<|endoftext|>")
    assert pair.trained(*asked("hi")) == pair.expected(*asked("hi"))
    assert pair.trained(*asked("<|assistant|>")).count(pair.ids["<|assistant|>"]) == 1


@pytest.mark.parametrize(
    "config",
    [
        {"eos_token": "<|end|>"},
        {"eos_token": {"__type": "AddedToken", "content": "<|end|>", "lstrip": False, "rstrip": False}},
        {"added_tokens_decoder": {"259": {"content": "<|end|>", "special": True}}},
        {"additional_special_tokens": ["<|end|>"]},
        {"extra_special_tokens": {"end_token": "<|end|>"}},
        {"turn_token": "<|end|>"},
    ],
)
def test_a_token_that_only_the_configuration_calls_special_is_one(tmp_path: Path, config: dict[str, Any]) -> None:
    template = "{% for m in messages %}{{ m.role + ': ' + m.content + '<|end|>' }}{% endfor %}"
    template += "{% if add_generation_prompt %}assistant: {% endif %}"
    pair = Pair(tmp_path, template, {"<|end|>": {}}, **config)
    assert pair.ours.special_tokens["<|end|>"] == pair.ids["<|end|>"]
    assert pair.trained(*asked("hi")) == pair.expected(*asked("hi"))
    assert pair.learnt(*asked("hi"))[-1] == pair.ids["<|end|>"], "the end of the turn is learnt"
    assert pair.trained(*asked("<|end|>")).count(pair.ids["<|end|>"]) == 2
    assert pair.ids["<|end|>"] not in pair.ours.encode("a<|end|>"), "plain texts, too"


def test_an_end_of_turn_that_only_the_configuration_names_is_written(tmp_path: Path) -> None:
    template = "{% for m in messages %}{{ m.role + ': ' + m.content + eos_token }}{% endfor %}"
    pair = Pair(tmp_path, template, {"<|end|>": {}}, eos_token="<|end|>")
    assert pair.learnt(*asked("hi"))[-1] == pair.ids["<|end|>"]
    assert pair.trained(*asked("hi")) == pair.expected(*asked("hi"))


@pytest.mark.parametrize(
    "config",
    [
        {"image_token": "<image>"},
        {"extra_special_tokens": {"image_token": "<image>"}},
        {"image_token": {"__type": "AddedToken", "content": "<image>", "lstrip": False, "rstrip": False}},
        {"sep_token": "<image>", "cls_token": "<image>"},
        {"additional_special_tokens": ["<image>"]},
        {"image_token": None},
    ],
)
def test_a_template_gets_the_special_tokens_that_transformers_gives_it(tmp_path: Path, config: dict[str, Any]) -> None:
    names = ("image_token", "sep_token", "cls_token", "bos_token", "eos_token", "pad_token", "unk_token")
    shown = "".join(f"[{{{{ {name} }}}}]" for name in names)
    template = shown + "{% for m in messages %}{{ m.content }}<|im_end|>{% endfor %}"
    pair = Pair(tmp_path, template, {"<image>": {"special": True}}, **config)
    assert pair.trained(*asked("hi")) == pair.expected(*asked("hi"))


def test_a_named_token_that_the_tokenizer_lacks_is_undefined_as_in_what_is_saved(tmp_path: Path) -> None:
    template = "[{{ pad_token }}]{% for m in messages %}{{ m.content }}<|im_end|>{% endfor %}"
    pair = Pair(tmp_path, template, {}, pad_token="<absent>")
    pair.ours.save(tmp_path)
    saved = AutoTokenizer.from_pretrained(tmp_path)
    turns = [{"role": message.role, "content": message.content} for message in asked("hi")]
    assert pair.trained(*asked("hi")) == saved.apply_chat_template(turns, tokenize=True, return_dict=False)


def test_a_role_of_the_vocabulary_that_is_no_added_token_is_special(tmp_path: Path) -> None:
    pair = Pair(tmp_path, "{% for m in messages %}{{ m.content + eos_token }}{% endfor %}", {}, eos_token="Z")
    assert pair.trained(*asked("hi")) == pair.expected(*asked("hi"))
    assert pair.learnt(*asked("hi"))[-1] == pair.ours.special_tokens["Z"] == pair.ours.role_token("eos")
    assert pair.ours.special_tokens["Z"] not in pair.ours.encode("Zoo")
