"""A model of one narrow layer around a tokenizer: llama.cpp loads no less."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from graftkit_gguf.file_writer import write_gguf

__all__ = ["write_narrow"]

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
