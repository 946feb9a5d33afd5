"""The types that tensors are stored in: bit for bit as ggml quantizes, chosen as llama.cpp's users expect."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType, LlamaFileType
from gguf.quants import dequantize, quantize
from gguf_models import tiny_llama, write_llama
from graftkit import Probe, ProofRequest
from graftkit.flow.exports.probes import Probes, compare
from graftkit.flow.exports.rounding import compare_rounding, read_logits
from graftkit.flow.exports.weight_sketch import compare_sketches, sketches_of
from graftkit.interfaces.architecture import with_head
from graftkit.testing import TINY_CONFIG
from graftkit_gguf import quantize as quantizing
from graftkit_gguf.blocks import block_steps
from graftkit_gguf.config import GgufConfig, GgufType
from graftkit_gguf.export_reading import export_reading
from graftkit_gguf.families import architecture_of
from graftkit_gguf.header import read_header
from graftkit_gguf.llama_cpp import LlamaCpp
from graftkit_gguf.model_exporter import GgufExporter
from graftkit_gguf.model_tensors import BaseTensors
from graftkit_gguf.quantize import NEEDS_GGML, quantize_rows
from graftkit_gguf.stored_types import StoredTypes, file_type

OF_32 = ("q4_0", "q4_1", "q5_0", "q5_1", "q8_0")


def hard_rows() -> torch.Tensor:
    """Rows at which roundings differ: halves, ties of the largest, zeros, tiny and huge numbers."""
    rows = torch.randn(64, 256, generator=torch.Generator().manual_seed(0))
    rows[0] = 0
    rows[1] = rows[1].round()
    rows[2], rows[3] = 0.5, -0.5
    rows[4, ::2], rows[4, 1::2] = 1, -1
    rows[5, ::2], rows[5, 1::2] = -1, 1
    rows[6] *= 1e-7
    rows[7] *= 1e6
    rows[8] = (rows[8] * 2).round() / 2
    rows[9, 0], rows[9, 1:] = 127, torch.arange(255) % 127 + 0.5
    return rows


@pytest.mark.parametrize("type_", ["f32", "f16", "bf16", *OF_32])
@pytest.mark.filterwarnings("ignore:overflow")
def test_numbers_are_rounded_bit_for_bit_as_the_gguf_package_rounds(type_: str) -> None:
    rows = hard_rows()
    expected = quantize(rows.numpy(), GGMLQuantizationType[type_.upper()]).view(np.uint8).reshape(len(rows), -1)
    np.testing.assert_array_equal(quantize_rows(rows, type_).numpy(), expected)


@pytest.mark.parametrize("type_", OF_32)
def test_ggml_itself_gives_the_same_bytes(type_: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = hard_rows()
    ours = quantize_rows(rows, type_)
    monkeypatch.setattr(quantizing, "NEEDS_GGML", frozenset({type_}))
    assert torch.equal(quantize_rows(rows, type_), ours)


@pytest.mark.parametrize("type_", [*OF_32, *sorted(NEEDS_GGML)])
def test_a_number_is_off_by_half_a_step_at_most_but_at_the_ends(type_: str) -> None:
    rows = torch.randn(64, 512, generator=torch.Generator().manual_seed(1)) * 0.02
    stored = quantize_rows(rows, type_)
    steps = torch.empty_like(rows)
    block_steps(type_.upper(), stored, steps)
    values = torch.from_numpy(dequantize(stored.numpy(), GGMLQuantizationType[type_.upper()]))
    off = (values - rows).abs() / steps
    assert (off < 0.6).float().mean() > 0.95 and off.quantile(0.95) > 0.45 and off.max() < 2.5


def test_without_ggml_k_types_are_refused_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny_llama(hidden_size=256, head_dim=64).config.to_dict()
    monkeypatch.setattr("graftkit_gguf.model_exporter.ggml_is_there", lambda: False)
    monkeypatch.setattr("graftkit_gguf.model_exporter._tokenizer", lambda *given: {})
    planned: Any = SimpleNamespace(config=config, tokenizer=SimpleNamespace(adds_bos=False), reference="", pairs=False)
    for chosen in (GgufConfig(type="q4_k_m"), GgufConfig(type="q4_0", output="q6_k")):
        refusal = GgufExporter(chosen).refusal(planned)
        assert refusal is not None and "pip install 'graftkit[llamacpp]'" in refusal
    assert GgufExporter(GgufConfig(type="q4_0")).refusal(planned) is None


@pytest.mark.parametrize(
    ("around", "expected"), [(([], []), (False, False)), (([], [2]), (False, True)), (([1], [2]), (True, True))]
)
def test_a_text_that_is_scored_has_around_it_what_its_tokenizer_puts_there(
    around: Any, expected: tuple[bool, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def metadata(
        folder: Path, rows: int, roles: Mapping[str, int], added: Any, *_: Any, wholes: bool
    ) -> dict[str, Any]:
        asked.append((added, [roles[role] for role in ("bos", "eos")]))
        assert wholes
        return {}

    monkeypatch.setattr("graftkit_gguf.model_exporter.tokenizer_metadata", metadata)
    sizes = {**TINY_CONFIG, "model_type": "qwen3", "head_dim": 16}
    config = with_head({**sizes, "architectures": ["Qwen3ForCausalLM"]}, "sequence", ["bad", "good"])
    roles = {"bos": 1, "eos": 2}
    tokenizer = SimpleNamespace(
        adds_bos=bool(around[0]), role_token=roles.get, put_around=around, chat_template=None, save=lambda folder: None
    )
    planned: Any = SimpleNamespace(config=config, tokenizer=tokenizer, reference="", pairs=False)
    assert GgufExporter().refusal(planned) is None and asked.pop() == (expected, [1, 2])
    tokenizer.put_around = ([4], [3])  # as Qwen's embedders end a text with another token than an answer
    assert GgufExporter().refusal(planned) is None and asked.pop() == ((True, True), [4, 3])
    tokenizer.put_around = ([], [3, 2])
    assert "puts several tokens before a text or after it" in (GgufExporter().refusal(planned) or "")


@pytest.mark.parametrize(
    ("types", "name", "expected"),
    [
        (StoredTypes("q4_0", ties=True), "token_embd.weight", "q8_0"),
        (StoredTypes("q4_0"), "token_embd.weight", "q4_0"),
        (StoredTypes("q4_0"), "output.weight", "q8_0"),
        (StoredTypes("f16"), "output.weight", "f16"),
        (StoredTypes("q4_k_m", layers=16), "output.weight", "q6_k"),
        (StoredTypes("q4_0", embeddings="q5_1", output="f16"), "token_embd.weight", "q5_1"),
        (StoredTypes("q4_0", embeddings="q5_1", output="f16"), "output.weight", "f16"),
        (StoredTypes("q4_0", embeddings="q5_1", output="f16", ties=True), "token_embd.weight", "f16"),
        (StoredTypes("q4_0", embeddings="q5_1", ties=True), "token_embd.weight", "q5_1"),
        (StoredTypes("q4_0"), "blk.0.ffn_gate_inp.weight", "f32"),
        (StoredTypes("q4_k_m", layers=16), "blk.1.attn_v.weight", "q6_k"),
        (StoredTypes("q4_k_m", layers=16), "blk.2.attn_v.weight", "q4_k"),
        (StoredTypes("q4_k_m", layers=16), "blk.4.ffn_down.weight", "q6_k"),
        (StoredTypes("q5_k_m", layers=16), "blk.14.ffn_down.weight", "q6_k"),
        (StoredTypes("q5_k_m", layers=16), "blk.13.ffn_down_exps.weight", "q6_k"),
        (StoredTypes("q5_k_m", layers=16), "blk.12.ffn_down.weight", "q5_k"),
        (StoredTypes("q4_k_m", layers=16), "blk.2.attn_qkv.weight", "q5_k"),
        (StoredTypes("q8_0", of_base={"blk.0.attn_q.weight": "q4_1"}), "blk.0.attn_q.weight", "q4_1"),
        (StoredTypes("q8_0", of_base={"blk.0.attn_q.weight": "iq2_xs"}), "blk.0.attn_q.weight", "q8_0"),
    ],
)
def test_types_are_those_that_llama_cpp_chooses(types: StoredTypes, name: str, expected: str) -> None:
    assert types.type_of(name, (64, 256)) == expected
    assert types.type_of(name.replace("weight", "bias"), (256,)) == "f32"


@pytest.mark.parametrize("type_", [name for name in get_args(GgufType) if name != "base"])
def test_a_file_is_called_as_llama_cpp_calls_its_type(type_: str) -> None:
    name = {"f32": "ALL_F32"}.get(type_, f"MOSTLY_{type_.upper()}")
    assert file_type(type_, {})["general.file_type"] == LlamaFileType[name]
    own = {"general.file_type": 3, "general.quantization_version": 2, "general.name": "x"}
    assert file_type("base", own) == {"general.file_type": 3, "general.quantization_version": 2}


def test_whatever_is_stored_rounded_is_compared_by_its_reading() -> None:
    chosen = [GgufConfig(type="f32"), GgufConfig(type="f32", output="f32"), GgufConfig(type="f32", embeddings="q8_0")]
    assert [GgufExporter(config).quantizes for config in chosen] == [False, False, True]


def test_types_of_a_base_that_are_not_written_are_told() -> None:
    types = StoredTypes("q8_0", of_base={f"blk.{n}.attn_q.weight": "iq2_xs" for n in range(3)})
    shapes = [(f"blk.{n}.attn_q.weight", (64, 256)) for n in range(3)]
    assert list(types.notices(shapes)) == [
        "3 matrices are iq2_xs in the base model's file, which is not written: where something changed they are "
        "stored as q8_0"
    ]


def test_rows_that_do_not_divide_into_blocks_are_counted_and_named() -> None:
    types = StoredTypes("q4_k_m", layers=16)
    shapes = [("blk.2.attn_q.weight", (64, 96)), ("blk.2.attn_k.weight", (64, 96)), ("blk.2.ffn_up.weight", (64, 40))]
    assert [types.type_of(name, shape) for name, shape in shapes] == ["q5_0", "q5_0", "f16"]
    assert list(types.notices([*shapes, ("blk.2.attn_norm.weight", (96,))])) == [
        "1 matrix has rows of 40, no multiple of the 256 of q4_k, and is stored as f16",
        "2 matrices have rows of 96, no multiple of the 256 of q4_k, and are stored as q5_0",
    ]


@pytest.mark.parametrize("type_", ["q4_1", "q5_0", "q5_1", "q4_k_m", "q5_k_m", "q6_k"])
def test_llama_cpp_computes_what_is_read_and_rounding_explains_the_rest(type_: str, tmp_path: Path) -> None:
    model = tiny_llama(hidden_size=256, intermediate_size=256, head_dim=64)
    config, state = model.config.to_dict(), dict(model.named_parameters())
    types = StoredTypes(type_, layers=config["num_hidden_layers"], ties=True)
    path = write_llama(tmp_path / "model.gguf", types, config, state)
    ids, positions = tuple(range(60, 90)), (0, 9, 29)
    request: Any = ProofRequest(tmp_path, [Probe(ids, positions)], lambda: model)
    trained = Probes([list(ids)], request.run(model), [list(positions)], sketches=sketches_of(state.items()))
    reading = export_reading(path)
    read = read_logits(reading, request, tmp_path)
    with LlamaCpp(path, 64) as program:
        found = program.log_probabilities(ids, positions, config["vocab_size"])
    asked = read.comparison(trained, GgufExporter().tolerance())
    assert not asked.set_aside
    assert compare(asked.probes, [found], log_probabilities=True).within(asked.tolerance)
    rounding = compare_rounding(reading, read.exact, trained, request, tmp_path)
    assert rounding.explained and rounding.weights is not None and 0.2 < rounding.weights.excess < 0.8, rounding


def test_one_row_that_is_not_what_was_trained_is_found(tmp_path: Path) -> None:
    model = tiny_llama()
    state = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    sketches = sketches_of(state.items())
    state["model.layers.1.mlp.up_proj.weight"][7] *= -1
    path = write_llama(tmp_path / "model.gguf", StoredTypes("q8_0", ties=True), model.config.to_dict(), state)
    found = compare_sketches(export_reading(path), sketches)
    assert found is not None and found.name == "model.layers.1.mlp.up_proj.weight" and found.excess > 1


def test_what_did_not_change_is_the_base_files_own_bytes(tmp_path: Path) -> None:
    config = tiny_llama().config.to_dict()
    base = BaseTensors(read_header(write_llama(tmp_path / "base.gguf", StoredTypes("q4_1", ties=True))))
    own = export_reading(base.header.path).files
    name = "model.layers.0.self_attn.q_proj.weight"
    read = dict(own.read())
    weight: Any = read[name]
    values = architecture_of(config).tensor(name, weight.dequantize(), config)
    same = base.same(*values)
    assert same is not None and same[:3] == ("blk.0.attn_q.weight", tuple(values[1].shape), "q4_1")
    tensor = base.header.tensors["blk.0.attn_q.weight"]
    assert same[3].tobytes() == base.header.path.read_bytes()[tensor.offset : tensor.offset + tensor.nbytes]
    changed = values[1].clone()
    changed[-1, -1] += 1e-6
    assert base.same(values[0], changed) is None
