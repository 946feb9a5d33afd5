"""Tiny models of every supported shape and their tokenizer, made from nothing, for tests that must be quick."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["LEFT_OUT", "TINY_CONFIG", "TINY_SHAPES", "tiny_model_folder", "tiny_tokenizer_files"]

TINY_CONFIG: Mapping[str, Any] = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": 320,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": True,
    "initializer_range": 0.15,  # wide enough for the logits to differ by more than rounding
    "bos_token_id": 257,
    "eos_token_id": 258,
}
"""A llama of two layers and 0.1 million weights."""

LEFT_OUT: Any = object()
"""In a shape, the value of a key of `TINY_CONFIG` that the architecture does not take."""

TINY_SHAPES: Mapping[str, Mapping[str, Any]] = {
    "llama": {},
    "llama-untied": {"tie_word_embeddings": False},
    "llama-biased": {"attention_bias": True, "mlp_bias": True},
    "mistral": {"model_type": "mistral", "architectures": ["MistralForCausalLM"], "sliding_window": None},
    "qwen2": {"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"]},
    "qwen3": {"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"]},
}
"""Models of each supported shape by name, as what differs from `TINY_CONFIG`: `tiny_model_folder(path, **shape)`."""

_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' "
    "+ '\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def tiny_tokenizer_files() -> dict[str, bytes]:
    """Returns the files of a byte-level tokenizer of 256 bytes and three special tokens, with a chat template."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {character: id for id, character in enumerate(alphabet)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(
        [AddedToken(text, special=True) for text in ("<|endoftext|>", "<|im_start|>", "<|im_end|>")]
    )
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|im_start|>",
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "add_bos_token": False,
        "chat_template": _TEMPLATE,
    }
    return {
        "tokenizer.json": tokenizer.to_str(pretty=True).encode(),
        "tokenizer_config.json": (json.dumps(config, indent=2) + "\n").encode(),
    }


def tiny_model_folder(folder: Path, *, seed: int = 0, shards: int = 1, **config: Any) -> Path:
    """Writes a model's folder as `transformers` does: config.json, safetensors, tokenizer.

    Args:
        folder: Where; made when missing.
        seed: Of the random weights.
        shards: Into how many weight files, about.
        config: Keys of config.json that differ from `TINY_CONFIG`.
    """
    import torch
    from transformers import CONFIG_MAPPING

    from graftkit.interfaces.architecture import model_class

    settings = {key: value for key, value in {**TINY_CONFIG, **config}.items() if value is not LEFT_OUT}
    built = CONFIG_MAPPING[settings["model_type"]](**settings)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: Any = model_class(built)._from_config(built, dtype=torch.float32)  # type: ignore[union-attr]
    size = sum(tensor.nbytes for tensor in [*model.parameters(), *model.buffers()])
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder, max_shard_size=size if shards == 1 else size // shards)
    for name, data in tiny_tokenizer_files().items():
        (folder / name).write_bytes(data)
    return folder
