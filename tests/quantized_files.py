"""Folders whose linear layers are quantized, written by the formats' documentation, one number after the other."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from graftkit.testing import tiny_model_folder
from graftkit.testing.architectures import ARCHITECTURES
from safetensors.torch import load_file, save_file

Packed = tuple[dict[str, torch.Tensor], torch.Tensor]
"""The tensors of a layer by the ends of their names, and the matrix `[out, in]` that they stand for."""

GROUP = 16


def quantized_folder(
    folder: Path,
    settings: dict[str, Any],
    pack: Callable[[np.random.Generator, int, int], Packed],
    key: str = "quantization_config",
    **config: Any,
) -> dict[str, torch.Tensor]:
    """Writes a tiny model whose linear layers `pack` makes, and returns every tensor as it should be read."""
    tiny_model_folder(folder, **{"tie_word_embeddings": False, **config})
    said = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**said, key: settings}))
    stored, expected, numbers = {}, {}, np.random.default_rng(5)
    for name, tensor in load_file(folder / "model.safetensors").items():
        if not name.endswith("_proj.weight"):
            stored[name] = expected[name] = tensor
            continue
        made, expected[name] = pack(numbers, *tensor.shape)
        stored |= {f"{name.removesuffix('.weight')}.{part}": value.contiguous() for part, value in made.items()}
    save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
    return expected


def scales_of(numbers: np.random.Generator, *shape: int, dtype: torch.dtype = torch.float16) -> torch.Tensor:
    return torch.from_numpy(numbers.uniform(0.002, 0.02, shape)).to(dtype)


def into_words(codes: np.ndarray[Any, Any], bits: int, places: list[int] | None = None) -> torch.Tensor:
    """Packs codes along the last dimension into int32; `places` says where in a word each of its codes goes."""
    a_word = 32 // bits
    words = np.zeros((codes.shape[0], -(-codes.shape[1] // a_word)), np.uint32)
    for column in range(codes.shape[1]):
        place = column % a_word if places is None else places[column % a_word]
        words[:, column // a_word] |= codes[:, column].astype(np.uint32) << np.uint32(bits * place)
    return torch.from_numpy(words.view(np.int32))


def scaled(codes: Any, zeros: Any, scales: torch.Tensor, groups: Any) -> torch.Tensor:
    """Returns `(code - zero) * scale` in the type of the scales: codes `[out, in]`, the others `[out, groups]`."""
    difference = torch.as_tensor(np.asarray(codes, np.int64) - np.asarray(zeros, np.int64)[:, groups])
    return (difference.to(scales.dtype) * scales[:, groups]).float()


def gptq(bits: int, *, act_order: bool = False, less_one: bool = True, group: int = GROUP) -> Callable[..., Packed]:
    def pack(numbers: np.random.Generator, rows: int, columns: int) -> Packed:
        groups = np.arange(columns) // group
        groups = numbers.permutation(groups) if act_order else groups
        codes = numbers.integers(0, 1 << bits, (rows, columns))
        zeros = numbers.integers(1, 1 << bits, (rows, columns // group))
        scales = scales_of(numbers, rows, columns // group)
        return {
            "qweight": into_words(codes, bits).T,
            "qzeros": into_words(zeros.T - less_one, bits),
            "scales": scales.T,
            "g_idx": torch.from_numpy(groups.astype(np.int32)),
        }, scaled(codes, zeros, scales, groups)

    return pack


def awq(numbers: np.random.Generator, rows: int, columns: int) -> Packed:
    order = [0, 2, 4, 6, 1, 3, 5, 7]  # AutoAWQ's: which code is in each place of a word
    places = [order.index(code) for code in range(8)]
    groups = np.arange(columns) // GROUP
    codes = numbers.integers(0, 16, (rows, columns))
    zeros = numbers.integers(0, 16, (rows, columns // GROUP))
    scales = scales_of(numbers, rows, columns // GROUP)
    return {
        "qweight": into_words(codes.T, 4, places),
        "qzeros": into_words(zeros.T, 4, places),
        "scales": scales.T,
    }, scaled(codes, zeros, scales, groups)


def packed_integers(bits: int, *, symmetric: bool = True) -> Callable[..., Packed]:
    """compressed-tensors' "pack-quantized", in groups, its scales in bfloat16."""

    def pack(numbers: np.random.Generator, rows: int, columns: int) -> Packed:
        half, groups = 1 << bits - 1, np.arange(columns) // GROUP
        codes = numbers.integers(-half, half, (rows, columns))
        zeros = np.zeros((rows, columns // GROUP), int)
        zeros = zeros if symmetric else numbers.integers(-half, half, zeros.shape)
        scales = scales_of(numbers, rows, columns // GROUP, dtype=torch.bfloat16)
        tensors = {
            "weight_packed": into_words(codes + half, bits),
            "weight_scale": scales,
            "weight_shape": torch.tensor([rows, columns]),
        }
        if not symmetric:
            tensors["weight_zero_point"] = into_words(zeros.T + half, bits).T
        return tensors, scaled(codes, zeros, scales, groups)

    return pack


def plain_integers(numbers: np.random.Generator, rows: int, columns: int) -> Packed:
    """compressed-tensors' "int-quantized": a scale a row, and one that says how activations are rounded."""
    codes = numbers.integers(-128, 128, (rows, columns))
    scales = scales_of(numbers, rows, 1, dtype=torch.bfloat16)
    tensors = {"weight": torch.from_numpy(codes.astype(np.int8)), "weight_scale": scales}
    tensors["input_scale"] = torch.ones(1)
    return tensors, scaled(codes, np.zeros((rows, 1)), scales, np.zeros(columns, int))


def eight_bit_floats(numbers: np.random.Generator, rows: int, columns: int) -> torch.Tensor:
    values = numbers.normal(0, 60, (rows, columns)).clip(-448, 448)
    return torch.from_numpy(values).to(torch.float8_e4m3fn)


def floats_of_rows(numbers: np.random.Generator, rows: int, columns: int) -> Packed:
    """compressed-tensors' "float-quantized"."""
    codes, scales = eight_bit_floats(numbers, rows, columns), scales_of(numbers, rows, 1, dtype=torch.bfloat16) / 20
    return {"weight": codes, "weight_scale": scales}, (codes.to(torch.bfloat16) * scales).float()


def float_blocks(height: int, width: int, *, powers: bool = False) -> Callable[..., Packed]:
    """FP8 with a scale for each block; of those at the edges less than a block is there."""

    def pack(numbers: np.random.Generator, rows: int, columns: int) -> Packed:
        codes = eight_bit_floats(numbers, rows, columns)
        shape = (-(-rows // height), -(-columns // width))
        scales = scales_of(numbers, *shape, dtype=torch.float32) / 20
        scales = scales.log2().round().exp2() if powers else scales
        spread = scales.repeat_interleave(height, 0)[:rows].repeat_interleave(width, 1)[:, :columns]
        stored = scales.to(torch.float8_e8m0fnu) if powers else scales
        return {"weight": codes, "weight_scale_inv": stored}, codes.float() * spread

    return pack


def float_matrix(numbers: np.random.Generator, rows: int, columns: int) -> Packed:
    codes = eight_bit_floats(numbers, rows, columns)
    return {"weight": codes, "weight_scale_inv": torch.tensor(0.0007)}, codes.float() * torch.tensor(0.0007)


def compressed(format_: str, **weights: Any) -> dict[str, Any]:
    """Returns what config.json says of compressed-tensors."""
    group = {"targets": ["Linear"], "weights": {"symmetric": True, **weights}, "input_activations": None}
    return {"quant_method": "compressed-tensors", "format": format_, "config_groups": {"group_0": group}}


INT4 = {"num_bits": 4, "type": "int", "strategy": "group", "group_size": GROUP}
INT8 = {"num_bits": 8, "type": "int", "strategy": "channel"}
GPTQ = {"quant_method": "gptq", "group_size": GROUP, "sym": False}
AWQ = {"quant_method": "awq", "bits": 4, "group_size": GROUP, "zero_point": True, "version": "gemm"}

FORMATS: dict[str, tuple[dict[str, Any], Callable[..., Packed], str]] = {
    "gptq": ({**GPTQ, "bits": 4, "desc_act": False}, gptq(4), "gptq-int4"),
    "gptq-8": ({**GPTQ, "bits": 8, "desc_act": False, "checkpoint_format": "gptq"}, gptq(8), "gptq-int8"),
    "gptq-act-order": ({**GPTQ, "bits": 4, "desc_act": True}, gptq(4, act_order=True), "gptq-int4"),
    "gptq-v2": (
        {**GPTQ, "bits": 4, "desc_act": False, "checkpoint_format": "gptq_v2"},
        gptq(4, less_one=False),
        "gptq-int4",
    ),
    "awq": (AWQ, awq, "awq-int4"),
    "packed-int4": (compressed("pack-quantized", **INT4), packed_integers(4), "compressed-tensors-int4"),
    "packed-int4-zeros": (
        compressed("pack-quantized", **{**INT4, "symmetric": False}),
        packed_integers(4, symmetric=False),
        "compressed-tensors-int4",
    ),
    "packed-int8": (
        compressed("pack-quantized", **{**INT4, "num_bits": 8}),
        packed_integers(8),
        "compressed-tensors-int8",
    ),
    "int8": (compressed("int-quantized", **INT8), plain_integers, "compressed-tensors-int8"),
    "float8": (
        compressed("float-quantized", **{**INT8, "type": "float"}),
        floats_of_rows,
        "compressed-tensors-float8",
    ),
    "fp8": ({"quant_method": "fp8", "weight_block_size": [48, 40]}, float_blocks(48, 40), "fp8"),
    "fp8-powers": (
        {"quant_method": "fp8", "weight_block_size": [32, 32], "scale_fmt": "ue8m0"},
        float_blocks(32, 32, powers=True),
        "fp8",
    ),
    "fp8-matrix": ({"quant_method": "fp8", "weight_block_size": None}, float_matrix, "fp8"),
}
"""What config.json says, what a layer's tensors are, and the kind as which they are read."""


BITSANDBYTES: dict[str, tuple[dict[str, Any], torch.dtype, dict[str, Any]]] = {
    "nf4": ({"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}, torch.float32, {}),
    "nf4-double": (
        {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True},
        torch.bfloat16,
        {},
    ),
    "fp4-double": (
        {"load_in_4bit": True, "bnb_4bit_quant_type": "fp4", "bnb_4bit_use_double_quant": True},
        torch.float16,
        {},
    ),
    "fp4-in-bfloat16": (
        {"load_in_4bit": True, "bnb_4bit_quant_type": "fp4", "bnb_4bit_quant_storage": torch.bfloat16},
        torch.float32,
        {},
    ),
    "int8": ({"load_in_8bit": True}, torch.float32, {}),
    "nf4-conv1d": ({"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}, torch.float32, ARCHITECTURES["gpt2"]),
    "int8-conv1d": ({"load_in_8bit": True}, torch.float32, ARCHITECTURES["gpt2"]),
}


def bitsandbytes_folder(folder: Path, form: tuple[dict[str, Any], torch.dtype, dict[str, Any]]) -> Path:
    """Writes a tiny model as transformers quantizes and saves it."""
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    fields, dtype, config = form
    dense = tiny_model_folder(folder / "dense", **config)
    quantization = BitsAndBytesConfig(**fields)
    AutoModelForCausalLM.from_pretrained(dense, quantization_config=quantization, dtype=dtype).save_pretrained(
        folder / "m"
    )
    for path in dense.glob("*token*"):
        shutil.copyfile(path, folder / "m" / path.name)
    return folder / "m"
