"""llama.cpp is given no file that an export can't hold: it trusts what a file says of itself."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xllamacpp
from gguf_models import write_model
from graftkit import Probe, ProofRequest
from graftkit.errors import ExportError, ModelError
from graftkit.interfaces.architecture import with_head
from graftkit.testing import TINY_CONFIG
from graftkit_gguf import llama_cpp
from graftkit_gguf.architectures import complete_config
from graftkit_gguf.exported import check_exported
from graftkit_gguf.families import architecture_of
from graftkit_gguf.file_writer import write_gguf
from graftkit_gguf.header import read_header
from graftkit_gguf.model_exporter import GgufExporter

HIDDEN, INNER, HEADS, KEYS, HEAD, TOKENS = 16, 24, 4, 2, 4, 8

BIASES = ("attn_q.bias", "attn_k.bias", "attn_v.bias")
NORMS = ("attn_q_norm.weight", "attn_k_norm.weight")

Metadata = dict[str, Any]
Tensors = dict[str, tuple[tuple[int, ...], str]]


def metadata(kind: str = "llama", **config: Any) -> Metadata:
    sizes = {"hidden_size": HIDDEN, "intermediate_size": INNER, "num_hidden_layers": 2, "vocab_size": TOKENS}
    heads = {"num_attention_heads": HEADS, "num_key_value_heads": KEYS, "head_dim": HEAD}
    rope = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}
    whole = {**TINY_CONFIG, **sizes, **heads, **rope, **config, "model_type": kind}
    return {
        **architecture_of(whole).metadata(complete_config(whole)),
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": [*list("abcde"), "ab", "<s>", "</s>"],
        "tokenizer.ggml.token_type": [1] * 6 + [3, 3],
        "tokenizer.ggml.merges": ["a b"],
        "tokenizer.ggml.bos_token_id": 6,
        "tokenizer.ggml.eos_token_id": 7,
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.chat_template": "{{ messages[0]['content'] }}",
    }


def tensors(*more: str) -> Tensors:
    found: Tensors = {"token_embd.weight": ((TOKENS, HIDDEN), "f32"), "output_norm.weight": ((HIDDEN,), "f32")}
    shapes: dict[str, tuple[int, ...]] = {
        "attn_norm.weight": (HIDDEN,),
        "attn_q.weight": (HEADS * HEAD, HIDDEN),
        "attn_k.weight": (KEYS * HEAD, HIDDEN),
        "attn_v.weight": (KEYS * HEAD, HIDDEN),
        "attn_output.weight": (HIDDEN, HEADS * HEAD),
        "ffn_norm.weight": (HIDDEN,),
        "ffn_gate.weight": (INNER, HIDDEN),
        "ffn_up.weight": (INNER, HIDDEN),
        "ffn_down.weight": (HIDDEN, INNER),
        "attn_q.bias": (HEADS * HEAD,),
        "attn_k.bias": (KEYS * HEAD,),
        "attn_v.bias": (KEYS * HEAD,),
        "attn_q_norm.weight": (HEAD,),
        "attn_k_norm.weight": (HEAD,),
    }
    optional = (*BIASES, *NORMS)
    for block in range(2):
        wanted = {name: shape for name, shape in shapes.items() if name not in optional or name in more}
        found |= {f"blk.{block}.{name}": (shape, "f16") for name, shape in wanted.items()}
    return found


def written(folder: Path, keys: Metadata, named: Tensors) -> Path:
    width = {"f32": 4, "f16": 2, "f64": 8}
    data = (
        (name, shape, type_, np.zeros(np.prod(shape) * width[type_], np.uint8))
        for name, (shape, type_) in named.items()
    )
    write_gguf(folder / "model.gguf", keys, data)
    return folder / "model.gguf"


@pytest.mark.parametrize(
    ("keys", "named"),
    [
        (metadata(), tensors()),
        (metadata(), {**tensors(), "output.weight": ((TOKENS, HIDDEN), "f16")}),
        (metadata("qwen2"), tensors(*BIASES)),
        (metadata("qwen3"), tensors(*NORMS)),
        (metadata(rope_parameters={"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}), tensors()),
        ({key: value for key, value in metadata().items() if "chat_template" not in key}, tensors()),
        ({**metadata(), "tokenizer.ggml.merges": []}, tensors()),
    ],
)
def test_what_exports_hold_is_accepted(tmp_path: Path, keys: Metadata, named: Tensors) -> None:
    assert check_exported(read_header(written(tmp_path, keys, named))) == TOKENS


KEYS_CHANGED: dict[str, tuple[str, Any]] = {
    "another architecture": ("general.architecture", "clip"),
    "a key that switches something on": ("llama.expert_count", 4),
    "another file's part": ("split.count", 3),
    "an adapter": ("general.type", "adapter"),
    "no heads": ("llama.attention.head_count", 0),
    "heads that do not divide": ("llama.attention.head_count_kv", 3),
    "another size of heads": ("llama.attention.value_length", 2),
    "an odd size of heads": ("llama.rope.dimension_count", 3),
    "more blocks than tensors": ("llama.block_count", 4_000_000),
    "a block more": ("llama.block_count", 3),
    "a context of billions": ("llama.context_length", 2**31),
    "a context of millions of millions": ("llama.context_length", 2**25),
    "a width of millions": ("llama.feed_forward_length", 2**23),
    "a size that is none": ("llama.embedding_length", 16.0),
    "an epsilon that is no number": ("llama.attention.layer_norm_rms_epsilon", float("nan")),
    "a rope of another kind": ("llama.rope.scaling.type", "yarn"),
    "more rows than tokens": ("llama.vocab_size", 9),
    "another kind of tokenizer": ("tokenizer.ggml.model", "llama"),
    "another splitting": ("tokenizer.ggml.pre", "kimi-k2"),
    "fewer tokens": ("tokenizer.ggml.tokens", ["a"]),
    "an empty token": ("tokenizer.ggml.tokens", ["", *"bcdefgh"]),
    "fewer types": ("tokenizer.ggml.token_type", [1]),
    "another type": ("tokenizer.ggml.token_type", [1] * 7 + [77]),
    "a merge of one piece": ("tokenizer.ggml.merges", ["ab"]),
    "a merge of nothing": ("tokenizer.ggml.merges", ["a "]),
    "an id beyond the vocabulary": ("tokenizer.ggml.eos_token_id", 8),
    "a flag that is none": ("tokenizer.ggml.add_bos_token", 1),
    "a template that is none": ("tokenizer.chat_template", 1),
}
TENSORS_CHANGED: dict[str, Callable[[Tensors], Any]] = {
    "a tensor is missing": lambda named: named.pop("blk.1.ffn_up.weight"),
    "a tensor more": lambda named: named.update({"rope_freqs.weight": ((2,), "f32")}),
    "another shape": lambda named: named.update({"blk.0.attn_k.weight": ((HIDDEN, HIDDEN), "f16")}),
    "another type": lambda named: named.update({"blk.0.attn_k.weight": ((KEYS * HEAD, HIDDEN), "f64")}),
}


@pytest.mark.parametrize("changed", KEYS_CHANGED.values(), ids=KEYS_CHANGED)
def test_metadata_that_no_export_has_is_refused(tmp_path: Path, changed: tuple[str, Any]) -> None:
    path = written(tmp_path, metadata() | dict([changed]), tensors())
    with pytest.raises(ModelError) as caught:
        check_exported(read_header(path))
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("change", TENSORS_CHANGED.values(), ids=TENSORS_CHANGED)
def test_tensors_that_no_export_has_are_refused(tmp_path: Path, change: Callable[[Tensors], Any]) -> None:
    named = tensors()
    change(named)
    with pytest.raises(ModelError, match="tensor"):
        check_exported(read_header(written(tmp_path, metadata(), named)))


SCORES_CHANGED: dict[str, tuple[str, Any]] = {
    "a label more": ("qwen3.classifier.output_labels", ["a", "b", "c"]),
    "one label": ("qwen3.classifier.output_labels", ["a"]),
    "labels that are none": ("qwen3.classifier.output_labels", [1, 2]),
    "another pooling": ("qwen3.pooling_type", 3),
    "another width": ("qwen3.embedding_length_out", 16),
    "no width": ("qwen3.embedding_length_out", None),
}


@pytest.mark.parametrize("changed", [None, *SCORES_CHANGED.values()], ids=["none", *SCORES_CHANGED])
def test_a_classifiers_file_says_of_how_many_labels_it_is(tmp_path: Path, changed: tuple[str, Any] | None) -> None:
    head = with_head({"architectures": ["Qwen3ForCausalLM"]}, "sequence", ["a", "b"])
    keys = metadata("qwen3", **head) | dict([changed] if changed else [])
    named = tensors(*NORMS) | {"cls.output.weight": ((2, HIDDEN), "f32")}
    path = written(tmp_path, {key: value for key, value in keys.items() if value is not None}, named)
    with pytest.raises(ModelError) if changed else nullcontext():
        assert check_exported(read_header(path)) == TOKENS


def _no_program(*arguments: Any, **keywords: Any) -> Any:
    raise AssertionError("llama.cpp sees the file")


def _refused(source: str, tokens: Any) -> None:
    raise ExportError(f"{source} {dict(tokens)}")


def test_llama_cpp_is_asked_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llama_cpp, "LlamaCpp", _no_program)
    bad, good = tmp_path / "bad", tmp_path / "good"
    for folder, keys in ((bad, metadata() | {"split.count": 2}), (good, metadata())):
        folder.mkdir()
        written(folder, keys, tensors())
    probe = Probe((1, 2), (1,))
    for ask in (GgufExporter().logits, GgufExporter().assets):
        for request, said in (
            (ProofRequest(bad, [probe], list), "which no export has"),
            (ProofRequest(good, [Probe((1, 8), (1,))], list), "ids beyond its 8 tokens"),
            (ProofRequest(good, [probe], list, check_template=_refused), r"messages.*'bos_token': '<s>'"),
        ):
            with pytest.raises((ModelError, ExportError), match=said):
                ask(request)
        with pytest.raises(AssertionError, match="llama.cpp sees the file"):
            ask(ProofRequest(good, [probe], list))


def test_a_program_that_was_asked_nothing_ends(tmp_path: Path, tiny_model: Path) -> None:
    """xllamacpp's server waits for ever where it is ended before its loop has begun: seen once in some fifty loads."""
    path = write_model(tmp_path / "model.gguf", tiny_model, "f32")
    for _ in range(40):
        with llama_cpp.LlamaCpp(path, 64):
            pass


@pytest.mark.parametrize("threads", [1, 3])
def test_it_computes_in_as_many_threads_as_torch(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    """Threads that wait for a core in loops took nearly all the time of a small model's proof."""
    asked: list[Any] = []
    server, before = xllamacpp.Server, torch.get_num_threads()
    monkeypatch.setattr(xllamacpp, "Server", lambda params: asked.append(params) or server(params))
    torch.set_num_threads(threads)
    try:
        llama_cpp.LlamaCpp(write_model(tmp_path / "model.gguf", tiny_model, "f32"), 64).close()
    finally:
        torch.set_num_threads(before)
    [params] = asked
    assert (params.cpuparams.n_threads, params.cpuparams_batch.n_threads) == (threads, threads)
