"""What stands before an answer in training is compared with the prompt in use, for conversations of every shape."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from graftkit.corpus.encode import Encoder
from graftkit.corpus.sample_files import scan_samples
from graftkit.corpus.split import split
from graftkit.corpus.tokenizer_template import chat_template_of
from graftkit.flow.records import template_check
from graftkit.flow.records.template_check import check_template
from graftkit.interfaces.chat_options import ChatOptions
from graftkit.testing import tiny_tokenizer_files
from graftkit.testing.records import open_files
from graftkit_tokenizers.huggingface import HuggingFaceTokenizer

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>{% endfor %}"
    "{% if tools %}{% endif %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
WITH_A_SYSTEM_TURN = TEMPLATE.replace(
    "<|im_start|>assistant", "{% if messages[0].role == 'system' %}!{% endif %}<|im_start|>assistant"
)
NONE_AFTER_A_RESULT = TEMPLATE.replace(
    "if add_generation_prompt", "if add_generation_prompt and messages[-1].role != 'tool'"
)
ALWAYS = TEMPLATE.replace("<|im_start|>assistant", "?<|im_start|>assistant")


def turns(*roles: str) -> list[dict[str, str]]:
    return [{"role": role, "content": role[0]} for role in roles]


PLAIN, SYSTEM = turns("user", "assistant"), turns("system", "user", "assistant")


def notices(
    folder: Path, template: str, records: list[list[dict[str, Any]]], options: ChatOptions | None = None
) -> list[str]:
    (folder / "a.jsonl").write_text("".join(json.dumps({"messages": record}) + "\n" for record in records))
    tokenizer = HuggingFaceTokenizer(tiny_tokenizer_files()).with_chat_template(template)
    samples = split(scan_samples(open_files([folder / "a.jsonl"]), 0), 0.0)
    return check_template(Encoder(tokenizer, chat_template_of(tokenizer, options=options), 1000), samples)


def test_every_shape_is_looked_at(tmp_path: Path) -> None:
    assert notices(tmp_path, TEMPLATE, [PLAIN, SYSTEM, PLAIN + PLAIN]) == []
    [told] = notices(tmp_path, WITH_A_SYSTEM_TURN, [PLAIN] * 9 + [SYSTEM])
    assert "another text before an answer in training than in use" in told and told.endswith("a.jsonl:10")
    assert "!<|im_start|>" in told


def test_each_kind_of_answers_by_themselves_is_looked_at(tmp_path: Path) -> None:
    records = [[*PLAIN, *turns("tool", "assistant"), *PLAIN]]
    [told] = notices(tmp_path, NONE_AFTER_A_RESULT, records, ChatOptions(turns="each"))
    assert "t<|im_end|><|im_start|>assistant" in told and told.endswith("a.jsonl:1")


def test_so_are_answers_before_the_last_of_an_example(tmp_path: Path) -> None:
    """Qwen3.5 writes a think block before the last answer, as in use, and before no other one."""
    thinks = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if loop.last and m.role == 'assistant' %}<think>\n"
        "{% endif %}{{ m.content }}<|im_end|>{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
    )
    assert notices(tmp_path, thinks, [PLAIN]) == []
    [told] = notices(tmp_path, thinks, [PLAIN * 3])
    assert r"in use: 'nt\n' against 'nt\n<think>\n'; data.turns: each" in told
    assert notices(tmp_path, thinks, [PLAIN * 3], ChatOptions(turns="each")) == []


def test_a_difference_is_told_once(tmp_path: Path) -> None:
    [told] = notices(tmp_path, ALWAYS, [PLAIN, PLAIN, PLAIN + PLAIN, [*SYSTEM, *PLAIN]])
    assert told.endswith("a.jsonl:1")


def test_it_ends_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(template_check, "_SECONDS", -1.0)
    assert notices(tmp_path, WITH_A_SYSTEM_TURN, [PLAIN, SYSTEM]) == [], "the first one is always looked at"
    assert len(notices(tmp_path, WITH_A_SYSTEM_TURN, [SYSTEM, PLAIN])) == 1
    monkeypatch.undo()
    monkeypatch.setattr(template_check, "_LOOKED_AT", 3)
    assert notices(tmp_path, WITH_A_SYSTEM_TURN, [PLAIN] * 3 + [SYSTEM]) == []
