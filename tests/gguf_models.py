"""GGUF files as llama.cpp loads them: a model of one narrow layer around a tokenizer, and any tiny model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from graftkit_gguf.architectures import complete_config
from graftkit_gguf.families import architecture_of
from graftkit_gguf.file_writer import write_gguf
from graftkit_gguf.model_exporter import stored_tensors
from graftkit_gguf.tokenizer_metadata import tokenizer_metadata
from safetensors.torch import load_file

__all__ = ["write_model", "write_narrow"]

_NARROW = {
    "llama.block_count": 1,
    "llama.context_length": 64,
    "llama.embedding_length": 32,
    "llama.feed_forward_length": 32,
    "llama.attention.head_count": 1,
    "llama.rope.dimension_count": 32,
    "llama.attention.layer_norm_rms_epsilon": 1e-5,
}


def write_narrow(path: Path, tokenizer: dict[str, Any]) -> Path:
    """Writes such a model.

    Args:
        path: The file.
        tokenizer: The metadata of the tokenizer.
    """
    rows = len(tokenizer["tokenizer.ggml.tokens"])
    sizes = {"token_embd": (rows, 32), "output_norm": (32,), "blk.0.attn_norm": (32,), "blk.0.ffn_norm": (32,)}
    layers = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
    sizes |= {f"blk.0.{name}": (32, 32) for name in layers}
    zeros = ((f"{name}.weight", size, "f32", np.zeros(size, np.float32)) for name, size in sizes.items())
    write_gguf(path, {"general.architecture": "llama", **_NARROW, **tokenizer}, zeros)
    return path


def write_model(path: Path, folder: Path, type_: str) -> Path:
    """Writes a tiny model's folder, with its byte-level tokenizer, as a GGUF file.

    Args:
        path: The file.
        folder: The model: config.json, one file of weights, tokenizer.json.
        type_: What matrices are stored as.
    """
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    roles = {"bos": 257, "eos": 258, "unk": None, "pad": 256}
    metadata = architecture_of(config).metadata(complete_config(config))
    tokenizer = tokenizer_metadata(folder, config["vocab_size"], roles, (False, False), [258])
    tensors = load_file(folder / "model.safetensors").items()
    write_gguf(path, metadata | tokenizer, stored_tensors(config, tensors, type_))
    return path
