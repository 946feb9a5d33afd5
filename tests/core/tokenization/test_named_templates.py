"""Chat templates by name are found, and chosen, as transformers does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from graftkit.corpus.encode import Encoder
from graftkit.corpus.prompt_in_use import prompt_in_use
from graftkit.corpus.tokenizer_template import chat_template_of
from graftkit.errors import ModelError
from graftkit.interfaces.chat_options import ChatOptions
from graftkit.interfaces.samples import Conversation, Message
from graftkit.testing import tiny_tokenizer_files
from graftkit_tokenizers.huggingface import HuggingFaceBackend
from transformers import AutoTokenizer


def writing(what: str) -> str:
    turn = "<|im_start|>WHAT {{ m.role }}{% if tools %}{{ tools | tojson }}{% endif %}: {{ m.content }}<|im_end|>"
    prompt = "<|im_start|>WHAT assistant{% if tools %}{{ tools | tojson }}{% endif %}: "
    loop = f"{{% for m in messages %}}{turn}{{% endfor %}}{{% if add_generation_prompt %}}{prompt}{{% endif %}}"
    return loop.replace("WHAT", what)


TEMPLATES = {"default": writing("plain"), "tool_use": writing("tools"), "rag": writing("rag")}
FORMS = ("list", "files", "files beside a list", "one file")
TOOL = {"type": "function", "function": {"name": "add"}}
TURNS = (Message("user", "a"), Message("assistant", "b"))


def saved(folder: Path, form: str) -> Path:
    files = tiny_tokenizer_files()
    config = json.loads(files["tokenizer_config.json"])
    config["chat_template"] = [{"name": name, "template": text} for name, text in TEMPLATES.items()]
    if form.startswith("files"):
        (folder / "chat_template.jinja").write_text(TEMPLATES["default"])
        (folder / "additional_chat_templates").mkdir()
        for name in ("tool_use", "rag"):
            (folder / "additional_chat_templates" / f"{name}.jinja").write_text(TEMPLATES[name])
        if form == "files beside a list":
            config["chat_template"] = [{"name": "default", "template": "another"}, {"name": "odd", "template": "odd"}]
        else:
            config.pop("chat_template")
    if form == "one file":
        config["chat_template"] = TEMPLATES["default"]
    for name, data in {**files, "tokenizer_config.json": json.dumps(config).encode()}.items():
        (folder / name).write_bytes(data)
    return folder


def theirs(folder: Path) -> dict[str, str]:
    found = AutoTokenizer.from_pretrained(folder).chat_template
    return dict(found) if isinstance(found, dict) else {"default": found}


@pytest.mark.parametrize("form", FORMS)
def test_they_are_those_of_transformers_also_once_saved_again(tmp_path: Path, form: str) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    tokenizer = HuggingFaceBackend().load(saved(tmp_path / "one", form))
    assert tokenizer.chat_templates == theirs(tmp_path / "one") and tokenizer.chat_template == TEMPLATES["default"]
    tokenizer.save(tmp_path / "two")
    assert (
        HuggingFaceBackend().load(tmp_path / "two").chat_templates
        == theirs(tmp_path / "two")
        == theirs(tmp_path / "one")
    )


@pytest.mark.parametrize("form", FORMS)
def test_a_recipes_template_takes_the_place_of_all(tmp_path: Path, form: str) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    tokenizer = HuggingFaceBackend().load(saved(tmp_path / "one", form)).with_chat_template("own")
    tokenizer.save(tmp_path / "two")
    assert tokenizer.chat_templates == theirs(tmp_path / "two") == {"default": "own"}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("tools", [(), (TOOL,)])
@pytest.mark.parametrize("name", [None, "rag", "tool_use", "default"])
def test_the_choice_is_that_of_get_chat_template(tmp_path: Path, form: str, tools: Any, name: str | None) -> None:
    tokenizer = HuggingFaceBackend().load(saved(tmp_path, form))
    other = AutoTokenizer.from_pretrained(tmp_path)
    if name is not None and name not in tokenizer.chat_templates:
        with pytest.raises(ModelError, match=f"no chat template called '{name}'") as caught:
            chat_template_of(tokenizer, options=ChatOptions(template=name))
        assert "Known: default" in caught.value.hint
        return
    encoder = Encoder(tokenizer, chat_template_of(tokenizer, options=ChatOptions(template=name)), 4096)
    record = Conversation(TURNS, "here", tools=tools)
    turns = [{"role": message.role, "content": message.content} for message in TURNS]
    given: dict[str, Any] = {"tools": list(tools) or None, "return_dict": False}
    if isinstance(other.chat_template, dict):
        given["chat_template"] = name
    [example] = encoder.encode(record).examples
    assert example.ids.tolist() == other.apply_chat_template(turns, **given)
    asked = other.apply_chat_template(turns[:1], add_generation_prompt=True, **given)
    assert example.ids[: example.prompt_length].tolist() == asked == prompt_in_use(encoder, record)


def test_which_templates_there_are_is_part_of_what_tokens_depend_on(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    forms = (("one", "list"), ("two", "one file"))
    several, one = (HuggingFaceBackend().load(saved(tmp_path / name, form)) for name, form in forms)
    named = chat_template_of(several, options=ChatOptions(template="rag"))
    found = [chat_template_of(several), chat_template_of(one), named]
    assert len({template.fingerprint for template in found if template}) == 3
