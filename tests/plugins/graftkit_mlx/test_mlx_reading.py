"""What graftkit reads of mlx's quantized matrices is what mlx itself makes of them."""

from __future__ import annotations

import json
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
import torch
from graftkit.errors import ModelError
from graftkit_mlx.names import layouts_of, published_names, unread
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


def test_stacked_experts_are_read_by_their_published_names(tmp_path: Path) -> None:
    made = {
        "model.layers.0.mlp.switch_mlp.up_proj.weight": [
            "model.layers.0.mlp.experts.0.w1.weight",
            "model.layers.0.mlp.experts.1.w1.weight",
        ],
        "model.norm.weight": ["model.norm.weight"],
        "model.wte.weight": ["model.embed_tokens.weight"],
    }
    layouts = layouts_of(made)
    assert layouts == {
        "model.layers.#.mlp.switch_mlp.up_proj.weight": "model.layers.#.mlp.experts.*.w1.weight",
        "model.wte.weight": "model.embed_tokens.weight",
    }
    assert not unread(made) and unread({"a": []}) == ["a"]
    assert published_names("model.layers.11.mlp.switch_mlp.up_proj.weight", 3, layouts) == [
        f"model.layers.11.mlp.experts.{expert}.w1.weight" for expert in range(3)
    ]
    stack = mx.random.normal((3, 8, 64), key=mx.random.key(0))
    packed, scales, biases = mx.quantize(stack, 64, 4)
    path = "model.layers.11.mlp.switch_mlp.up_proj"
    weights = {f"{path}.weight": packed, f"{path}.scales": scales, f"{path}.biases": biases}
    files = MlxFolder(folder_of(tmp_path, weights, 8, 32, **{path: {"bits": 4, "group_size": 64}}), layouts)
    expected = torch.from_numpy(np.array(mx.dequantize(packed, scales, biases, 64, 4)))
    for expert in range(3):
        name = f"model.layers.11.mlp.experts.{expert}.w1.weight"
        assert files.tensors[name].shape == (8, 64)
        torch.testing.assert_close(files.tensor(name), expected[expert])


@pytest.mark.parametrize(
    ("quantization", "message"),
    [
        ({"bits": 7, "group_size": 64}, "it does not say how 'a' is quantized"),
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
