"""A tokenizer is saved in every format that can hold it; what is wrong with a file, or too much for it, is said."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import tiktoken
from graftkit.errors import ModelError, RequestError
from graftkit.interfaces.vocabulary import TrainingSpec
from graftkit.tokenization.splitting import PATTERNS
from graftkit_tokenizers.config import ByteLevelConfig
from graftkit_tokenizers.huggingface import HuggingFaceBackend, HuggingFaceTokenizer
from graftkit_tokenizers.train.byte_level import ByteLevelBackend
from graftkit_tokenizers.train.word import WordBackend
from graftkit_tokenizers.train.wordpiece import WordPieceBackend
from tokenizer_texts import comparison_texts

Make = Callable[..., HuggingFaceTokenizer]
Change = Callable[[dict[str, Any]], object]

ROLES = {"bos": "<s>", "eos": "</s>"}
SPEC = TrainingSpec(600, ("<s>", "</s>"), ROLES, adds_bos=True, chat_template="{{ messages[0]['content'] }}")
BYTES = "".join(f"{base64.b64encode(bytes([byte])).decode()} {byte}\n" for byte in range(256))


@cache
def trained(pattern: str = "gpt2") -> HuggingFaceTokenizer:
    texts = [text for text in comparison_texts() if len(text) < 4096]
    return ByteLevelBackend(ByteLevelConfig(pattern=pattern)).train(texts, SPEC)


def written(folder: Path, **files: str | dict[str, Any]) -> Path:
    for name, text in files.items():
        path = folder / name.replace("__", ".")
        path.write_text(text if isinstance(text, str) else json.dumps(text), encoding="utf-8")
    return folder


@pytest.mark.parametrize("pattern", PATTERNS)
def test_what_was_trained_is_the_same_in_tiktoken(pattern: str, tmp_path: Path) -> None:
    ours = trained(pattern)
    ours.save(tmp_path, "tiktoken")
    said = json.loads((tmp_path / "tokenizer.tiktoken.json").read_bytes())
    lines = (line.split() for line in (tmp_path / "tokenizer.tiktoken").read_bytes().splitlines())
    ranks = {base64.b64decode(token): int(rank) for token, rank in lines}
    theirs = tiktoken.Encoding(
        "", pat_str=said["pattern"], mergeable_ranks=ranks, special_tokens=said["special_tokens"]
    )
    for text in comparison_texts():
        assert theirs.encode_ordinary(text) == ours.encode(text)
    assert theirs.encode("<s>a</s>", allowed_special="all") == ours.encode("<s>a</s>", "all")


@pytest.mark.parametrize("format", ["gpt2", "tiktoken"])
def test_roles_and_chat_template_are_kept_in_every_format(format: str, tmp_path: Path) -> None:
    trained().save(tmp_path, format)
    again = ByteLevelBackend().load(tmp_path)
    assert again.fingerprint == trained().fingerprint
    assert (again.role_token("bos"), again.role_token("eos"), again.adds_bos) == (0, 1, True)
    assert again.chat_template == SPEC.chat_template
    again.save(tmp_path)
    (tmp_path / "moved").mkdir()
    again.save(tmp_path / "moved")
    assert HuggingFaceBackend().load(tmp_path / "moved").fingerprint == trained().fingerprint


def test_a_bos_that_only_the_post_processor_adds_is_kept(make: Make, tmp_path: Path) -> None:
    ours = trained()
    files = {**ours._files, "tokenizer_config.json": b'{"bos_token": "<s>"}'}
    silent = HuggingFaceTokenizer(files)
    assert silent.adds_bos
    silent.save(tmp_path, "tiktoken")
    assert ByteLevelBackend().load(tmp_path).adds_bos


def test_qwen_2_keeps_its_class_and_its_normalizer(tmp_path: Path) -> None:
    folder = written(
        tmp_path,
        vocab__json={character: id for id, character in enumerate("abe\u0301")},
        merges__txt="#version: 0.2\n",
        tokenizer_config__json={"tokenizer_class": "Qwen2Tokenizer"},
    )
    assert HuggingFaceBackend().load(folder).normalize("e\u0301") == "é"


@pytest.mark.parametrize(
    ("format", "family", "change", "reason"),
    [
        ("tiktoken", "byte_level", lambda spec: None, "added tokens that are not special"),
        ("tiktoken", "sentencepiece", lambda spec: None, "split text by one regular expression"),
        ("tiktoken", "word_level", lambda spec: None, "split text by one regular expression"),
        ("gpt2", "sentencepiece", lambda spec: None, "as GPT-2 or Qwen 2 does"),
        ("gpt2", "byte_level", lambda spec: spec.update(normalizer={"type": "Lowercase"}), "its normalizer"),
        ("wordpiece", "byte_level", lambda spec: None, "this is another tokenizer"),
        ("marian", "byte_level", lambda spec: None, "can't be saved as 'marian'"),
    ],
)
def test_what_a_format_cannot_hold_is_refused(
    make: Make, tmp_path: Path, format: str, family: str, change: Change, reason: str
) -> None:
    with pytest.raises(RequestError, match=reason):
        make(family, change).save(tmp_path, format)
    assert not list(tmp_path.iterdir()), "a refusal leaves nothing behind"


def with_piece(spec: dict[str, Any], piece: str) -> None:
    spec["added_tokens"] = []
    spec["model"]["vocab"][piece] = len(spec["model"]["vocab"])


def special_only(spec: dict[str, Any]) -> None:
    spec["added_tokens"] = [token for token in spec["added_tokens"] if token["special"]]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda spec: spec["model"]["merges"].reverse(), "not numbered in the order of its merges"),
        (lambda spec: spec["model"]["merges"].pop(), "by rank b' he' would be merged from"),
        (lambda spec: spec.update(normalizer={"type": "NFC"}), "changes text before it splits it"),
        (lambda spec: spec["model"].update(dropout=0.1), "has a dropout of 0.1"),
        (lambda spec: spec["added_tokens"][0].update(lstrip=True), "strip the space around them"),
        (lambda spec: with_piece(spec, "日"), "no character of a byte"),
        (lambda spec: with_piece(spec, "hxy"), "merging never gives b'hxy'"),
    ],
)
def test_merges_that_ranks_do_not_give_are_refused(make: Make, tmp_path: Path, change: Change, reason: str) -> None:
    def both(spec: dict[str, Any]) -> None:
        special_only(spec)
        change(spec)

    make("byte_level", special_only).save(tmp_path, "tiktoken")
    with pytest.raises(RequestError, match=reason):
        make("byte_level", both).save(tmp_path, "tiktoken")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a__tiktoken": "YQ== 0\nhello\n"}, "line 2 is not a token in base64"),
        ({"a__tiktoken": "YQ== x\n"}, "line 1 is not a token in base64"),
        ({"a__tiktoken": "YQ== 0\n"}, "255 of the 256 bytes"),
        ({"a__tiktoken": " 0\n"}, "line 1 is not a token in base64"),
        ({"a__tiktoken": "YQ== 0\nYQ== 1\n"}, "line 2 has a token that has a rank already"),
        ({"a__tiktoken": BYTES, "a__tiktoken__json": "[]"}, "no JSON object"),
        ({"a__tiktoken": BYTES, "a__tiktoken__json": {"pattern": "gpt2", "special_tokens": ["<s>"]}}, "not ids by"),
        ({"vocab__json": {"a": 0}, "merges__txt": "a b\n"}, "line 1 is not two pieces"),
        ({"vocab__json": {"a": "0"}, "merges__txt": ""}, "no pieces and their ids"),
        ({"vocab__json": "{", "merges__txt": ""}, "no JSON"),
        ({"vocab__json": {"a": 0, "b": 0}, "merges__txt": ""}, "two pieces have one id"),
        (
            {"vocab__json": {"a": 0, "b": 1}, "merges__txt": "", "added_tokens__json": {"<s>": 1}},
            "'<s>' has the id 1, which is that of 'b'",
        ),
        (
            {"vocab__json": {"a": 0}, "merges__txt": "", "tokenizer_config__json": {"tokenizer_class": "CTRL"}},
            "how a CTRL splits",
        ),
        (
            {
                "vocab__json": {"a": 0},
                "merges__txt": "",
                "tokenizer_config__json": {"added_tokens_decoder": {"x": {"content": "<s>"}}},
            },
            "no id and its token",
        ),
        (
            {
                "vocab__json": {"a": 0},
                "merges__txt": "",
                "tokenizer_config__json": {"added_tokens_decoder": {"9" * 5000: {"content": "<s>"}}},
            },
            "no id and its token",
        ),
        ({"tekken__json": {"config": {}, "vocab": []}}, "is no tekken.json"),
        ({"tekken__json": {"config": 3}}, "is no tekken.json"),
        ({}, "there is no tokenizer.json"),
    ],
)
def test_a_malformed_file_is_refused(tmp_path: Path, files: dict[str, Any], message: str) -> None:
    folder = written(tmp_path, **files)
    backend = ByteLevelBackend(ByteLevelConfig(pattern="gpt2") if "a__tiktoken" in files else None)
    with pytest.raises(ModelError, match=message):
        backend.load(folder)
    assert backend.accepts(folder) == bool(files)


def test_a_byte_order_mark_is_no_part_of_the_first_token(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_bytes(b"\xef\xbb\xbf[UNK]\r\na\r\n")
    assert WordPieceBackend().load(tmp_path).special_tokens == {"[UNK]": 0}


def test_a_vocab_txt_needs_its_unknown_token(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no line is \[UNK\]"):
        WordPieceBackend().load(written(tmp_path, vocab__txt="a\nb\n"))


def test_a_backend_refuses_another_familys_tokenizer(make: Make, tmp_path: Path) -> None:
    make("unigram").save(tmp_path)
    for backend in (ByteLevelBackend(), WordPieceBackend(), WordBackend()):
        assert backend.accepts(tmp_path)
        with pytest.raises(ModelError, match="this is a Unigram tokenizer"):
            backend.load(tmp_path)
    assert not HuggingFaceBackend().load(tmp_path).capabilities.trainable
