"""The built-in model sources keep the contract that everybody's do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from gguf.quants import quantize
from graftkit.testing import TINY_SHAPES, ModelSourceContract, tiny_model_folder
from safetensors.numpy import load_file


class TestHuggingFace(ModelSourceContract):
    provider = "huggingface"


class TestHuggingFaceInShards(ModelSourceContract):
    provider = "huggingface"

    def sample(self, folder: Path) -> str:
        return str(tiny_model_folder(folder / "model", shards=3, tie_word_embeddings=False))


@pytest.mark.parametrize("shape", TINY_SHAPES)
def test_every_tiny_shape_opens_and_loads(shape: str, tmp_path: Path) -> None:
    contract = TestHuggingFace()
    files = contract.open(str(tiny_model_folder(tmp_path / "model", **TINY_SHAPES[shape])))
    contract.test_names_and_shapes_are_those_that_are_read(files)
    contract.test_it_loads_into_the_architecture(files)


LAYER_NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
OUTER_NAMES = {"model.embed_tokens": "token_embd", "model.norm": "output_norm"}


def gguf_name(name: str) -> str:
    path = name.removesuffix(".weight")
    if not path.startswith("model.layers."):
        return f"{OUTER_NAMES[path]}.weight"
    _, _, layer, rest = path.split(".", 3)
    return f"blk.{layer}.{LAYER_NAMES[rest]}.weight"


def neighbouring_pairs(name: str, weight: Any, config: dict[str, Any]) -> Any:
    """llama.cpp rotates neighbouring rows, transformers row i of a head's halves."""
    heads = {"q_proj": "num_attention_heads", "k_proj": "num_key_value_heads"}.get(name.split(".")[-2])
    if heads is None:
        return weight
    halves = weight.reshape(config[heads], 2, -1, weight.shape[1])
    return np.ascontiguousarray(np.stack([halves[:, 0], halves[:, 1]], axis=2).reshape(weight.shape))


def write_tokenizer(writer: gguf.GGUFWriter, spec: dict[str, Any], rows: int) -> None:
    """Writes the tiny tokenizer, one merge, and unused ids up to the embedding's rows."""
    tokens = [*sorted(spec["model"]["vocab"], key=spec["model"]["vocab"].get), "ĠĠ"]
    specials = [token["content"] for token in spec["added_tokens"]]
    unused = [f"<unused{number}>" for number in range(rows - len(tokens) - len(specials))]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([*tokens, *specials, *unused])
    writer.add_token_types([1] * len(tokens) + [3] * len(specials) + [5] * len(unused))
    writer.add_array("tokenizer.ggml.merges", ["Ġ Ġ"])
    writer.add_bos_token_id(len(tokens) + specials.index("<|im_start|>"))
    writer.add_eos_token_id(len(tokens) + specials.index("<|im_end|>"))


def write_keys(writer: gguf.GGUFWriter, config: dict[str, Any]) -> None:
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_rope_freq_base(10_000.0)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])


class TestGguf(ModelSourceContract):
    """The tiny llama, its matrices in 8 bits."""

    provider = "gguf"
    type = "Q8_0"

    def sample(self, folder: Path) -> str:
        model = tiny_model_folder(folder / "model")
        config = json.loads((model / "config.json").read_text())
        writer = gguf.GGUFWriter(folder / "tiny.gguf", "llama")
        write_keys(writer, config)
        write_tokenizer(writer, json.loads((model / "tokenizer.json").read_text()), config["vocab_size"])
        for name, weight in load_file(model / "model.safetensors").items():
            kind = gguf.GGMLQuantizationType[self.type if weight.ndim > 1 else "F32"]
            stored = quantize(neighbouring_pairs(name, weight, config), kind)
            writer.add_tensor(gguf_name(name), stored, raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return str(folder / "tiny.gguf")


class TestGgufInFourBits(TestGguf):
    type = "Q4_1"


class TestGgufInSixteenBits(TestGguf):
    type = "BF16"
