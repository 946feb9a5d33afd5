"""A tokenizer's chat template is in one of two files, and another one takes its place there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from graftkit import Tokenizer
from graftkit.interfaces.vocabulary import TrainingSpec
from graftkit.testing import tiny_tokenizer_files
from graftkit_sentencepiece.backend import SentencePieceBackend
from graftkit_tokenizers.huggingface import HuggingFaceBackend
from transformers import AutoTokenizer

NEW = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}é\n{% endfor %}"
TURNS = [{"role": "user", "content": "hi"}]
NAMED = [{"name": "default", "template": "old"}, {"name": "tool_use", "template": "old too"}]
SPEC = TrainingSpec(280, ("<unk>", "<s>", "</s>"), {"unk": "<unk>", "bos": "<s>", "eos": "</s>"})
FORMS = {
    "in the configuration": ("old", None),
    "in a file of its own": (None, "old"),
    "in both": ("old", "older"),
    "several by name": (NAMED, None),
    "nowhere": (None, None),
}


@pytest.fixture(scope="module")
def trained() -> dict[str, bytes]:
    """The files of a SentencePiece model that was learnt."""
    model = SentencePieceBackend().train(["say hi", "hello world"] * 5, SPEC)
    return {"tokenizer.model": model.files.model, **model.files.beside}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("family", ["tokenizer.json", "sentencepiece"])
def test_transformers_reads_the_new_one_and_no_other(
    tmp_path: Path, trained: dict[str, bytes], family: str, form: str
) -> None:
    files = tiny_tokenizer_files() if family == "tokenizer.json" else dict(trained)
    loaded = put(files, *FORMS[form], tmp_path, family)
    saved = tmp_path / "saved"
    saved.mkdir()

    loaded.with_chat_template(NEW).save(saved)

    theirs = AutoTokenizer.from_pretrained(saved)
    assert theirs.apply_chat_template(TURNS, tokenize=False) == "user: hié\n"
    text = "".join(path.read_text() for path in saved.iterdir() if path.suffix in (".jinja", ".json"))
    assert "old" not in text, "the template of before is nowhere"
    in_config = "chat_template" in json.loads((saved / "tokenizer_config.json").read_text())
    assert in_config == (form in ("in the configuration", "several by name"))
    assert (saved / "chat_template.jinja").exists() is not in_config


def put(files: dict[str, bytes], in_config: Any, in_file: str | None, folder: Path, family: str) -> Tokenizer:
    """Loads a tokenizer whose template is in these places alone."""
    config = json.loads(files["tokenizer_config.json"])
    config.pop("chat_template", None)
    config |= {} if in_config is None else {"chat_template": in_config}
    files["tokenizer_config.json"] = json.dumps(config).encode()
    if in_file is not None:
        files["chat_template.jinja"] = in_file.encode()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    backend = HuggingFaceBackend() if family == "tokenizer.json" else SentencePieceBackend()
    return backend.load(folder)


@pytest.mark.parametrize("blank", ["", " \n"])
def test_a_blank_one_is_none(tmp_path: Path, blank: str) -> None:
    assert put(tiny_tokenizer_files(), None, blank, tmp_path, "tokenizer.json").chat_template is None
