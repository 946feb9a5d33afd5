"""What tests of the flow share."""

from __future__ import annotations

import pytest
from graftkit import Tokenizer
from graftkit.testing import tiny_tokenizer_files
from graftkit_tokenizers.huggingface import HuggingFaceBackend


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """The tiny tokenizer: 256 bytes, three special tokens, ChatML."""
    folder = tmp_path_factory.mktemp("tokenizer")
    for name, content in tiny_tokenizer_files().items():
        (folder / name).write_bytes(content)
    return HuggingFaceBackend().load(folder)
