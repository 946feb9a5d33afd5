"""Small tokenizers of every family that a tokenizer.json can hold."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from graftkit.testing import tiny_tokenizer_files
from graftkit_tokenizers.huggingface import HuggingFaceTokenizer

Spec = dict[str, Any]
Change = Callable[[Spec], object]


def added(id: int, content: str, *, special: bool, **flags: bool) -> Spec:
    """Returns an entry of `added_tokens`."""
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {"id": id, "content": content, **plain, "special": special, **flags}


def byte_level_spec() -> Spec:
    """The tiny tokenizer, with a merge over 🎉 and two added tokens that are not special."""
    spec: Spec = json.loads(tiny_tokenizer_files()["tokenizer.json"])
    vocab, merges = spec["model"]["vocab"], spec["model"]["merges"]
    for left, right in (("ð", "Ł"), ("h", "e"), ("he", "y"), ("Ġ", "he")):
        vocab[left + right] = len(vocab)
        merges.append([left, right])
    texts = {"<|endoftext|>": True, "<|im_start|>": True, "<|im_end|>": True, "<tool_call>": False, "éé": False}
    spec["added_tokens"] = [added(len(vocab) + n, text, special=s) for n, (text, s) in enumerate(texts.items())]
    return spec


def sentencepiece_spec() -> Spec:
    """A BPE of the Llama 2 family: ▁ for spaces, bytes as <0x..>, the special tokens in the vocabulary too."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *"▁abcdehlos<>/", "▁h", "he", "▁he"]
    spec: Spec = json.loads(tiny_tokenizer_files()["tokenizer.json"])
    spec["pre_tokenizer"] = None
    spec["normalizer"] = {
        "type": "Sequence",
        "normalizers": [
            {"type": "Prepend", "prepend": "▁"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        ],
    }
    spec["decoder"] = {
        "type": "Sequence",
        "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
            {"type": "ByteFallback"},
            {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0},
        ],
    }
    spec["model"] |= {"unk_token": "<unk>", "byte_fallback": True, "fuse_unk": True}
    spec["model"]["vocab"] = {piece: id for id, piece in enumerate(pieces)}
    spec["model"]["merges"] = [["▁", "h"], ["h", "e"], ["▁h", "e"]]
    spec["added_tokens"] = [added(id, pieces[id], special=True) for id in range(3)]
    spec["added_tokens"].append(added(len(pieces), "[INST]", special=False))
    return spec


def unigram_spec() -> Spec:
    """A Unigram model whose best-scored pieces are its special tokens, as in T5 and XLM-R."""
    pieces = [["<unk>", 0.0], ["</s>", 0.0], ["▁", -1.0], ["</", -2.5], *([c, -2.0] for c in "abs<>/")]
    spec: Spec = json.loads(tiny_tokenizer_files()["tokenizer.json"])
    metaspace = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
    spec |= {"pre_tokenizer": metaspace, "decoder": metaspace}
    spec["model"] = {"type": "Unigram", "unk_id": 0, "vocab": pieces, "byte_fallback": False}
    spec["added_tokens"] = [added(0, "<unk>", special=True), added(1, "</s>", special=True)]
    return spec


def word_level_spec() -> Spec:
    """Words between spaces, with a special token that looks like a word."""
    spec: Spec = json.loads(tiny_tokenizer_files()["tokenizer.json"])
    spec |= {"pre_tokenizer": {"type": "WhitespaceSplit"}, "decoder": None}
    vocab = {"[UNK]": 0, "[SEP]": 1, "a": 2, "b": 3}
    spec["model"] = {"type": "WordLevel", "vocab": vocab, "unk_token": "[UNK]"}
    spec["added_tokens"] = [added(0, "[UNK]", special=True), added(1, "[SEP]", special=True)]
    return spec


def wordpiece_spec() -> Spec:
    """Pieces of words between spaces, ## inside them."""
    pieces = ["[UNK]", "[SEP]", *"abehlos,!", *(f"##{c}" for c in "abehlos"), "ha", "##he", "##ab"]
    spec: Spec = json.loads(tiny_tokenizer_files()["tokenizer.json"])
    spec |= {
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": False},
    }
    model = {
        "type": "WordPiece",
        "unk_token": "[UNK]",
        "continuing_subword_prefix": "##",
        "max_input_chars_per_word": 100,
    }
    spec["model"] = {**model, "vocab": {piece: id for id, piece in enumerate(pieces)}}
    spec["added_tokens"] = [added(0, "[UNK]", special=True), added(1, "[SEP]", special=True)]
    return spec


SPECS: Mapping[str, Callable[[], Spec]] = {
    "byte_level": byte_level_spec,
    "sentencepiece": sentencepiece_spec,
    "unigram": unigram_spec,
    "word_level": word_level_spec,
    "wordpiece": wordpiece_spec,
}


def built(spec: Spec, **config: object) -> HuggingFaceTokenizer:
    """Makes a tokenizer from a tokenizer.json and the fields of a tokenizer_config.json."""
    files = {"tokenizer.json": json.dumps(spec).encode(), "tokenizer_config.json": json.dumps(config).encode()}
    return HuggingFaceTokenizer(files, "here")


@pytest.fixture(scope="session")
def make() -> Callable[..., HuggingFaceTokenizer]:
    """Makes one of SPECS, changed by a function: make("unigram", lambda spec: ...)."""

    def make(family: str = "byte_level", change: Change | None = None, **config: object) -> HuggingFaceTokenizer:
        spec = SPECS[family]()
        if change is not None:
            change(spec)
        return built(spec, **config)

    return make


@pytest.fixture(scope="session")
def byte_level() -> HuggingFaceTokenizer:
    """Byte-level BPE: GPT-2, Llama 3, Qwen, SmolLM."""
    return built(byte_level_spec())


@pytest.fixture(scope="session", params=list(SPECS))
def tokenizer(request: pytest.FixtureRequest) -> HuggingFaceTokenizer:
    """One of every family."""
    return built(SPECS[request.param]())
