"""What graftkit reads of mlx's quantized matrices is what mlx itself makes of them."""

from __future__ import annotations

import json
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
import torch
from graftkit import ProofRequest
from graftkit.errors import ExportError, ModelError
from graftkit_mlx.exporter import MlxExporter
from graftkit_mlx.names import layouts_of, unread
from graftkit_mlx.reading import MlxFolder

SIZES = [(bits, group) for bits in (2, 3, 4, 5, 6, 8) for group in (32, 64, 128)]


def folder_of(path: Path, weights: dict[str, mx.array], bits: int, group: int, **own: object) -> Path:
    mx.save_safetensors(str(path / "model.safetensors"), weights)
    said = {"bits": bits, "group_size": group, **own}
    (path / "config.json").write_text(json.dumps({"model_type": "llama", "quantization": said}))
    return path


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize(("bits", "group"), SIZES)
def test_every_number_of_bits_is_read_as_mlx_reads_it(bits: int, group: int, dtype: str, tmp_path: Path) -> None:
    kind = getattr(mx, dtype)
    whole = mx.random.normal((24, 256), key=mx.random.key(bits)).astype(kind)
    packed, scales, biases = mx.quantize(whole, group, bits)
    weights = {"a.weight": packed, "a.scales": scales, "a.biases": biases, "b.weight": whole, "b.bias": whole[0]}
    files = MlxFolder(folder_of(tmp_path, weights, bits, group), {})
    assert {name: info.shape for name, info in files.tensors.items()} == {
        "a.weight": (24, 256),
        "b.weight": (24, 256),
        "b.bias": (256,),
    }
    # In float32, so that the product of scale and number is not rounded.
    exact = mx.dequantize(packed, scales.astype(mx.float32), biases.astype(mx.float32), group, bits)
    torch.testing.assert_close(files.tensor("a.weight"), torch.from_numpy(np.array(exact)), atol=1e-6, rtol=1e-6)
    original = torch.from_numpy(np.array(whole.astype(mx.float32)))
    assert torch.equal(files.tensor("b.weight"), original)
    steps = files.steps("a.weight")
    assert steps is not None and steps.shape == (24, 256)
    # mlx keeps one end of a group exactly, and the other may be cut off by more than half a step.
    off = (files.tensor("a.weight") - original).abs()
    assert (off <= 0.51 * steps).float().mean() > 0.9 and (off <= 1.01 * steps).all()


def test_experts_are_read_as_the_architecture_has_them(tmp_path: Path) -> None:
    made = {
        "model.layers.0.mlp.experts.gate_up_proj": [
            "model.layers.0.moe.switch_mlp.gate_proj.weight",
            "model.layers.0.moe.switch_mlp.up_proj.weight",
        ],
        "model.norm.weight": ["model.norm.weight"],
        "model.embed_tokens.weight": ["model.wte.weight"],
    }
    layouts = layouts_of(made)
    assert layouts == {
        "model.layers.#.mlp.experts.gate_up_proj": [
            "model.layers.#.moe.switch_mlp.gate_proj.weight",
            "model.layers.#.moe.switch_mlp.up_proj.weight",
        ],
        "model.embed_tokens.weight": ["model.wte.weight"],
    }
    assert not unread(made) and unread({"a": []}) == ["a"]
    stacks = [mx.random.normal((3, 8, 64), key=mx.random.key(seed)).astype(mx.float16) for seed in range(2)]
    weights, own, expected = {}, {}, []
    for name, stack in zip(("gate_proj", "up_proj"), stacks, strict=True):
        path = f"model.layers.11.moe.switch_mlp.{name}"
        packed, scales, biases = mx.quantize(stack, 64, 4)
        weights |= {f"{path}.weight": packed, f"{path}.scales": scales, f"{path}.biases": biases}
        own[path] = {"bits": 4, "group_size": 64}
        exact = mx.dequantize(packed, scales.astype(mx.float32), biases.astype(mx.float32), 64, 4)
        expected.append(torch.from_numpy(np.array(exact)))
    weights["model.wte.weight"] = stacks[0][0]
    files = MlxFolder(folder_of(tmp_path, weights, 8, 32, **own), layouts)
    name = "model.layers.11.mlp.experts.gate_up_proj"
    assert {name: info.shape for name, info in files.tensors.items()} == {
        name: (3, 16, 64),
        "model.embed_tokens.weight": (8, 64),
    }
    torch.testing.assert_close(files.tensor(name), torch.cat(expected, 1), atol=1e-6, rtol=1e-6)
    steps = files.steps(name)
    assert steps is not None and steps.shape == (3, 16, 64)
    del weights["model.layers.11.moe.switch_mlp.up_proj.weight"]
    with pytest.raises(ModelError, match="there is no 'model.layers.11.moe.switch_mlp.up_proj.weight'"):
        MlxFolder(folder_of(tmp_path, weights, 8, 32, **own), layouts)


@pytest.mark.parametrize(
    ("quantization", "message"),
    [
        ({"bits": 7, "group_size": 64}, "it does not say how 'a' is quantized"),
        ({"bits": 4.0, "group_size": 64}, "it does not say how 'a' is quantized"),
        ({"bits": 4, "group_size": 64.0}, "it does not say how 'a' is quantized"),
        ({"bits": "4", "group_size": 64}, "it does not say how 'a' is quantized"),
        ({"bits": 4, "group_size": 64, "mode": "mxfp4"}, "it does not say how 'a' is quantized"),
        ({"bits": 4, "group_size": 64, "a": [4]}, "it does not say how 'a' is quantized"),
        ([4], "it does not say how 'a' is quantized"),
        ({"bits": 3, "group_size": 64}, "'a.weight' is no matrix of numbers of 3 bits"),
        ({"bits": 4, "group_size": 32}, "'a.weight' is no matrix of numbers of 4 bits"),
    ],
)
def test_a_folder_that_says_otherwise_how_it_is_quantized_is_refused(
    quantization: object, message: str, tmp_path: Path
) -> None:
    packed, scales, biases = mx.quantize(mx.zeros((8, 64)), 64, 4)
    folder = folder_of(tmp_path, {"a.weight": packed, "a.scales": scales, "a.biases": biases}, 4, 64)
    assert MlxFolder(folder, {}).tensors["a.weight"].shape == (8, 64)
    (folder / "config.json").write_text(json.dumps({"quantization": quantization}))
    with pytest.raises(ModelError, match=message):
        MlxFolder(folder, {})


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"a.weight": mx.zeros((8, 8), mx.int32)}, "'a.weight' is no matrix of numbers of 4 bits"),
        ({"a.weight": mx.zeros((), mx.uint32)}, "'a.weight' is no matrix of numbers of 4 bits"),
        ({"a.weight": mx.zeros((8,), mx.uint32)}, "'a.weight' is no matrix of numbers of 4 bits"),
        ({"a.scales": mx.zeros(())}, "'a.weight' is no matrix of numbers of 4 bits"),
        ({"a.biases": mx.zeros((4, 1))}, "'a.weight' is no matrix of numbers of 4 bits"),
        ({"a.biases": mx.zeros((8, 1), mx.int32)}, "'a.biases' is missing, or holds no numbers of BF16, F16, F32"),
        ({"a.biases": None}, "'a.biases' is missing, or holds no numbers of BF16, F16, F32"),
        ({"b.weight": mx.zeros((8,), mx.int8)}, "'b.weight' is missing, or holds no numbers of BF16, F16, F32"),
    ],
)
def test_tensors_of_another_kind_or_shape_are_refused(
    changed: dict[str, mx.array | None], message: str, tmp_path: Path
) -> None:
    packed, scales, biases = mx.quantize(mx.zeros((8, 64)), 64, 4)
    weights = {"a.weight": packed, "a.scales": scales, "a.biases": biases, **changed}
    folder = folder_of(tmp_path, {name: each for name, each in weights.items() if each is not None}, 4, 64)
    with pytest.raises(ModelError, match=message):
        MlxFolder(folder, {})


@pytest.mark.parametrize("layouts", [{"a": []}, {"a": 3}, {"a": "b"}, {"a": [["b"]]}, {"a": None}])
def test_a_file_of_names_that_gives_no_lists_is_refused(layouts: object, tmp_path: Path) -> None:
    (tmp_path / "transformers_names.json").write_text(json.dumps(layouts))
    request = ProofRequest(tmp_path, [], torch.nn.Identity)
    with pytest.raises(ExportError, match="it does not give lists of names"):
        MlxExporter().reading(request)


def test_a_tensor_that_two_files_have_is_refused_quantized_or_not(tmp_path: Path) -> None:
    """mlx-lm takes either, by the order in which the system lists files: a proof would hold on one machine alone."""
    folder = folder_of(tmp_path, {"a.weight": mx.zeros((8, 64))}, 4, 64)
    mx.save_safetensors(str(folder / "model-x.safetensors"), {"a.weight": mx.ones((8, 64))})
    with pytest.raises(ModelError, match="'a.weight' is in model-x.safetensors, too"):
        MlxFolder(folder, {})
    with pytest.raises(ModelError, match="'a.weight' is in model-x.safetensors, too"):
        MlxExporter().logits(ProofRequest(folder, [], torch.nn.Identity))
