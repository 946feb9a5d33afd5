"""Models of the llama architecture in GGUF: what `transformers` computes, and what is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import gguf
import graftkit
import numpy as np
import pytest
import torch
from gguf.quants import dequantize, quantize
from graftkit import PluginHost, StoredWeight
from graftkit.errors import DataError, ModelError
from graftkit.flow.base_files.find_tokenizer import find_tokenizer
from graftkit.flow.base_files.open_model import check_fits
from graftkit.interfaces.model_source import BaseModelFiles
from graftkit.tokenization.byte_alphabet import byte_alphabet
from graftkit_gguf.header import read_header
from graftkit_gguf.source import GgufFile, GgufSource
from graftkit_gguf.tensor_types import GGML_TYPES, READABLE_TYPES, GgmlType
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaForCausalLM

Change = Callable[[gguf.GGUFWriter], None]
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


def tiny_llama(**changes: object) -> LlamaForCausalLM:
    shape = {
        "vocab_size": 50,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 128,
        "rms_norm_eps": 1e-5,
        "rope_parameters": {"rope_type": "default", "rope_theta": 50_000.0},
        "tie_word_embeddings": True,
    }
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**(shape | changes))).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def dense(found: torch.Tensor | StoredWeight) -> torch.Tensor:
    return found.dequantize() if isinstance(found, StoredWeight) else found.float()


def file_name(name: str) -> str:
    if name.startswith("model.layers."):
        _, _, layer, path = name.removesuffix(".weight").split(".", 3)
        return f"blk.{layer}.{LAYER_NAMES[path]}.weight"
    outer = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
    return f"{outer[name.removesuffix('.weight')]}.weight"


def neighbouring_pairs(weight: np.ndarray, heads: int) -> np.ndarray:
    """Row i of a head's first half and row i of its second half become neighbours."""
    halves = weight.reshape(heads, 2, -1, weight.shape[1])
    return np.stack([halves[:, 0], halves[:, 1]], axis=2).reshape(weight.shape)


def stored(name: str, weight: torch.Tensor, config: LlamaConfig) -> np.ndarray:
    values = weight.detach().numpy()
    if "q_proj" in name:
        return neighbouring_pairs(values, config.num_attention_heads)
    return neighbouring_pairs(values, config.num_key_value_heads) if "k_proj" in name else values


def write_keys(writer: gguf.GGUFWriter, config: LlamaConfig) -> None:
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)


def write(
    path: Path,
    model: LlamaForCausalLM,
    *changes: Change,
    type_: str = "F32",
    architecture: str = "llama",
    without: str = "",
) -> Path:
    """Writes a model the way llama.cpp expects it."""
    writer = gguf.GGUFWriter(path, architecture)
    write_keys(writer, model.config)
    tied = {"lm_head.weight"} if model.config.tie_word_embeddings else set()
    for name, weight in model.state_dict().items():
        if name not in tied and file_name(name) != without:
            kind = gguf.GGMLQuantizationType[type_ if weight.ndim > 1 else "F32"]
            writer.add_tensor(file_name(name), quantize(stored(name, weight, model.config), kind), raw_dtype=kind)
    for change in changes:
        change(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tiny.gguf"


VARIANTS: dict[str, dict[str, object]] = {
    "tied": {},
    "untied": {"tie_word_embeddings": False},
    "one group a head": {"num_key_value_heads": 4},
    "wide heads": {"head_dim": 32},
    "one group": {"num_key_value_heads": 1, "rms_norm_eps": 1e-6},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_model_comes_back_with_the_same_logits(path: Path, variant: str) -> None:
    model = tiny_llama(**VARIANTS[variant])
    files = GgufSource().open(str(write(path, model)))
    again = LlamaForCausalLM(LlamaConfig(**files.config)).eval()
    left_out = again.load_state_dict(dict(files.read()), strict=False)
    assert left_out.unexpected_keys == []
    assert left_out.missing_keys == (["lm_head.weight"] if model.config.tie_word_embeddings else [])
    ids = torch.arange(40).reshape(2, 20)
    with torch.no_grad():
        assert torch.equal(again(ids).logits, model(ids).logits)


def test_the_configuration_is_the_one_that_was_written(path: Path) -> None:
    model = tiny_llama(head_dim=32, tie_word_embeddings=False)
    config = GgufSource().open(str(write(path, model))).config
    again, written = LlamaConfig(**config).to_dict(), model.config.to_dict()
    assert {key for key in written if again[key] != written[key]} == {
        "architectures",  # unset until a model is saved
        "bos_token_id",
        "eos_token_id",
    }
    assert (config["rms_norm_eps"], config["bos_token_id"]) == (1e-5, None)


@pytest.mark.parametrize("type_", ["F16", "BF16", "Q8_0", "Q4_0", "Q5_1"])
def test_every_type_equals_the_reference_dequantization(path: Path, type_: str) -> None:
    files = GgufSource().open(str(write(path, tiny_llama(), type_=type_)))
    weights = {file_name(name): dense(weight).numpy() for name, weight in files.read()}
    for tensor in gguf.GGUFReader(path).tensors:
        expected = dequantize(tensor.data, tensor.tensor_type).reshape(tuple(tensor.shape)[::-1])
        heads = {"attn_q": 4, "attn_k": 2}.get(tensor.name.split(".")[-2], 0)
        got = weights[tensor.name]
        assert got.dtype == np.float32
        np.testing.assert_array_equal(neighbouring_pairs(got, heads) if heads else got, expected)


def test_blocks_are_given_byte_for_byte(path: Path) -> None:
    """Rows of q and k are put in another order, whole rows of blocks of them."""
    files = GgufSource().open(str(write(path, tiny_llama(), type_="Q5_1")))
    found = {tensor.name: np.array(tensor.data) for tensor in gguf.GGUFReader(path).tensors}
    for name, heads in (("q", 4), ("k", 2), ("v", 0)):
        stored_ = files.tensor(f"model.layers.1.self_attn.{name}_proj.weight")
        assert isinstance(stored_, StoredWeight) and stored_.kind == "Q5_1"
        blocks = stored_.tensors["blocks"].numpy()
        rows = neighbouring_pairs(blocks, heads) if heads else blocks
        np.testing.assert_array_equal(rows, found[f"blk.1.attn_{name}.weight"])


def test_facts_are_those_of_the_file(path: Path) -> None:
    files: BaseModelFiles = GgufSource().open(str(write(path, tiny_llama(), type_="Q8_0")))
    assert files.reference == str(path)
    assert files.files == (path,)
    assert files.tokenizer_backend == "huggingface"
    assert files.tensors["model.layers.1.mlp.down_proj.weight"].shape == (64, 96)
    assert files.tensors["model.layers.1.mlp.down_proj.weight"].dtype == "Q8_0"
    assert files.tensors["model.norm.weight"].dtype == "F32"
    assert [(name, tuple(weight.shape)) for name, weight in files.read()] == [
        (name, info.shape) for name, info in files.tensors.items()
    ]


def key(name: str, value: object) -> Change:
    kinds = {bool: "bool", str: "string", int: "uint32", float: "float32", list: "array"}
    return lambda writer: getattr(writer, f"add_{kinds[type(value)]}")(name, value)


def tensor(name: str, *shape: int, dtype: type = np.float32) -> Change:
    return lambda writer: writer.add_tensor(name, np.ones(shape, dtype))


def changed(name: str, value: object) -> Change:
    def change(writer: gguf.GGUFWriter) -> None:
        del writer.kv_data[0][name]
        if value is not None:
            key(name, value)(writer)

    return change


REFUSED: dict[str, Change] = {
    "'llama.rope.scaling.type' is 'longrope'": key("llama.rope.scaling.type", "longrope"),
    "no llama.rope.scaling.factor": key("llama.rope.scaling.type", "linear"),
    "'llama.rope.scaling.factor' is 8.0": key("llama.rope.scaling.factor", 8.0),
    "no llama.expert_used_count": key("llama.expert_count", 8),
    "'llama.expert_shared_count' is 8": key("llama.expert_shared_count", 8),
    "'llama.attention.sliding_window' is 512": key("llama.attention.sliding_window", 512),
    "'llama.attention.causal' is False": key("llama.attention.causal", False),
    "'llama.\\x1b[2J' is 1": key("llama.\x1b[2J", 1),
    "padding_token_id is 50, but token_embd.weight has 50 rows": key("tokenizer.ggml.padding_token_id", 50),
    "llama.rope.dimension_count is 8": changed("llama.rope.dimension_count", 8),
    "llama.attention.value_length is 8": changed("llama.attention.value_length", 8),
    "llama.attention.head_count is an array of 2": changed("llama.attention.head_count", [4, 4]),
    "llama.attention.head_count is 0": changed("llama.attention.head_count", 0),
    "3 heads and 2 of keys": changed("llama.attention.head_count", 3),
    "no llama.block_count": changed("llama.block_count", None),
    "'blk.2.attn_norm.weight' is missing": changed("llama.block_count", 2_000_000_000),
    "no place for: 'blk.1.attn_k.weight', 'blk.1.attn_norm.weight', 'blk.1.attn_output.weight' and 6 more": changed(
        "llama.block_count", 1
    ),
    "'token_embd.weight' has the shape [50, 64]": changed("llama.embedding_length", 128),
    "epsilon is nan": changed("llama.attention.layer_norm_rms_epsilon", float("nan")),
    "freq_base is -1.0": changed("llama.rope.freq_base", -1.0),
    "GGUF 'adapter', not a model": key("general.type", "adapter"),
    "one of several files": key("split.count", 2),
    "'rope_freqs.weight' scales frequencies in a way that is not supported": lambda writer: writer.add_tensor(
        "rope_freqs.weight", np.linspace(1, 3, 8, dtype=np.float32)
    ),
    "'rope_freqs.weight' has the shape [9]": tensor("rope_freqs.weight", 9),
    "'blk.0.attn_k.bias' is missing": tensor("blk.0.attn_q.bias", 64),
    "no place for: 'blk.0.attn_q_norm.weight'": tensor("blk.0.attn_q_norm.weight", 16),
    "'output.weight' is of the type I32": tensor("output.weight", 50, 64, dtype=np.int32),
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_is_not_supported_is_refused_by_name(path: Path, message: str) -> None:
    write(path, tiny_llama(), REFUSED[message])
    with pytest.raises(ModelError) as caught:
        GgufSource().open(str(path))
    assert message in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize("type_", [type_ for type_ in GGML_TYPES.values() if type_.name not in READABLE_TYPES])
def test_a_type_that_can_not_be_dequantized_is_refused_with_what_to_do(
    type_: GgmlType, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(path, tiny_llama())
    header = read_header(path)
    name = "blk.1.ffn_up.weight"
    tensors = {**header.tensors, name: replace(header.tensors[name], type=type_)}
    monkeypatch.setattr("graftkit_gguf.source.read_header", lambda path: replace(header, tensors=tensors))
    with pytest.raises(ModelError, match=f"'{name}' is of the type {type_.name}, which can't be read") as caught:
        GgufSource().open(str(path))
    assert caught.value.where == str(path)
    assert caught.value.hint is not None and caught.value.hint.startswith("Quantize the model to another type, or")


def test_another_architecture_is_refused_by_name(path: Path) -> None:
    write(path, tiny_llama(), architecture="rwkv7")
    with pytest.raises(ModelError, match="'rwkv7' is not supported") as caught:
        GgufSource().open(str(path))
    assert "docs/gguf.md" in caught.value.hint


@pytest.mark.parametrize("without", ["token_embd.weight", "output_norm.weight", "blk.1.ffn_up.weight"])
def test_a_missing_tensor_is_named(path: Path, without: str) -> None:
    write(path, tiny_llama(), without=without)
    with pytest.raises(ModelError, match=without):
        GgufSource().open(str(path))


def test_values_that_change_nothing_are_no_obstacle(path: Path) -> None:
    harmless = {
        "llama.rope.scaling.type": "none",
        "llama.rope.scaling.factor": 1.0,
        "llama.rope.scaling.original_context_length": 128,
        "llama.expert_count": 0,
        "llama.attention.causal": True,
    }
    write(path, tiny_llama(), *(key(name, value) for name, value in harmless.items()))
    assert GgufSource().open(str(path)).config["head_dim"] == 16


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_weight_that_is_no_number_is_refused_with_its_tensor(path: Path, value: float) -> None:
    model = tiny_llama()
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[95, 63] = value
    files = GgufSource().open(str(write(path, model)))
    with pytest.raises(ModelError, match=r"'blk\.1\.ffn_up\.weight' holds values that are infinite or no numbers"):
        list(files.read())


def test_weights_whose_sum_overflows_are_still_numbers(path: Path) -> None:
    model = tiny_llama()
    torch.nn.init.constant_(model.model.embed_tokens.weight, 3e38)
    assert dict(GgufSource().open(str(write(path, model))).read())["model.embed_tokens.weight"].min() > 2e38


def test_a_file_that_was_changed_after_its_header_was_read_is_refused(path: Path) -> None:
    files = GgufSource().open(str(write(path, tiny_llama())))
    os.utime(path, ns=(0, 0))
    with pytest.raises(ModelError, match="was changed or replaced after its header was read"):
        next(iter(files.read()))
    path.unlink()
    with pytest.raises(ModelError, match="can't be read"):
        next(iter(files.read()))


def test_a_file_that_shrinks_while_it_is_read_is_refused(path: Path) -> None:
    reading = GgufSource().open(str(write(path, tiny_llama()))).read()
    next(reading)
    with path.open("r+b") as file:
        file.truncate(10_000)
    with pytest.raises(ModelError, match="was changed or replaced after its header was read"):
        list(reading)


@settings(max_examples=150, deadline=2000, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(flips=st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 255)), min_size=1, max_size=4))
def test_no_flipped_byte_does_more_than_be_refused(path: Path, flips: list[tuple[int, int]]) -> None:
    if not path.exists():
        write(path, tiny_llama(), key("tokenizer.ggml.tokens", ["a", "b"]), type_="Q8_0")
    whole = path.read_bytes()
    changed_bytes = bytearray(whole)
    for place, byte in flips:
        changed_bytes[place] = byte
    broken = path.with_name("broken.gguf")
    broken.write_bytes(changed_bytes)
    try:
        for _ in (files := GgufSource().open(str(broken))).read():
            pass
        files.save_tokenizer(path.parent)
    except ModelError:
        pass


@pytest.mark.parametrize("reference", ["model.gguf", "MODEL.GGUF", "package:weights/model.gguf"])
def test_the_ending_is_enough_to_be_accepted(reference: str) -> None:
    assert GgufSource().accepts(reference)


def test_another_ending_needs_the_magic_number(tmp_path: Path) -> None:
    blob, other = tmp_path / "blob", tmp_path / "other"
    blob.write_bytes(b"GGUF....")
    other.write_bytes(b"PK..")
    assert GgufSource().accepts(str(blob))
    refused = [str(other), str(tmp_path), "org/name", "package:nothing/x", "package:../x", "nul\0", "x" * 5000]
    assert not any(GgufSource().accepts(reference) for reference in refused)


def test_importing_the_source_loads_no_heavy_library() -> None:
    script = (
        "import sys, graftkit_gguf.source\n"
        "print([m for m in ('torch', 'transformers', 'tokenizers', 'numpy', 'gguf') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def with_tokenizer(writer: gguf.GGUFWriter) -> None:
    """Adds a byte-level tokenizer."""
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(["<s>", *byte_alphabet(), "ab"])
    writer.add_token_types([3, *[1] * 257])
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(0)


UNUSABLE: dict[str, dict[str, str]] = {
    "another architecture": {"architecture": "qwen2"},
    "a weight missing": {"without": "output_norm.weight"},
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_the_tokenizer_is_read_whatever_the_model(path: Path, name: str) -> None:
    write(path, tiny_llama(vocab_size=50), with_tokenizer, **UNUSABLE[name])
    with pytest.raises(ModelError):
        GgufSource().open(str(path))
    found = find_tokenizer(PluginHost(), str(path))
    assert (found.tokenizer.encode("ab"), found.model) == ([257], None)


def test_ids_that_texts_become_need_a_row(path: Path) -> None:
    """The file opens as a model; the flow refuses it, as it does a folder of safetensors."""
    write(path, tiny_llama(vocab_size=50), with_tokenizer)
    found = find_tokenizer(PluginHost(), str(path))
    assert isinstance(found.model, GgufFile)
    with pytest.raises(ModelError, match="the tokenizer has 258 ids, the model's embedding only 50 rows"):
        check_fits(found.model, found.tokenizer)


def test_an_added_token_without_a_row_is_refused_only_where_a_record_holds_it(path: Path) -> None:
    tokens = ["<s>", *byte_alphabet(), "ab", "<image>", "<box>"]

    def change(writer: gguf.GGUFWriter) -> None:
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre("smollm")
        writer.add_token_list(tokens)
        writer.add_token_types([3, *[1] * 257, 3, 4])  # control, normal, control, user-defined
        writer.add_token_merges(["a b"])
        writer.add_bos_token_id(0)
        writer.add_eos_token_id(0)

    write(path, tiny_llama(vocab_size=258), change)
    recipe = {
        "model": str(path),
        "data": {"train": str(path.with_name("records.jsonl")), "max_length": 32},
        "adapter": {"use": "lora", "rank": 2},
        "training": {"steps": 1, "tokens_per_step": 64, "device": "cpu"},
    }
    lines = [json.dumps({"text": f"an <image> of {n}"}) + "\n" for n in range(4)]
    path.with_name("records.jsonl").write_text("".join(lines))
    manifest = graftkit.run(recipe, out=path.with_name("run")).manifest
    assert "258 rows, none for 2 added tokens: '<image>', '<box>'" in " ".join(map(str, manifest["notices"]))
    path.with_name("records.jsonl").write_text("".join([*lines, json.dumps({"text": "a <box>"}) + "\n"]))
    with pytest.raises(DataError, match=r"records.jsonl:5: it holds the token '<box>' of the id 259.*258 rows"):
        graftkit.run(recipe, out=path.with_name("other"))


def test_a_file_without_a_tokenizer_still_says_what_is_wrong(path: Path) -> None:
    write(path, tiny_llama(), architecture="qwen2")
    with pytest.raises(ModelError, match="has no tokenizer"):
        find_tokenizer(PluginHost(), str(path))
    path.write_bytes(b"GGUF\0")
    with pytest.raises(ModelError, match="it is no model either"):
        find_tokenizer(PluginHost(), str(path))
