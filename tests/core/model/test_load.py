"""Streaming weights in, against transformers' own loading."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from graftkit.errors import ModelError
from graftkit.model.dense_model import load_dense_model
from graftkit.model.generate import generate_greedily
from graftkit.model.linear import FrozenLinear
from graftkit.model.load import load_base_model
from graftkit.model.model_plan import check_base_model
from graftkit.model.packing import attention_as
from graftkit.testing import TINY_SHAPES, tiny_model_folder
from graftkit_models.huggingface import HuggingFaceSource
from graftkit_quantizers.dense import Dense
from graftkit_quantizers.int8 import Int8
from graftkit_quantizers.nf4 import Nf4
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

CPU = torch.device("cpu")
IDS = torch.tensor([[5, 9, 200, 31, 7, 7, 90]])


@pytest.fixture(params=TINY_SHAPES)
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return tiny_model_folder(tmp_path / "model", **TINY_SHAPES[request.param])


def theirs(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


@torch.no_grad()
def test_an_unquantized_model_computes_what_transformers_computes(folder: Path) -> None:
    ours: Any = load_base_model(HuggingFaceSource().open(str(folder)), Dense(), device=CPU)
    torch.testing.assert_close(ours(input_ids=IDS).logits, theirs(folder)(input_ids=IDS).logits, atol=1e-5, rtol=0)


@torch.no_grad()
def test_the_dense_form_computes_what_the_quantized_model_computes(folder: Path) -> None:
    files = HuggingFaceSource().open(str(folder))
    quantized: Any = load_base_model(files, Nf4(), device=CPU)
    dense: Any = load_dense_model(files, Nf4())
    assert not any(isinstance(module, FrozenLinear) for module in dense.modules())
    torch.testing.assert_close(dense(input_ids=IDS).logits, quantized(input_ids=IDS).logits, atol=1e-5, rtol=0)


def test_every_linear_layer_in_the_blocks_is_frozen_and_nothing_can_be_trained(folder: Path) -> None:
    model: Any = load_base_model(HuggingFaceSource().open(str(folder)), Nf4(), device=CPU)
    inside = [name for name, module in model.named_modules() if isinstance(module, FrozenLinear)]
    assert len(inside) == 2 * 7
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert not any(parameter.is_meta for parameter in model.parameters())
    assert not any(buffer.is_meta for buffer in model.buffers())


def test_sharded_weights_are_the_same_model(tmp_path: Path) -> None:
    whole, parts = tiny_model_folder(tmp_path / "a"), tiny_model_folder(tmp_path / "b", shards=4)
    assert len(list(parts.glob("*.safetensors"))) > 1
    ours = [load_base_model(HuggingFaceSource().open(str(f)), Dense(), device=CPU).state_dict() for f in (whole, parts)]
    assert ours[0].keys() == ours[1].keys()
    assert all(torch.equal(ours[0][name], ours[1][name]) for name in ours[0])


@torch.no_grad()
def test_greedy_answers_side_by_side_are_those_of_transformers_one_by_one(tmp_path: Path) -> None:
    folder = tiny_model_folder(tmp_path / "model", seed=3)
    ours: Any = load_base_model(HuggingFaceSource().open(str(folder)), Dense(), device=CPU)
    prompts = [[5, 6, 7], [9], [200, 4, 4, 31, 8, 77]]
    answers = generate_greedily(ours, prompts, max_new_tokens=12, stop=[258])
    reference = theirs(folder)
    for prompt, answer in zip(prompts, answers, strict=True):
        ids = torch.tensor([prompt])
        out = reference.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False)
        expected = out[0, len(prompt) :].tolist()
        assert answer == [token for token in expected if token != 258]


def test_the_former_attention_comes_back_even_after_an_error(tmp_path: Path) -> None:
    folder = tiny_model_folder(tmp_path / "model")
    model: Any = load_base_model(HuggingFaceSource().open(str(folder)), Dense(), device=CPU)
    with pytest.raises(KeyError), attention_as(model, "eager"):
        raise KeyError
    assert model.config._attn_implementation == "sdpa"


def changed(tmp_path: Path, change: Any) -> Any:
    folder = tiny_model_folder(tmp_path / "model")
    path = folder / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})
    return HuggingFaceSource().open(str(folder))


NAME = "model.layers.1.mlp.up_proj.weight"


def test_a_missing_tensor_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=f"lacks 1 tensors: {NAME}"):
        load_base_model(changed(tmp_path, lambda t: t.pop(NAME)), Dense(), device=CPU)


def test_a_left_over_tensor_is_named(tmp_path: Path) -> None:
    files = changed(tmp_path, lambda t: t.update({"model.extra": torch.zeros(1)}))
    with pytest.raises(ModelError, match=r"unknown to the architecture, 1 tensors: model\.extra"):
        load_base_model(files, Dense(), device=CPU)


def test_a_tensor_of_another_shape_is_named(tmp_path: Path) -> None:
    files = changed(tmp_path, lambda t: t.update({NAME: torch.zeros(3, 64)}))
    with pytest.raises(ModelError, match=r"up_proj.*\[3, 64\].*\[128, 64\]"):
        load_base_model(files, Dense(), device=CPU)


@pytest.mark.parametrize("name", [NAME, "model.norm.weight"])
def test_a_tensor_that_holds_nan_is_named(tmp_path: Path, name: str) -> None:
    files = changed(tmp_path, lambda t: t[name].view(-1)[3:4].fill_(float("nan")))
    with pytest.raises(ModelError, match=f"'{name}' holds NaN"):
        load_base_model(files, Dense(), device=CPU)


@pytest.mark.parametrize("quantizer", [Dense(), Int8(), Nf4()])
def test_a_weight_that_no_quantizer_can_store_is_named(tmp_path: Path, quantizer: Any) -> None:
    """int8 and doubly quantized NF4 made infinity and NaN of it."""
    files = changed(tmp_path, lambda t: t[NAME].view(-1)[3:4].fill_(-3e38))
    with pytest.raises(ModelError, match=rf"'{NAME}' holds numbers up to 3e\+38"):
        load_base_model(files, quantizer, device=CPU)


def test_an_unknown_architecture_is_named(tmp_path: Path) -> None:
    folder = tiny_model_folder(tmp_path / "model")
    config = (folder / "config.json").read_text().replace('"llama"', '"lama"')
    (folder / "config.json").write_text(config)
    with pytest.raises(ModelError, match="no architecture 'lama'"):
        load_base_model(HuggingFaceSource().open(str(folder)), Dense(), device=CPU)


def test_a_models_own_code_is_never_run_but_a_known_architecture_is_loaded(tmp_path: Path) -> None:
    folder = tiny_model_folder(tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoModelForCausalLM": "modeling_evil.Evil"}
    (folder / "modeling_evil.py").write_text("raise SystemExit('it ran')")
    (folder / "config.json").write_text(json.dumps(config))
    load_base_model(HuggingFaceSource().open(str(folder)), Dense(), device=CPU)
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "evil"}))
    with pytest.raises(ModelError, match="own code is never run"):
        load_base_model(HuggingFaceSource().open(str(folder)), Dense(), device=CPU)


def test_a_file_most_of_which_is_of_no_use_is_refused_before_it_is_read(tmp_path: Path) -> None:
    """Its hash would be that of all: a terabyte that takes no room on the disk is read for hours."""
    folder = tiny_model_folder(tmp_path / "model")
    file = folder / "model.safetensors"
    raw = file.read_bytes()
    start = 8 + int.from_bytes(raw[:8], "little")
    header, size = json.loads(raw[8:start]), len(raw) - start
    name = "model.layers.0.self_attn.rotary_emb.inv_freq"
    header[name] = {"dtype": "F32", "shape": [1 << 38], "data_offsets": [size, size + (1 << 40)]}
    text = json.dumps(header).encode()
    with file.open("wb") as written:
        written.write(len(text).to_bytes(8, "little") + text + raw[start:])
        try:
            written.truncate(8 + len(text) + size + (1 << 40))
        except OSError:
            pytest.skip("no file may be as large here")
    with pytest.raises(ModelError, match=f"most of it is of no use to the architecture, such as {name}"):
        check_base_model(HuggingFaceSource().open(str(folder)))
