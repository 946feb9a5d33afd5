"""The quantizers against bitsandbytes and published figures; tests/contracts holds what all of them promise."""

from __future__ import annotations

import bitsandbytes.functional as bnb
import pytest
import torch
from graftkit import FrozenWeight, LayerInfo, Quantizer
from graftkit_quantizers.config import Nf4Config
from graftkit_quantizers.int8 import Int8
from graftkit_quantizers.nf4 import Nf4


def random_weight(rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def stored_by(quantizer: Quantizer, weight: torch.Tensor) -> FrozenWeight:
    return quantizer.quantize(weight, LayerInfo("layer", "linear", *weight.shape))


@pytest.mark.parametrize("double", [False, True])
def test_nf4_stores_what_bitsandbytes_stores(double: bool) -> None:
    weight = random_weight(96, 256)
    stored = stored_by(Nf4(Nf4Config(double_quant=double)), weight)
    codes, state = bnb.quantize_4bit(weight, blocksize=64, compress_statistics=double, quant_type="nf4")
    assert torch.equal(stored.state()["codes"].flatten(), codes.flatten())
    assert torch.equal(stored.dequantize(), bnb.dequantize_4bit(codes, state))


def test_nf4_puts_the_first_of_two_levels_in_the_high_half_of_a_byte() -> None:
    weight = torch.full((1, 64), -1.0)
    weight[0, 1::2] = 1.0
    assert stored_by(Nf4(), weight).state()["codes"].unique().tolist() == [0x0F]


def test_int8_stores_what_bitsandbytes_stores() -> None:
    weight = random_weight(48, 80)
    stored = stored_by(Int8(), weight)
    codes, absmax, _ = bnb.int8_vectorwise_quant(weight)
    assert torch.equal(stored.state()["codes"], codes)
    assert torch.equal(stored.dequantize(), bnb.int8_vectorwise_dequant(codes, absmax))


def test_int8_keeps_rows_of_zeros_and_weights_beyond_float16() -> None:
    weight = random_weight(4, 80)
    weight[1], weight[2] = 0.0, weight[2] * 1e6
    found = stored_by(Int8(), weight).dequantize()
    assert torch.equal(found[1], weight[1])
    assert (found[2] - weight[2]).abs().max() <= weight[2].abs().max() / 253


@pytest.mark.parametrize(("blocksize", "expected"), [(32, 0.0677), (64, 0.0728), (128, 0.0768), (4096, 0.0925)])
def test_the_mean_error_on_normal_weights_is_the_published_one(blocksize: int, expected: float) -> None:
    weight = random_weight(256, 4096)
    config = Nf4Config.model_validate({"blocksize": blocksize})
    error = (stored_by(Nf4(config), weight).dequantize() - weight).abs().mean().item()
    assert error == pytest.approx(expected, abs=6e-4)


def test_double_quantization_takes_4_127_bits_a_weight() -> None:
    stored = stored_by(Nf4(Nf4Config(double_quant=True)), random_weight(1024, 1024))
    assert 8 * stored.nbytes / 1024**2 == pytest.approx(4.127, abs=2e-3)


def test_double_quantized_scales_are_as_good_as_the_bound_says_and_it_says_when_they_are_lost() -> None:
    nf4 = Nf4(Nf4Config(double_quant=True))
    assert stored_by(nf4, random_weight(128, 256)).error_bound < 0.16
    tiny_records = random_weight(128, 256) * torch.logspace(-6, 0, 128).unsqueeze(1)
    assert stored_by(nf4, tiny_records).error_bound > 1
