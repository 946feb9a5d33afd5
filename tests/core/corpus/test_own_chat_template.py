"""The project's own chat template: what it writes, that transformers writes the same, and that nothing is left out."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from graftkit.corpus.encode import Encoder
from graftkit.corpus.tokenizer_template import chat_template_of
from graftkit.interfaces.samples import Conversation
from graftkit.testing import tiny_tokenizer_files
from graftkit.testing.records import read_samples
from graftkit_tokenizers.huggingface import HuggingFaceBackend
from transformers import AutoTokenizer

TEMPLATE = (files("graftkit.corpus") / "chatml.jinja").read_text()
FUNCTION = {"name": "open_ticket", "parameters": {"type": "object", "properties": {"area": {"type": "string"}}}}
TOOL = {"type": "function", "function": FUNCTION}


def call(arguments: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": "open_ticket", "arguments": arguments}}


QUESTION = {"role": "user", "content": "My printer is down."}
SYSTEM = {"role": "system", "content": "Be kind."}
CALLING = {"role": "assistant", "content": "", "tool_calls": [call({"area": "PR"})]}
CALLING_IN_TEXT = {"role": "assistant", "content": "", "tool_calls": [call('{"area": "PR"}')]}
CONVERSATIONS: dict[str, tuple[list[dict[str, Any]], list[Any]]] = {
    "plain": ([QUESTION, {"role": "assistant", "content": "I see."}], []),
    "system": ([SYSTEM, QUESTION, {"role": "assistant", "content": "I see."}], []),
    "call": ([QUESTION, CALLING], [TOOL]),
    "call with arguments as text": ([SYSTEM, QUESTION, CALLING_IN_TEXT], [TOOL, TOOL]),
    "words and calls": ([QUESTION, {**CALLING, "content": "At once.", "tool_calls": [call({}), call({})]}], [TOOL]),
    "a result": (
        [QUESTION, CALLING, {"role": "tool", "content": "done"}, {"role": "assistant", "content": "Done."}],
        [TOOL],
    ),
    "reasoning": ([QUESTION, {"role": "assistant", "content": "I see.", "reasoning_content": "A printer."}], []),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    made = tiny_tokenizer_files()
    config = json.loads(made["tokenizer_config.json"]) | {"chat_template": TEMPLATE}
    for name, data in {**made, "tokenizer_config.json": json.dumps(config).encode()}.items():
        (folder / name).write_bytes(data)
    return folder


def read(tmp_path: Path, turns: list[dict[str, Any]], tools: list[Any]) -> Conversation:
    path = tmp_path / "records.jsonl"
    path.write_text(json.dumps({"messages": turns, **({"tools": tools} if tools else {})}))
    (record,) = read_samples(path)
    assert isinstance(record, Conversation)
    return record


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_it_lays_out_everything_as_transformers_does(folder: Path, tmp_path: Path, name: str) -> None:
    turns, tools = CONVERSATIONS[name]
    ours, theirs = HuggingFaceBackend().load(folder), AutoTokenizer.from_pretrained(folder)
    record = read(tmp_path, turns, tools)
    encoder = Encoder(ours, chat_template_of(ours), max_length=4096)
    (example,) = encoder.encode(record).examples  # which refuses a record of which something is left out
    expected = theirs.apply_chat_template(turns, tools=tools or None, tokenize=True, return_dict=False)
    assert example.ids.tolist() == expected
    asked = Conversation(record.messages[:-1], "record", record.tools)
    assert example.ids[: example.prompt_length].tolist() == encoder.prompt(asked)


def test_a_call_is_written_as_the_parsers_of_servers_read_it(folder: Path, tmp_path: Path) -> None:
    turns, tools = CONVERSATIONS["call"]
    ours = HuggingFaceBackend().load(folder)
    encoder = Encoder(ours, chat_template_of(ours), max_length=4096)
    record = read(tmp_path, turns, tools)
    (example,) = encoder.encode(record).examples
    learnt = ours.decode(example.ids[example.loss_mask].tolist())
    assert learnt == '<tool_call>\n{"name": "open_ticket", "arguments": {"area": "PR"}}\n</tool_call><|im_end|>'
