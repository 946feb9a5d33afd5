"""Blocks of GGUF: every bit that the gguf package makes of them, and what is known of a block by hand."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType
from gguf.quants import dequantize
from graftkit_gguf.block_weight import BlockWeight
from graftkit_gguf.blocks import BLOCKS, dequantize_blocks

SCALES = {
    "Q4_0": (0,),
    "Q4_1": (0, 2),
    "Q5_0": (0,),
    "Q5_1": (0, 2),
    "Q8_0": (0,),
    "Q4_K": (0, 2),
    "Q5_K": (0, 2),
    "Q6_K": (208,),
}
"""Where a block's float16 numbers lie."""


def random_blocks(type_: str, rows: int, columns: int) -> torch.Tensor:
    """Returns rows of blocks: any bytes, and scales of every size, subnormal and negative ones among them."""
    random, kind = np.random.default_rng(0), BLOCKS[type_]
    blocks = random.integers(0, 256, (rows * columns // kind.block, kind.nbytes), dtype=np.uint8)
    for at in SCALES[type_]:
        scales = random.normal(size=(len(blocks), 1)) * 10.0 ** random.integers(-7, 4, (len(blocks), 1))
        blocks[:, at : at + 2] = scales.astype(np.float16).view(np.uint8)
    return torch.from_numpy(blocks.reshape(rows, -1))


def reference(type_: str, blocks: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(dequantize(blocks.numpy(), GGMLQuantizationType[type_]))


def test_every_type_is_looked_at() -> None:
    assert SCALES.keys() == BLOCKS.keys()


@pytest.mark.parametrize("type_", BLOCKS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_every_bit_is_that_of_the_gguf_package(type_: str, dtype: torch.dtype) -> None:
    """In more values than one piece, and not a whole number of pieces."""
    blocks = random_blocks(type_, 90, 1024)
    out = torch.full((90, 1024), torch.nan, dtype=dtype)
    dequantize_blocks(type_, blocks, out)
    expected = reference(type_, blocks).to(dtype)
    bits = {2: torch.int16, 4: torch.int32, 8: torch.int64}[dtype.itemsize]
    assert torch.equal(out.view(bits), expected.view(bits))


def half(value: float) -> list[int]:
    return list(np.float16(value).tobytes())


# Nibbles 0..15 twice; the first half of a block lies in the low nibbles, the second in the high ones.
_NIBBLES = [low | (15 - low) << 4 for low in range(16)]
_RISING, _FALLING = list(range(16)), list(range(15, -1, -1))
KNOWN: dict[str, tuple[list[int], list[float]]] = {
    "Q4_0": ([*half(0.5), *_NIBBLES], [0.5 * (q - 8) for q in _RISING + _FALLING]),
    "Q4_1": ([*half(0.5), *half(-3), *_NIBBLES], [0.5 * q - 3 for q in _RISING + _FALLING]),
    "Q5_0": (  # the fifth bit of values 0, 9 and 31
        [*half(2), 1, 2, 0, 128, *_NIBBLES],
        [2 * (q + 16 * (at in (0, 9, 31)) - 16) for at, q in enumerate(_RISING + _FALLING)],
    ),
    "Q5_1": (
        [*half(2), *half(1), 1, 2, 0, 128, *_NIBBLES],
        [2 * (q + 16 * (at in (0, 9, 31))) + 1 for at, q in enumerate(_RISING + _FALLING)],
    ),
    "Q8_0": ([*half(0.25), *range(16), *range(240, 256)], [0.25 * q for q in [*range(16), *range(-16, 0)]]),
    "Q4_K": (  # group 0: scale 3, minimum 5; group 4: scale 17, minimum 33, whose upper two bits lie apart
        [*half(1), *half(2), 3 | 1 << 6, 0, 0, 0, 5 | 2 << 6, 0, 0, 0, 1 | 1 << 4, 0, 0, 0]
        + [7] * 32 + [0] * 32 + [9] * 32 + [0] * 32,
        [3 * 7 - 2 * 5] * 32 + [0] * 96 + [17 * 9 - 2 * 33] * 32 + [0] * 96,
    ),
    "Q5_K": (  # the fifth bit of group 4's values is bit 4
        [*half(1), *half(2), 3 | 1 << 6, 0, 0, 0, 5 | 2 << 6, 0, 0, 0, 1 | 1 << 4, 0, 0, 0]
        + [1 << 4] * 32 + [7] * 32 + [0] * 32 + [9] * 32 + [0] * 32,
        [3 * 7 - 2 * 5] * 32 + [0] * 96 + [17 * 25 - 2 * 33] * 32 + [0] * 96,
    ),
    "Q6_K": (  # the last group of 16 has the scale -2, its values 11 + 2 * 16; all others have none
        [0] * 112 + [11 << 4] * 16 + [0] * 48 + [2 << 6] * 16 + [0] * 15 + [254, *half(0.5)],
        [0] * 240 + [0.5 * -2 * (11 + 32 - 32)] * 16,
    ),
}  # fmt: skip


@pytest.mark.parametrize("type_", BLOCKS)
def test_known_blocks_have_the_values_of_the_format(type_: str) -> None:
    stored, values = KNOWN[type_]
    out = torch.empty(len(values))
    dequantize_blocks(type_, torch.tensor(stored, dtype=torch.uint8), out)
    assert out.tolist() == values


@pytest.mark.parametrize("type_", BLOCKS)
def test_products_and_gradients_are_those_of_the_dequantized_blocks(type_: str) -> None:
    blocks = random_blocks(type_, 24, 512)
    weight, dense = BlockWeight(type_, blocks), reference(type_, blocks)
    x = torch.randn(3, 5, 512, requires_grad=True)
    y = weight(x)
    other = BlockWeight(type_, random_blocks(type_, 48, 512))
    other(x.detach())  # overwrites the shared buffer between the two passes
    y.square().sum().backward()
    expected = torch.randn_like(x).copy_(x.detach()).requires_grad_()
    (expected @ dense.T).square().sum().backward()
    torch.testing.assert_close(y, x @ dense.T, rtol=1e-4, atol=1e-4 * float(y.detach().abs().max()))
    torch.testing.assert_close(x.grad, expected.grad, rtol=1e-4, atol=1e-4 * float(expected.grad.abs().max()))
    assert weight.nbytes == blocks.nbytes and weight.error_bound == 0


def test_a_product_that_autograd_keeps_is_not_in_the_shared_buffer() -> None:
    """An adapter may call `matmul` itself."""
    blocks = random_blocks("Q8_0", 8, 64)
    weight, other = BlockWeight("Q8_0", blocks), BlockWeight("Q8_0", random_blocks("Q8_0", 16, 64) ^ 1)
    x = torch.ones(1, 64, requires_grad=True)
    y = weight.matmul(x)
    other.matmul(x.detach())
    y.sum().backward()
    torch.testing.assert_close(x.grad, reference("Q8_0", blocks).sum(0, keepdim=True))


def test_a_copied_weight_is_another_with_the_same_blocks() -> None:
    weight = BlockWeight("Q4_K", random_blocks("Q4_K", 4, 256))
    for other in (copy.deepcopy(weight), copy.deepcopy(weight).float(), copy.deepcopy(weight).to("cpu")):
        assert other.blocks.data_ptr() != weight.blocks.data_ptr()
        assert torch.equal(other.dequantize(), weight.dequantize())


@pytest.mark.parametrize(
    ("meta", "tensors", "told"),
    [
        ({"type": "Q9_9"}, {}, "'Q9_9' are not known"),
        ({"in_features": 512}, {}, "not torch.uint8 .4, 544."),
        ({}, {"left_over": torch.ones(1)}, "left_over"),
    ],
)
def test_a_state_that_does_not_fit_is_refused(meta: dict[str, Any], tensors: dict[str, Any], told: str) -> None:
    weight = BlockWeight("Q8_0", random_blocks("Q8_0", 4, 64))
    with pytest.raises(ValueError, match=told):
        BlockWeight.from_state(weight.state() | tensors, weight.meta() | meta)
