"""Figures about a tokenizer on a corpus are what counting by hand gives."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from graftkit.flow.base_files.find_tokenizer import find_tokenizer
from graftkit.interfaces.tokenizer import Tokenizer
from graftkit.testing import isolated_host, tiny_tokenizer_files
from graftkit.vocabulary.compare import compare_on, unreachable_tokens
from graftkit.vocabulary.measure import batches, measure


def tokenizer_of(folder: Path, change: object = None) -> Tokenizer:
    folder.mkdir(exist_ok=True)
    for name, data in tiny_tokenizer_files().items():
        (folder / name).write_bytes(data)
    if callable(change):
        spec = json.loads((folder / "tokenizer.json").read_bytes())
        change(spec)
        (folder / "tokenizer.json").write_text(json.dumps(spec))
    return find_tokenizer(isolated_host(), str(folder)).tokenizer


def without_e_acute_bytes(spec: dict[str, dict[str, dict[str, int]]]) -> None:
    vocab = spec["model"]["vocab"]
    vocab["unused"] = vocab.pop("Ã")


def test_bytes_tokens_and_ids_are_counted(tmp_path: Path) -> None:
    found = measure(tokenizer_of(tmp_path / "t"), ["aab", "é", "<|im_end|>"])
    assert (found.bytes, found.tokens, found.bytes_per_token, dict(found.lost)) == (15, 15, 1.0, {})
    assert sum(found.counts.values()) == 15 and len(found.counts) == len({*"aab<|im_end|>", 0xC3, 0xA9})


def test_characters_that_do_not_come_back_are_named(tmp_path: Path) -> None:
    found = measure(tokenizer_of(tmp_path / "t", without_e_acute_bytes), ["éaé", "àb", "漢"])
    assert dict(found.lost) == {"é": 2, "à": 1} and (found.texts, found.whole) == (3, 1)


def one_space(spec: dict[str, object]) -> None:
    spec["normalizer"] = {"type": "Replace", "pattern": {"Regex": " +"}, "content": " "}


def test_a_text_that_loses_no_character_may_still_not_come_back(tmp_path: Path) -> None:
    found = measure(tokenizer_of(tmp_path / "t", one_space), ["a b", "a  b"])
    assert (found.texts, found.whole, dict(found.lost)) == (2, 1, {})


def test_no_text_is_no_token(tmp_path: Path) -> None:
    found = measure(tokenizer_of(tmp_path / "t"), [])
    assert (found.bytes, found.tokens, found.bytes_per_token) == (0, 0, 0.0)


def test_batches_are_the_texts(tmp_path: Path) -> None:
    texts = ["x" * 700_000, "y", "z" * 800_000, "w"]
    assert [len(batch) for batch in batches(texts)] == [3, 1] and [t for b in batches(texts) for t in b] == texts


def dead_token(spec: dict[str, dict[str, dict[str, int]]]) -> None:
    spec["model"]["vocab"]["xyz"] = 256
    for number, token in enumerate(spec["added_tokens"]):  # type: ignore[arg-type]
        token["id"] = 257 + number  # type: ignore[index]


def test_a_token_that_no_text_becomes_is_found(tmp_path: Path) -> None:
    tokenizer = tokenizer_of(tmp_path / "t", dead_token)
    assert tokenizer.token_bytes(256) == b"xyz" and unreachable_tokens(tokenizer) == [256]
    assert compare_on(tokenizer, ["abc"]).to_json()["unreachable_ids"] == 1


@pytest.mark.real_model
def test_a_real_tokenizer_has_no_dead_weight(smollm2: str) -> None:
    found = compare_on(find_tokenizer(isolated_host(), smollm2).tokenizer, ["Hello, world\n", "naïve 漢字\x04\n"])
    assert found.unreachable == 0 and found.ids == 49152 and not found.declared_lossless
    assert set(found.measured.lost) == {"\x04"} and set(found.scripts) >= {"Latin", "Han", "punctuation"}
