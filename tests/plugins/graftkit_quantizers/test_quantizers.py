"""The quantizers against bitsandbytes and published figures; tests/contracts holds what all of them promise."""

from __future__ import annotations

import os
import subprocess
import sys

import bitsandbytes.functional as bnb
import pytest
import torch
from graftkit import FrozenWeight, LayerInfo, Quantizer
from graftkit_quantizers import int8_products
from graftkit_quantizers.config import Int8Config, Nf4Config
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


def rounding(weight: torch.Tensor) -> FrozenWeight:
    return stored_by(Int8(Int8Config(products="int8")), weight)


needs_exact_sums = pytest.mark.skipif(
    not int8_products.sums_are_exact(), reason="this processor adds up products of 8 bits in 16 bits"
)


@needs_exact_sums
@pytest.mark.parametrize(("rows", "columns", "tokens"), [(48, 80, 5), (33, 130, 1), (1, 7, 40)])
def test_products_in_int8_are_those_of_bitsandbytes(rows: int, columns: int, tokens: int) -> None:
    weight, x = random_weight(rows, columns), random_weight(tokens, columns, 1) * torch.logspace(-6, 6, tokens)[:, None]
    x[tokens // 2] = 0
    codes, absmax, _ = bnb.int8_vectorwise_quant(weight)
    inputs, largest, _ = bnb.int8_vectorwise_quant(x)
    expected = bnb.int8_linear_matmul(inputs, codes) * (largest[:, None].double() * absmax / 127**2)
    found = rounding(weight)(x.view(1, tokens, columns))
    assert found.shape == (1, tokens, rows) and found.dtype == torch.float32
    assert torch.allclose(found[0].double(), expected, rtol=1e-6, atol=0)


@needs_exact_sums
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradients_in_int8_are_off_by_their_rounding_alone(dtype: torch.dtype) -> None:
    stored = rounding(random_weight(48, 80) * torch.logspace(-3, 0, 48)[:, None])
    x = torch.zeros(6, 80, dtype=dtype, requires_grad=True)
    grad = (random_weight(6, 48, 2) * torch.logspace(-9, 0, 6)[:, None]).to(dtype)
    stored(x).backward(grad)
    assert x.grad is not None and x.grad.dtype == dtype
    exact, scaled = stored.dequantize(torch.float64), grad.double() * stored.state()["absmax"] / 127
    step = scaled.abs().amax(1, keepdim=True) / 127
    most = (
        step / 2 * stored.state()["codes"].double().abs().sum(0)
        + torch.finfo(dtype).eps * (grad.double() @ exact).abs()
    )
    assert ((x.grad - grad.double() @ exact).abs() <= most * 1.001).all()
    assert not torch.allclose(x.grad.double(), grad.double() @ exact, rtol=1e-5)


@needs_exact_sums
def test_where_products_in_int8_are_not_exact_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(int8_products, "sums_are_exact", lambda: False)
    with pytest.warns(UserWarning, match="products: int8 has no effect"):
        Int8(Int8Config(products="int8"))


def test_products_are_exact_but_in_training_and_what_is_no_number_stays_none() -> None:
    weight, x = random_weight(48, 80), random_weight(3, 80, 1)
    exact = stored_by(Int8(), weight)(x)
    stored = rounding(weight)
    again = type(stored).from_state(stored.state(), stored.meta())
    for one in (stored, again):
        assert not torch.equal(one(x), exact)
        assert torch.equal(one.eval()(x), exact)
    for value in (float("nan"), float("inf")):
        x[1, 2] = value
        found = stored.train()(x)
        assert not found[1].isfinite().any() and found[[0, 2]].isfinite().all()


def test_sums_that_have_no_room_in_32_bits_are_computed_in_floating_point() -> None:
    ones = torch.ones(2, 133_145)
    assert rounding(ones)(ones[:1]).tolist() == [[133_145.0, 133_145.0]]
    stored = rounding(ones.T.contiguous())
    x = torch.ones(1, 2, requires_grad=True)
    stored(x).backward(torch.ones(1, 133_145))
    assert x.grad is not None and x.grad.tolist() == [[133_145.0, 133_145.0]]


_FAR_OFF = """
import torch
from graftkit_quantizers.int8 import Int8Weight

torch.manual_seed(0)
stored = Int8Weight(torch.randint(-127, 128, (64, 512), dtype=torch.int8), torch.ones(64), rounds_products=True)
x = torch.rand(8, 512)
found, exact = stored(x), stored.eval()(x)
assert (found - exact).abs().max() < 0.1 * exact.abs().max()
"""


@pytest.mark.parametrize("isa", ["SSE41", "AVX2", "AVX512_CORE", "DEFAULT"])
def test_products_are_right_on_processors_without_instructions_for_them(isa: str) -> None:
    """Those add up pairs of products in 16 bits: results were off by nearly their own size."""
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": isa, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-P", "-c", _FAR_OFF], check=True, env=environment)


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
