"""A large vocabulary is parsed and built once, whatever is asked of its tokenizer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from graftkit.testing import tiny_tokenizer_files
from graftkit_tokenizers.huggingface import HuggingFaceBackend, HuggingFaceTokenizer
from graftkit_tokenizers.tokenizer_json import tokenizer as module
from tokenizer_texts import comparison_texts

FURTHER: list[dict[str, Any]] = [
    {"content": "<x>", "special": True},
    {"content": "yy", "special": False, "normalized": True},
    {"content": " Z ", "special": True, "lstrip": True, "rstrip": True},
    {"content": "word", "special": False, "single_word": True},
]
PLAIN = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}


def spec_of(normalizer: dict[str, Any] | None) -> dict[str, Any]:
    """Returns a tokenizer.json whose added tokens are no pieces of its model, as Llama 3's and Qwen's are."""
    spec = json.loads(tiny_tokenizer_files()["tokenizer.json"])
    own = [token["content"] for token in spec["added_tokens"]]
    pieces = [piece for piece, _ in sorted(spec["model"]["vocab"].items(), key=lambda item: item[1])]
    spec["model"]["vocab"] = {piece: id for id, piece in enumerate(piece for piece in pieces if piece not in own)}
    tokens = [*spec["added_tokens"], *({**PLAIN, **token} for token in FURTHER)]
    spec["added_tokens"] = [{**token, "id": len(spec["model"]["vocab"]) + n} for n, token in enumerate(tokens)]
    return {**spec, "normalizer": normalizer}


@pytest.mark.parametrize("keep", [frozenset(), frozenset({"<x>"})])
@pytest.mark.parametrize("normalizer", [None, {"type": "Lowercase"}])
def test_a_tokenizer_on_the_shared_vocabulary_is_the_one_that_the_library_reads_from_the_file(
    normalizer: dict[str, Any] | None, keep: frozenset[str]
) -> None:
    tokenizer = HuggingFaceTokenizer({"tokenizer.json": json.dumps(spec_of(normalizer)).encode()})
    hidden = module._hidden(tokenizer._flagged, keep)
    assert module._are_no_pieces(hidden, tokenizer._flagged["model"])
    ours, theirs = tokenizer._with_renamed(hidden), tokenizer._rebuilt_with_renamed(hidden)
    assert ours.get_vocab(with_added_tokens=True) == theirs.get_vocab(with_added_tokens=True)
    added = [f"{token['content']} hi {token['content']}" for token in tokenizer._flagged["added_tokens"]]
    for text in [*comparison_texts(), *added, "a<x>b", "yyYYy yy word Word words  Z  z <x>"]:
        ids = ours.encode(text, add_special_tokens=False).ids
        assert ids == theirs.encode(text, add_special_tokens=False).ids
        assert ours.decode(ids, skip_special_tokens=False) == theirs.decode(ids, skip_special_tokens=False)


@pytest.mark.parametrize("form", ["tokenizer.json", "vocab.json"])
def test_a_vocabulary_is_parsed_once_and_built_once(form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = spec_of(None)
    spec["added_tokens"] = spec["added_tokens"][:1]
    if form == "tokenizer.json":
        (tmp_path / form).write_text(json.dumps(spec))
    else:
        merges = (pair if isinstance(pair, str) else " ".join(pair) for pair in spec["model"]["merges"])
        (tmp_path / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n", encoding="utf-8")
        (tmp_path / form).write_text(json.dumps(spec["model"]["vocab"]), encoding="utf-8")
        config = {"tokenizer_class": "GPT2Tokenizer", "eos_token": "!"}
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    built, parsed = [], []
    build, read = HuggingFaceTokenizer._build, module.object_in
    monkeypatch.setattr(HuggingFaceTokenizer, "_build", lambda self, spec: built.append(spec) or build(self, spec))
    monkeypatch.setattr(module, "object_in", lambda files, name, where: parsed.append(name) or read(files, name, where))
    tokenizer = HuggingFaceBackend().load(tmp_path).with_chat_template("{{ messages }}")
    assert tokenizer.chat_template == "{{ messages }}" and tokenizer.encode("hello") and tokenizer.vocab_size
    large = [spec for spec in built if spec["model"]["vocab"]]
    pieces = {*tokenizer.special_tokens} & spec["model"]["vocab"].keys()
    assert len(large) == (2 if pieces else 1)  # where a special token is a piece, that has to have another name
    assert parsed.count("tokenizer.json") == (form == "tokenizer.json")
