"""What is saved is what transformers' AutoTokenizer and plain sentencepiece load with the same ids."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
from graftkit import PluginHost
from graftkit.errors import RequestError
from graftkit.flow.base_files.find_tokenizer import find_tokenizer
from graftkit.interfaces.vocabulary import ExtensionSpec, TrainingSpec
from graftkit.tokenization import bounds
from graftkit_sentencepiece.backend import SentencePieceBackend
from graftkit_sentencepiece.config import SentencePieceConfig
from graftkit_sentencepiece.files import SentencePieceFiles
from graftkit_sentencepiece.tokenizer import SentencePieceTokenizer
from graftkit_tokenizers.huggingface import HuggingFaceBackend
from sentencepiece_models import BOTCHAN, MISTRAL, corpus, loaded, model
from tokenizers import Tokenizer as Backend

SPEC = TrainingSpec(2600, ("<unk>", "<s>", "</s>", "<|user|>"), {"unk": "<unk>", "bos": "<s>", "eos": "</s>"})
TEXTS = (*corpus()[::3], "<s>[INST] hi [/INST] there</s>", "a quux, quuxes", "quux", " quux quux ")


@functools.cache
def _trained(model_type: Any) -> Any:
    return SentencePieceBackend(SentencePieceConfig(model_type=model_type)).train(corpus(), SPEC)


@functools.cache
def _extended(**fields: Any) -> Any:
    return SentencePieceBackend().extend(loaded(MISTRAL), corpus(), ExtensionSpec(40, **fields)).tokenizer


WITH_JSON: dict[str, Callable[[], Any]] = {
    "mistral": lambda: loaded(MISTRAL),
    "mistral extended": _extended,
    "trained bpe": lambda: _trained("bpe"),
}
WITHOUT_JSON: dict[str, Callable[[], Any]] = {
    "botchan": lambda: loaded(BOTCHAN),
    "mistral with words": lambda: _extended(words=("quux",)),
    "trained unigram": lambda: _trained("unigram"),
}


@pytest.mark.parametrize("name", [*WITH_JSON, *WITHOUT_JSON])
def test_autotokenizer_gives_the_same_ids(name: str, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = (WITH_JSON | WITHOUT_JSON)[name]()
    tokenizer.save(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    differing = [
        text for text in TEXTS if theirs.encode(text, add_special_tokens=False) != tokenizer.encode(text, "all")
    ]
    assert differing == []
    for role in ("bos", "eos", "unk"):
        assert getattr(theirs, f"{role}_token_id") == tokenizer.role_token(role)


def test_no_tokenizer_json_is_saved_that_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A SentencePiece model may have more pieces than the model of a tokenizer.json, which would be read first."""
    monkeypatch.setitem(bounds._MOST_ENTRIES, "vocab", 1000)
    tokenizer = SentencePieceBackend().load(model(MISTRAL))
    assert "tokens; 1,000 are allowed" in tokenizer.json_refusal
    tokenizer.save(tmp_path)
    assert not (tmp_path / "tokenizer.json").exists()
    found = find_tokenizer(PluginHost(builtins_only=True), str(tmp_path)).tokenizer
    assert found.fingerprint == tokenizer.fingerprint


@pytest.mark.parametrize("name", WITH_JSON)
def test_the_tokenizer_json_is_the_same_tokenizer(name: str, tmp_path: Path) -> None:
    tokenizer = WITH_JSON[name]()
    tokenizer.save(tmp_path, "huggingface")
    other = HuggingFaceBackend().load(tmp_path)
    assert other.encode_batch(TEXTS) == tokenizer.encode_batch(TEXTS)
    assert other.encode_batch(TEXTS, "all") == tokenizer.encode_batch(TEXTS, "all")
    assert other.special_tokens == tokenizer.special_tokens
    for text in TEXTS[:200]:
        assert other.decode(tokenizer.encode(text)) == tokenizer.decode(tokenizer.encode(text))


@pytest.mark.parametrize("flag", [True, False])
def test_its_flags_say_what_the_tokenizer_json_puts_around_a_text(tmp_path: Path, flag: bool) -> None:
    files, config = loaded(MISTRAL).files, {"add_bos_token": flag, "add_eos_token": True}
    beside = {**files.beside, "tokenizer_config.json": json.dumps(config).encode()}
    SentencePieceTokenizer(SentencePieceFiles(files.model, beside)).save(tmp_path, "huggingface")
    ids = Backend.from_file(str(tmp_path / "tokenizer.json")).encode("a").ids
    written = json.loads((tmp_path / "tokenizer_config.json").read_bytes())
    assert (ids[0] == 1, ids[-1] == 2) == (written["add_bos_token"], written["add_eos_token"]) == (flag, False)


@pytest.mark.parametrize("name", ["botchan", "mistral with words", "trained unigram"])
def test_a_tokenizer_json_that_would_give_other_ids_is_not_written(name: str, tmp_path: Path) -> None:
    tokenizer = WITHOUT_JSON[name]()
    with pytest.raises(RequestError, match="no tokenizer.json gives the ids"):
        tokenizer.save(tmp_path, "huggingface")
    assert list(tmp_path.iterdir()) == []
    tokenizer.save(tmp_path)
    assert not (tmp_path / "tokenizer.json").exists()


def test_plain_sentencepiece_loads_what_was_saved(tmp_path: Path) -> None:
    tokenizer = _extended()
    tokenizer.save(tmp_path)
    library = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "tokenizer.model"))
    assert library.encode(list(TEXTS[:-4])) == tokenizer.encode_batch(TEXTS[:-4])


def test_another_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="can't be saved as 'tiktoken'"):
        loaded(MISTRAL).save(tmp_path, "tiktoken")
