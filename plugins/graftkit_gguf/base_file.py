"""The base model of an adapter as a GGUF file, for the proof: the one that was trained on, and the user's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from graftkit.tokenization.byte_alphabet import byte_alphabet

from graftkit_gguf.architectures import complete_config
from graftkit_gguf.families import architecture_of
from graftkit_gguf.file_writer import write_gguf
from graftkit_gguf.header import GgufHeader
from graftkit_gguf.model_tensors import stored_tensors
from graftkit_gguf.stored_types import StoredTypes
from graftkit_gguf.vocabulary_keys import NORMAL, UNUSED
from graftkit_gguf.weights import read_numbers

__all__ = ["same_weights", "write_base"]


def write_base(model: Any, path: Path) -> None:
    """Writes a plain `transformers` model in float32, with a vocabulary of bytes: what runs it gives token ids.

    Args:
        model: As `ProofRequest.base` makes it.
        path: The file to write.

    Raises:
        ModelError: The architecture has no form in GGUF.
    """
    config = model.config.to_dict()
    metadata = architecture_of(config).metadata(complete_config(config)) | _vocabulary(config["vocab_size"])
    tensors = ((name, parameter.detach()) for name, parameter in model.named_parameters())
    write_gguf(path, metadata, stored_tensors(config, tensors, StoredTypes("f32")))


def _vocabulary(rows: int) -> dict[str, Any]:
    """Returns a tokenizer of a token a row: those of bytes, as far as there are rows, and unused ones."""
    alphabet = [*byte_alphabet()][:rows]
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": alphabet + [f"[PAD{id}]" for id in range(len(alphabet), rows)],
        "tokenizer.ggml.token_type": [NORMAL] * len(alphabet) + [UNUSED] * (rows - len(alphabet)),
        "tokenizer.ggml.merges": [],
        "tokenizer.ggml.add_bos_token": False,
    }


def same_weights(trained: GgufHeader, file: GgufHeader) -> bool:
    """Tells whether a file's weights are, dequantized, those that were trained on, number by number.

    Args:
        trained: What `write_base` wrote.
        file: The base model's own file.

    Raises:
        ModelError: A file ends early.
    """
    if trained.tensors.keys() != file.tensors.keys():
        return False
    shapes = [{name: tensor.shape for name, tensor in header.tensors.items()} for header in (trained, file)]
    return shapes[0] == shapes[1] and all(_same(trained, file, name) for name in trained.tensors)


def _same(trained: GgufHeader, file: GgufHeader, name: str) -> bool:
    pairs = zip(read_numbers(trained, trained.tensors[name]), read_numbers(file, file.tensors[name]), strict=True)
    return all(torch.equal(ours, theirs) for ours, theirs in pairs)
