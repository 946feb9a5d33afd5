"""Every built-in quantizer, against bitsandbytes and against its own promises."""

from __future__ import annotations

import bitsandbytes.functional as bnb
import pytest
import torch
from graftkit import FrozenWeight, Quantizer
from graftkit_quantizers.config import Nf4Config
from graftkit_quantizers.dense import Dense
from graftkit_quantizers.int8 import Int8
from graftkit_quantizers.nf4 import Nf4
from hypothesis import given, settings
from hypothesis import strategies as st

QUANTIZERS: dict[str, Quantizer] = {
    "none": Dense(),
    "nf4": Nf4(),
    "nf4-double": Nf4(Nf4Config(double_quant=True)),
    "nf4-32": Nf4(Nf4Config(blocksize=32)),
    "int8": Int8(),
}


@pytest.fixture(params=QUANTIZERS)
def quantizer(request: pytest.FixtureRequest) -> Quantizer:
    return QUANTIZERS[request.param]


def random_weight(rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("double", [False, True])
def test_nf4_stores_what_bitsandbytes_stores(double: bool) -> None:
    weight = random_weight(96, 256)
    stored = Nf4(Nf4Config(double_quant=double)).quantize(weight)
    codes, state = bnb.quantize_4bit(weight, blocksize=64, compress_statistics=double, quant_type="nf4")
    assert torch.equal(stored.state()["codes"].flatten(), codes.flatten())
    assert torch.equal(stored.dequantize(), bnb.dequantize_4bit(codes, state))


def test_nf4_puts_the_first_of_two_levels_in_the_high_half_of_a_byte() -> None:
    weight = torch.full((1, 64), -1.0)
    weight[0, 1::2] = 1.0
    assert Nf4().quantize(weight).state()["codes"].unique().tolist() == [0x0F]


def test_int8_stores_what_bitsandbytes_stores() -> None:
    weight = random_weight(48, 80)
    stored = Int8().quantize(weight)
    codes, absmax, _ = bnb.int8_vectorwise_quant(weight)
    assert torch.equal(stored.state()["codes"], codes)
    torch.testing.assert_close(stored.dequantize(), bnb.int8_vectorwise_dequant(codes, absmax))


@pytest.mark.parametrize(("blocksize", "expected"), [(32, 0.0677), (64, 0.0728), (128, 0.0768), (4096, 0.0925)])
def test_the_mean_error_on_normal_weights_is_the_published_one(blocksize: int, expected: float) -> None:
    weight = random_weight(256, 4096)
    config = Nf4Config.model_validate({"blocksize": blocksize})
    error = (Nf4(config).quantize(weight).dequantize() - weight).abs().mean().item()
    assert error == pytest.approx(expected, abs=6e-4)


def test_double_quantization_takes_4_127_bits_a_weight() -> None:
    stored = Nf4(Nf4Config(double_quant=True)).quantize(random_weight(1024, 1024))
    assert 8 * stored.nbytes / 1024**2 == pytest.approx(4.127, abs=2e-3)


@settings(max_examples=40, deadline=None)
@given(
    name=st.sampled_from(sorted(QUANTIZERS)),
    rows=st.integers(1, 20),
    columns=st.integers(1, 150),
    scale=st.sampled_from([1e-6, 1.0, 1e4]),
    seed=st.integers(0, 2**31),
)
def test_no_weight_is_off_by_more_than_the_declared_bound(
    name: str, rows: int, columns: int, scale: float, seed: int
) -> None:
    weight = random_weight(rows, columns, seed) * scale
    stored = QUANTIZERS[name].quantize(weight)
    bound = stored.error_bound * weight.abs().amax(1, keepdim=True) + 1e-12
    assert ((stored.dequantize() - weight).abs() <= bound).all()


@pytest.mark.parametrize("shape", [(64, 64), (3, 5), (1, 1), (7, 200), (130, 65)])
def test_the_matrix_product_is_that_of_the_dequantized_weight(quantizer: Quantizer, shape: tuple[int, int]) -> None:
    stored = quantizer.quantize(random_weight(*shape))
    x, grad = random_weight(4, shape[1], 1), random_weight(4, shape[0], 2)
    torch.testing.assert_close(stored.matmul(x), x @ stored.dequantize().T)
    torch.testing.assert_close(stored.matmul_transposed(grad), grad @ stored.dequantize())


def test_gradients_flow_to_the_input_and_never_to_the_weight(quantizer: Quantizer) -> None:
    stored = quantizer.quantize(random_weight(6, 70))
    x = random_weight(5, 70, 3).requires_grad_()
    dense = stored.dequantize()
    (expected,) = torch.autograd.grad((x @ dense.T).square().sum(), x)
    stored(x).square().sum().backward()
    torch.testing.assert_close(x.grad, expected)
    assert all(not p.requires_grad and p.grad is None for p in stored.parameters())


def test_state_gives_the_same_weight_back_bit_for_bit(quantizer: Quantizer) -> None:
    stored = quantizer.quantize(random_weight(9, 130))
    again = type(stored).from_state(stored.state(), stored.meta())
    assert torch.equal(again.dequantize(), stored.dequantize())
    assert again.nbytes == stored.nbytes


def test_a_state_that_does_not_fit_is_refused(quantizer: Quantizer) -> None:
    stored = quantizer.quantize(random_weight(9, 130))
    state = stored.state()
    with pytest.raises(ValueError, match="stored tensors"):
        type(stored).from_state({**state, "extra": torch.zeros(1)}, stored.meta())
    for name in state:
        with pytest.raises(ValueError, match="stored tensor"):
            type(stored).from_state({k: v for k, v in state.items() if k != name}, stored.meta())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_no_number_is_refused(quantizer: Quantizer, value: float) -> None:
    weight = random_weight(4, 64)
    weight[2, 3] = value
    with pytest.raises(ValueError, match="NaN"):
        quantizer.quantize(weight)


@pytest.mark.parametrize("value", [0.0, 0.25])
def test_zeros_and_constants_come_back_exactly(quantizer: Quantizer, value: float) -> None:
    weight = torch.full((3, 128), value)
    torch.testing.assert_close(quantizer.quantize(weight).dequantize(), weight, rtol=4e-3, atol=0)


def test_stored_tensors_are_plain_frozen_parameters(quantizer: Quantizer) -> None:
    stored: FrozenWeight = quantizer.quantize(random_weight(8, 64))
    assert not list(stored.buffers())
    assert all(type(p) is torch.nn.Parameter and not p.requires_grad for p in stored.parameters())
