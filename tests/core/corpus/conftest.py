"""Three tokenizers for every test of encoding: one token a byte, merges across everything, GPT-2's way."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from graftkit import Tokenizer
from graftkit.testing import tiny_tokenizer_files
from graftkit.tokenization.byte_alphabet import byte_alphabet
from graftkit_tokenizers.huggingface import HuggingFaceBackend

MERGED = [
    "\n\n",
    "\n\n\n",
    "user\n",
    "assistant\n",
    "assistant\nH",
    ": ",
    " yes",
    "He",
    "Hello",
    "a b",
    "12",
    "123",
    "🎉",
]


def _saved(folder: Path, files: dict[str, bytes]) -> Tokenizer:
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return HuggingFaceBackend().load(folder)


@pytest.fixture(scope="session")
def bytewise(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """The tiny tokenizer: 256 bytes, three special tokens, ChatML."""
    return _saved(tmp_path_factory.mktemp("bytewise"), tiny_tokenizer_files())


@pytest.fixture(scope="session")
def merging(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """A tokenizer whose merges reach over line ends and words: no pre-tokenizer keeps them apart."""
    return _saved(tmp_path_factory.mktemp("merging"), _with_merges(use_regex=False))


@pytest.fixture(scope="session")
def looking_ahead(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """A tokenizer with GPT-2's pre-tokenizer, which cuts line ends by what follows them."""
    return _saved(tmp_path_factory.mktemp("ahead"), _with_merges(use_regex=True))


def _with_merges(*, use_regex: bool) -> dict[str, bytes]:
    """Adds the pieces of MERGED to the tiny tokenizer, each grown byte by byte from the left."""
    files = tiny_tokenizer_files()
    spec = json.loads(files["tokenizer.json"])
    spec["pre_tokenizer"]["use_regex"] = use_regex
    vocab, merges = spec["model"]["vocab"], spec["model"]["merges"]
    alphabet = {byte: character for character, byte in byte_alphabet().items()}
    for text in MERGED:
        piece = "".join(alphabet[byte] for byte in text.encode())
        for end in range(2, len(piece) + 1):
            if piece[:end] not in vocab:
                vocab[piece[:end]] = len(vocab)
                merges.append([piece[: end - 1], piece[end - 1]])
    for place, token in enumerate(spec["added_tokens"]):
        token["id"] = len(vocab) + place
    return {**files, "tokenizer.json": json.dumps(spec).encode()}
