"""GGUF files as llama.cpp loads them: a tiny llama, any tiny model, and one narrow layer around a tokenizer."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from graftkit.testing.tiny import TINY_CONFIG, tiny_tokenizer_files
from graftkit_gguf.architectures import complete_config
from graftkit_gguf.families import architecture_of
from graftkit_gguf.file_writer import write_gguf
from graftkit_gguf.model_tensors import stored_tensors
from graftkit_gguf.stored_types import StoredTypes
from graftkit_gguf.tokenizer_metadata import tokenizer_metadata
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

__all__ = ["fused", "tiny_llama", "write_llama", "write_model", "write_narrow"]

_NARROW = {
    "llama.block_count": 1,
    "llama.context_length": 64,
    "llama.embedding_length": 32,
    "llama.feed_forward_length": 32,
    "llama.attention.head_count": 1,
    "llama.rope.dimension_count": 32,
    "llama.attention.layer_norm_rms_epsilon": 1e-5,
}


def fused(tensors: Iterable[Any]) -> list[Any]:
    """Returns tensors for `write_gguf` with queries, keys and values, in this order, as one of each layer."""
    found: dict[str, Any] = {}
    for name, shape, type_, data in tensors:
        whole = re.sub(r"attn_[qkv]\.", "attn_qkv.", name)
        before = found.get(whole, ((0,), type_, data[:0]))
        found[whole] = ((before[0][0] + shape[0], *shape[1:]), type_, np.concatenate([before[2], data]))
    return [(name, *rest) for name, rest in found.items()]


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


def tiny_llama(**settings: Any) -> LlamaForCausalLM:
    """Makes a llama whose every weight is random.

    Args:
        settings: What differs from `TINY_CONFIG`.
    """
    torch.manual_seed(0)
    config = {
        key: value for key, value in (TINY_CONFIG | settings).items() if key not in ("architectures", "model_type")
    }
    model = LlamaForCausalLM(LlamaConfig(**config)).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, mean=1 if parameter.ndim == 1 else 0, std=0.1)
    return model.requires_grad_(False)


def write_llama(
    path: Path,
    types: StoredTypes,
    config: Mapping[str, Any] | None = None,
    state: Mapping[str, torch.Tensor] | None = None,
) -> Path:
    """Writes a model with the tiny tokenizer and a chat template.

    Args:
        path: The file.
        types: What tensors are stored in.
        config: Its config.json; `tiny_llama`'s if left out.
        state: Its tensors by transformers' names, likewise.
    """
    if config is None or state is None:
        model = tiny_llama()
        config, state = config or model.config.to_dict(), state or dict(model.named_parameters())
    files = tiny_tokenizer_files()
    (path.parent / "tokenizer.json").write_bytes(files["tokenizer.json"])
    roles = {"bos": 257, "eos": 258, "unk": None, "pad": 256}
    metadata = architecture_of(config).metadata(complete_config(config))
    metadata |= tokenizer_metadata(path.parent, config["vocab_size"], roles, (False, False), [258])
    metadata["tokenizer.chat_template"] = json.loads(files["tokenizer_config.json"])["chat_template"]
    write_gguf(path, metadata, stored_tensors(config, ((name, value.detach()) for name, value in state.items()), types))
    return path


def write_model(path: Path, folder: Path, type_: str) -> Path:
    """Writes a tiny model's folder, with its byte-level tokenizer, as a GGUF file.

    Args:
        path: The file.
        folder: The model, as transformers loads it.
        type_: What matrices are stored as.
    """
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, trust_remote_code=False)
    return write_llama(path, StoredTypes(type_), config, dict(model.named_parameters()))
