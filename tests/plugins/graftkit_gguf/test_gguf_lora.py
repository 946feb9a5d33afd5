"""Adapters in GGUF: what llama.cpp computes with them, on what they were trained on and on the base's own file."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from graftkit import PluginHost, ProofRequest
from graftkit.errors import ExportError, GraftkitError
from graftkit.flow.exports import check_export
from graftkit.flow.exports.probes import Probes
from graftkit.flow.exports.prove import answer
from graftkit.model.adapt import AdaptedModel, adapt
from graftkit.model.linear import FrozenLinear
from graftkit.model.load import load_base_model
from graftkit.report.summary import proof_text
from graftkit.testing.architectures import ARCHITECTURES
from graftkit.testing.contracts.base import choose
from graftkit.testing.contracts.trained import TinyTrained, train_tiny
from graftkit.testing.tiny import LEFT_OUT, tiny_model_folder
from graftkit_adapters.config import LoraConfig
from graftkit_adapters.lora import Lora
from graftkit_gguf import llama_cpp
from graftkit_gguf.adapter_file import check_adapter, check_fits, write_adapter
from graftkit_gguf.config import GgufConfig, GgufLoraConfig
from graftkit_gguf.families import architecture_of
from graftkit_gguf.header import read_header
from graftkit_gguf.lora_exporter import GgufLoraExporter
from graftkit_gguf.lora_layers import check_planned, factor_of_b, file_alpha, stored_layer
from graftkit_gguf.model_exporter import GgufExporter

PATTERNS = {
    "rank": 4,
    "alpha": 6.0,
    "rank_pattern": {"q_proj": 8, r"layers\.1\.mlp\.down_proj": 2},
    "alpha_pattern": {"k_proj": 20.0, "mlp.*": 3.0},
}
METHODS: Mapping[str, LoraConfig] = {
    "patterns": LoraConfig(**PATTERNS),  # type: ignore[arg-type]
    "rslora": LoraConfig(**PATTERNS, rslora=True),  # type: ignore[arg-type]
}


@pytest.fixture(scope="module")
def host() -> PluginHost:
    return PluginHost()


def exported(trained: TinyTrained, folder: Path, **options: Any) -> Path:
    """Writes an export as a run does, its probes beside it."""
    folder.mkdir(parents=True)
    exporter = GgufLoraExporter(GgufLoraConfig(**options))
    assert exporter.refusal(trained.planned()) is None
    choice = choose(PluginHost(), "exporter", "gguf-lora", options)
    manifest = {**trained.manifest(), **exporter.export(trained.model, folder)}
    manifest |= {"exporter": choice.facts(), "tolerance": exporter.tolerance()}
    (folder / "graftkit.json").write_text(json.dumps(manifest))
    trained.probes().save(folder.parent / "probes.safetensors")
    return folder


def proof(folder: Path) -> dict[str, Any]:
    return answer(folder, folder.parent / "probes.safetensors", trusted=True)


def on_a_gguf(host: PluginHost, folder: Path, *, shape: str, type_: str, quantizer: str) -> TinyTrained:
    """Trains on a tiny base model that is a GGUF file."""
    folder.mkdir()
    GgufExporter(GgufConfig(type=type_)).export(train_tiny(host, folder / "first", shape=shape).model, folder)  # type: ignore[arg-type]
    return train_on(host, folder / "model.gguf", "gguf", quantizer)


def train_on(host: PluginHost, path: Path, reader: str, quantizer: str) -> TinyTrained:
    """Trains rsLoRA with patterns on all linear layers of a base model but experts."""
    source, storing = (
        choose(host, kind, name, {}) for kind, name in (("model-source", reader), ("quantizer", quantizer))
    )
    files = host.registry.create(source.registered).open(str(path))
    maker: Any = host.registry.create(storing.registered, storing.config)
    network: Any = load_base_model(files, maker, device=torch.device("cpu"))
    linear = [name for name, module in network.named_modules() if isinstance(module, FrozenLinear)]
    layers = [name for name in linear if ".experts." not in name]
    method = Lora(METHODS["rslora"])
    adapted = adapt(network, method, layers, seed=0)
    for number, weight in enumerate(adapted.values()):
        move(weight.trainable_parameters(), number)
    kept = path.parent / "tokenizer"
    kept.mkdir()
    files.save_tokenizer(kept)
    tokenizer = host.registry.create(choose(host, "tokenizer", "huggingface", {}).registered).load(kept)
    model = AdaptedModel(network.eval(), files.reference, files.config, tokenizer, method, adapted)
    return TinyTrained(model, files, source, storing, maker)


@torch.no_grad()
def move(parameters: Mapping[str, torch.nn.Parameter], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in parameters.values():
        parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", ["llama", "llama-untied", "qwen2", "qwen3"])
def test_each_layers_own_rank_and_scale_is_llama_cpps(
    host: PluginHost, shape: str, method: str, tmp_path: Path
) -> None:
    trained = train_tiny(host, tmp_path, shape=shape, adapter=Lora(METHODS[method]))
    found = proof(exported(trained, tmp_path / "export"))
    assert found["status"] == "proved", found
    assert "on_base_file" not in found and found["max_abs_diff"] < 1e-4


_OTHERS: Mapping[str, Mapping[str, Any]] = {
    "phi3": {"pad_token_id": 0},
    "qwen3_moe": {"norm_topk_prob": True, "moe_intermediate_size": 32},
    "starcoder2": {"sliding_window": None},
    "llama": {
        "rope_parameters": {
            "rope_type": "llama3",
            "rope_theta": 500_000.0,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        }
    },
}


@pytest.mark.parametrize("kind", _OTHERS)
def test_an_adapter_on_any_family_is_proved(host: PluginHost, kind: str, tmp_path: Path) -> None:
    """With fused layers, biases, experts beside what is adapted, GELU and tensors of rotary factors."""
    known = {**ARCHITECTURES.get(kind, {}), "model_type": kind, "architectures": LEFT_OUT}
    sizes = {"hidden_size": 64, "head_dim": 16, "num_attention_heads": 4, "intermediate_size": 96}
    folder = tiny_model_folder(tmp_path / "model", **{**known, **sizes, **_OTHERS[kind]})
    trained = train_on(host, folder, "huggingface", "none")
    found = proof(exported(trained, tmp_path / "export"))
    assert found["status"] == "proved", found


@pytest.mark.parametrize(("shape", "type_"), [("llama", "q8_0"), ("llama-untied", "f32"), ("qwen3", "q8_0")])
def test_on_a_gguf_the_adapter_computes_what_was_trained(
    host: PluginHost, shape: str, type_: str, tmp_path: Path
) -> None:
    """On float32 exactly, on blocks within what llama.cpp rounds them by without an adapter."""
    trained = on_a_gguf(host, tmp_path / "base", shape=shape, type_=type_, quantizer="none")
    found = proof(exported(trained, tmp_path / "export", type="f32"))
    assert found["status"] == "proved", found
    file = found["on_base_file"]
    assert file["same_weights"] and file["file"] == "model.gguf"
    assert file["max_abs_diff"] <= file["tolerance"] and found["max_abs_diff"] < 1e-4
    assert file["base_max_abs_diff"] < 1e-4 or type_ == "q8_0"
    assert "; on model.gguf within" in proof_text(found)


def test_weights_that_were_quantized_again_are_said_to_be_others(host: PluginHost, tmp_path: Path) -> None:
    trained = on_a_gguf(host, tmp_path / "base", shape="llama", type_="q8_0", quantizer="nf4")
    found = proof(exported(trained, tmp_path / "export", type="f16"))
    assert found["status"] == "proved", found
    assert not found["on_base_file"]["same_weights"]
    text = proof_text(found)
    assert "on the base model with the quantizer nf4; on model.gguf, whose weights are others, off by" in text


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    found = gguf.GGUFReader(folder / "adapter.gguf").tensors
    return {tensor.name: torch.from_numpy(np.array(tensor.data)) for tensor in found}


def write(folder: Path, changed: Mapping[str, torch.Tensor], alpha: float = 8.0, architecture: str = "llama") -> None:
    names = [name.removesuffix(".lora_a") for name in changed if name.endswith(".lora_a")]
    layers = {name: (changed[f"{name}.lora_a"], changed[f"{name}.lora_b"]) for name in names}
    write_adapter(folder / "adapter.gguf", architecture, alpha, layers, "f32")


def unpermuted(found: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    name = "blk.0.attn_q.weight.lora_b"
    halves = found[name].reshape(4, 8, 2, -1).swapaxes(1, 2).reshape(found[name].shape)
    return {**found, name: halves}


def swapped(found: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    other = {"0": "1", "1": "0"}
    return {name.replace(name.split(".")[1], other[name.split(".")[1]], 1): t for name, t in found.items()}


def without_a_layer(found: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in found.items() if not name.startswith("blk.1.ffn_down")}


@pytest.fixture(scope="module")
def whole(host: PluginHost, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    return exported(train_tiny(host, folder), folder / "export")


@pytest.fixture
def copied(whole: Path, tmp_path: Path) -> Path:
    for path in [*whole.iterdir(), whole.parent / "probes.safetensors"]:
        target = tmp_path / path.relative_to(whole.parent)
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(path.read_bytes())
    return tmp_path / "export"


@pytest.mark.parametrize("damage", [unpermuted, swapped, without_a_layer])
def test_a_damaged_adapter_is_found_out(copied: Path, damage: Callable[..., dict[str, torch.Tensor]]) -> None:
    write(copied, damage(tensors(copied)))
    assert proof(copied)["status"] == "different"


def test_another_scale_is_found_out(copied: Path) -> None:
    write(copied, tensors(copied), alpha=8.1)
    assert proof(copied)["status"] == "different"


def test_what_was_written_again_without_damage_is_proved(copied: Path) -> None:
    before = (copied / "adapter.gguf").read_bytes()
    write(copied, tensors(copied))
    assert (copied / "adapter.gguf").read_bytes() == before
    assert proof(copied)["status"] == "proved"


def test_without_llama_cpp_an_adapter_is_said_to_be_unproved(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check_export, "_installed", lambda name: False)
    found = proof(copied)
    assert proof_text(found) == "not proved: xllamacpp is not installed: pip install xllamacpp"


def replaced(data: bytes, old: bytes, new: bytes) -> bytes:
    assert data.count(old) == 1
    return data.replace(old, new)


KEY = b"adapter.lora.alpha"
HOSTILE: Mapping[str, Callable[[bytes], bytes]] = {
    "ends at byte": lambda data: data[:-1000],
    "doesn't start with 'GGUF'": lambda data: b"GGML" + data[4:],
    "is empty": lambda data: b"",
    "more than fit": lambda data: data[:8] + struct.pack("<Q", 90_000) + data[16:],
    "no LoRA adapter": lambda data: replaced(data, b"\7\0\0\0\0\0\0\0adapter\x0c", b"\7\0\0\0\0\0\0\0adopter\x0c"),
    "no float32": lambda data: replaced(data, KEY + struct.pack("<If", 6, 8), KEY + struct.pack("<II", 5, 8)),
    "not a positive number": lambda data: replaced(
        data, KEY + struct.pack("<If", 6, 8), KEY + struct.pack("<If", 6, 0)
    ),
    "besides": lambda data: replaced(data, KEY, b"adapter.lora.alphs"),
    "no half of a pair": lambda data: replaced(data, b"blk.0.attn_q.weight.lora_a", b"blk.0.attn_q.weight.lora_c"),
    "ranks": lambda data: replaced(
        data,
        b"blk.0.attn_v.weight.lora_a" + struct.pack("<IQQ", 2, 64, 4),
        b"blk.0.attn_v.weight.lora_a" + struct.pack("<IQQ", 2, 128, 2),
    ),
    "no numbers": lambda data: data[:-4] + struct.pack("<f", float("nan")),
    "no matrix 'blk.9": lambda data: data.replace(b"blk.0.attn_v", b"blk.9.attn_v"),
    "architecture 'qwen3'": lambda data: replaced(data, b"\5\0\0\0\0\0\0\0llama", b"\5\0\0\0\0\0\0\0qwen3"),
}


@pytest.mark.parametrize("said", HOSTILE)
def test_a_strangers_adapter_is_refused_before_llama_cpp_sees_it(
    copied: Path, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(llama_cpp, "LlamaCpp", lambda *_: pytest.fail("llama.cpp was asked"))
    path = copied / "adapter.gguf"
    path.write_bytes(HOSTILE[said](path.read_bytes()))
    found = proof(copied)
    assert found["status"] == "failed" and said in found["message"], found
    assert found["where"] == str(path)


def test_an_adapter_of_another_width_does_not_fit(copied: Path, tmp_path: Path) -> None:
    wide = {"blk.0.attn_q.weight": (torch.zeros(4, 65), torch.zeros(64, 4))}
    base = {"blk.0.attn_q": (torch.zeros(64, 64), torch.zeros(64, 64))}
    write_adapter(tmp_path / "wide.gguf", "llama", 1.0, wide, "f32")
    write_adapter(tmp_path / "base.gguf", "llama", 1.0, base, "f32")
    header = read_header(tmp_path / "base.gguf")
    renamed = {"blk.0.attn_q.weight": header.tensors["blk.0.attn_q.lora_a"]}
    fits = SimpleNamespace(metadata=header.metadata, tensors=renamed)
    with pytest.raises(ExportError, match="has the size 65 where the base model has 64"):
        check_fits(check_adapter(tmp_path / "wide.gguf"), fits)  # type: ignore[arg-type]


def test_a_number_that_float16_does_not_hold_is_refused(tmp_path: Path) -> None:
    large = {"blk.0.attn_q.weight": (torch.ones(1, 4), torch.full((4, 1), 70_000.0))}
    with pytest.raises(ExportError, match="float16 does not hold"):
        write_adapter(tmp_path / "a.gguf", "llama", 1.0, large, "f16")


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        (None, "this adapter"),
        ({"peft_type": "VERA"}, "VERA"),
        ({"use_dora": True}, "DoRA's magnitudes"),
        ({"bias": "lora_only"}, "biases"),
        ({"lora_bias": True}, "biases"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"trainable_token_indices": {"embed_tokens": [1]}}, "rows of embeddings"),
        ({"lora_alpha": 0}, "an alpha of 0"),
    ],
)
def test_what_has_no_form_is_refused_by_name(fields: dict[str, Any] | None, named: str) -> None:
    whole = fields if fields is None else {"peft_type": "LORA", "lora_alpha": 8, "bias": "none", **fields}
    with pytest.raises(ExportError, match=named):
        file_alpha(whole)


def test_new_rows_and_layers_without_a_matrix_are_refused_by_name(host: PluginHost, tmp_path: Path) -> None:
    extended = train_tiny(host, tmp_path / "extended", vocabulary="extended").planned()
    with pytest.raises(ExportError, match="rows of the embeddings") as refused:
        check_planned(extended)
    assert "gguf" in str(refused.value.hint)
    plain = train_tiny(host, tmp_path / "plain").planned()
    for layer in ("model.norm", "model.layers.0.mlp.gate_up_proj"):
        with pytest.raises(ExportError, match=f"'{layer}'"):
            stored_layer(architecture_of(plain.config), layer, 4, plain.config)


def test_an_output_layer_has_a_form_where_the_file_has_its_matrix(host: PluginHost, tmp_path: Path) -> None:
    tied = replace(train_tiny(host, tmp_path / "tied").planned(), targets=["lm_head"])
    with pytest.raises(ExportError, match="'lm_head' is tied to the embedding, and no matrix of its own"):
        check_planned(tied)
    embedding = replace(tied, targets=["model.embed_tokens"])
    with pytest.raises(ExportError, match="'model.embed_tokens' is tied to the output layer, and no matrix of its own"):
        check_planned(embedding)
    for planned in (tied, embedding):
        check_planned(replace(planned, config={**tied.config, "tie_word_embeddings": False}))


class Otherwise:
    """Stores a weight as something else than its rows."""

    def __init__(self, name: str) -> None:
        self.name = name

    def tensor(self, name: str, values: torch.Tensor, config: Mapping[str, Any]) -> tuple[str, torch.Tensor]:
        return "blk.0.attn_qkv.weight", values.T if "T" in self.name else values * 2


@pytest.mark.parametrize("name", ["T", "scaled"])
def test_a_weight_that_is_stored_otherwise_is_refused(name: str) -> None:
    with pytest.raises(ExportError, match="no matrix of its own"):
        stored_layer(Otherwise(name), "model.layers.0.self_attn.q_proj", 4, {})  # type: ignore[arg-type]


def test_the_factor_is_one_where_peft_scales_by_alpha_over_rank() -> None:
    assert factor_of_b({"lora_alpha": 32.0, "use_rslora": False}, "l.0.q_proj", 3) == 1.0
    assert factor_of_b({"lora_alpha": 8, "use_rslora": True, "alpha_pattern": {"q": 16}}, "l.q", 4) == 4.0
    assert factor_of_b({"lora_alpha": 8, "alpha_pattern": {"q": 16}}, "l.0.notq", 4) == 1.0


def test_an_export_without_its_adapter_asks_for_no_base(tmp_path: Path, whole: Path) -> None:
    probes = Probes.load(whole.parent / "probes.safetensors").requested
    request = ProofRequest(tmp_path, probes, lambda: pytest.fail("the base model was loaded"))
    with pytest.raises(GraftkitError, match="no such file"):
        GgufLoraExporter().logits(request)
