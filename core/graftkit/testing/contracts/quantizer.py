"""What every quantizer promises."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping

import pytest
import torch
from torch import nn

from graftkit.interfaces.frozen_weight import FrozenWeight
from graftkit.interfaces.quantizer import AdoptingQuantizer
from graftkit.interfaces.stored_weight import StoredWeight
from graftkit.testing.contracts.base import Contract, refusal
from graftkit.testing.contracts.samples import SHAPES, distance, layer_of, normal, uneven, weights

__all__ = ["QuantizerContract"]

FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


class QuantizerContract(Contract):
    """Stores many weights and looks at what comes back.

    Example:
        >>> class TestTernary(QuantizerContract):
        ...     provider = "ternary"
    """

    kind = "quantizer"

    def store(self, weight: torch.Tensor) -> FrozenWeight:
        """Stores a weight with the provider."""
        stored = self.make().quantize(weight, layer_of(weight))
        assert isinstance(stored, FrozenWeight), f"quantize returned {type(stored).__name__}, which is no FrozenWeight"
        return stored.train(not stored.rounds_products)

    def test_no_weight_is_off_by_more_than_the_declared_bound(self) -> None:
        """Over shapes that divide into no blocks, sizes from a millionth to ten thousand, and seeds."""
        for what, weight in weights():
            stored = self.store(weight)
            assert 0 <= stored.error_bound < 1, f"error_bound is {stored.error_bound}: a share from 0 to 1 for {what}"
            check_bound(stored, weight, what)

    def test_the_bound_holds_where_weights_differ_much_in_size(self) -> None:
        """A row is judged by its own largest weight; a bound may depend on the weight that was stored."""
        for what, weight in uneven():
            check_bound(self.store(weight), weight, what)

    def test_the_bound_holds_for_weights_of_every_floating_point_type(self) -> None:
        """A base model's weights may be stored in 16 bits."""
        for dtype in FLOATS:
            weight = normal(9, 130, dtype=dtype)
            check_bound(self.store(weight), weight, f"a weight in {dtype}")

    def test_zeros_stay_zeros_and_constants_stay_near(self) -> None:
        """A block without any spread divides by nothing."""
        zeros = self.store(torch.zeros(3, 130)).dequantize()
        assert torch.equal(zeros, torch.zeros(3, 130)), "a weight of zeros comes back as something else"
        for value in (0.25, -3.0, 1e4):
            weight = torch.full((3, 130), value)
            check_bound(self.store(weight), weight, f"a weight of {value} throughout")

    def test_one_weight_is_always_stored_in_the_same_bits(self) -> None:
        """Whatever the process's random state, which is left as it was."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            before = torch.get_rng_state()
            first = self.store(normal(9, 130)).state()
            assert torch.equal(before, torch.get_rng_state()), "quantize draws from torch's global random state"
            torch.manual_seed(2)
            assert same(first, self.store(normal(9, 130)).state()), "one weight is stored in different bits twice"

    def test_the_given_weight_is_neither_changed_nor_kept(self) -> None:
        """It may lie in a file that is closed afterwards."""
        for dtype in FLOATS:
            weight = normal(9, 130, dtype=dtype)
            stored = self.store(weight)
            assert torch.equal(weight, normal(9, 130, dtype=dtype)), f"quantize changes the {dtype} weight it is given"
            before = stored.dequantize()
            weight.fill_(7.0)
            assert torch.equal(before, stored.dequantize()), "what is stored shares memory with the weight: clone it"

    def test_a_transposed_or_sliced_weight_is_stored_as_its_copy_is(self) -> None:
        """Memory may be laid out in any way."""
        for view in (normal(130, 9).T, normal(9, 260)[:, ::2]):
            stored, copied = self.store(view).state(), self.store(view.contiguous()).state()
            assert same(stored, copied), "a weight that is not contiguous is stored as another: call .contiguous()"

    def test_what_is_no_number_is_refused(self) -> None:
        """NaN and infinity would spoil a whole block, unseen."""
        for value in (float("nan"), float("inf"), float("-inf")):
            for dtype in FLOATS:
                weight = normal(4, 70, dtype=dtype)
                weight[2, 3] = value
                did = refusal(lambda weight=weight: self.store(weight))  # type: ignore[misc]
                assert not did, f"quantize must raise ValueError for a {dtype} weight that holds {value}; it {did}"

    def test_what_is_no_matrix_is_refused(self) -> None:
        """A weight is `[out, in]`."""
        for shape in ((70,), (2, 3, 70)):
            did = refusal(lambda shape=shape: self.store(normal(*shape)))  # type: ignore[misc]
            assert not did, f"quantize must raise ValueError for a weight of the shape {list(shape)}; it {did}"

    def test_sizes_are_those_of_the_weight(self) -> None:
        """Of every shape."""
        for rows, columns in SHAPES:
            stored = self.store(normal(rows, columns))
            sizes = (stored.out_features, stored.in_features)
            assert sizes == (rows, columns), f"[out, in] is {sizes} for a weight of {(rows, columns)}"
            assert tuple(stored.dequantize().shape) == sizes, "dequantize gives another shape"

    def test_products_are_those_of_the_dequantized_weight(self) -> None:
        """`matmul` and its transpose, which the backward pass takes."""
        for rows, columns in SHAPES:
            stored = self.store(normal(rows, columns))
            x, grad, dense = normal(4, columns, seed=1), normal(4, rows, seed=2), stored.dequantize()
            off = distance(stored.matmul(x), x @ dense.T)
            assert off < 1e-4, f"matmul is off by {off:.1e} of the product with dequantize(), at {[rows, columns]}"
            off = distance(stored.matmul_transposed(grad), grad @ dense)
            assert off < 1e-4, f"matmul_transposed is off by {off:.1e} of grad @ dequantize(), at {[rows, columns]}"

    @pytest.mark.parametrize("dtype", FLOATS, ids=str)
    def test_it_computes_in_every_floating_point_type(self, dtype: torch.dtype) -> None:
        """Inputs of any rank; results have the input's type and differ by its rounding alone."""
        stored = self.store(normal(9, 130))
        exact, rounding = stored.dequantize(torch.float64), torch.finfo(dtype).eps
        dense = stored.dequantize(dtype)
        assert dense.dtype == dtype, f"dequantize({dtype}) returns {dense.dtype}"
        assert distance(dense, exact) <= 2 * rounding, f"dequantize({dtype}) differs by more than its rounding"
        for shape in ((130,), (4, 130), (2, 3, 130)):
            x = normal(*shape, seed=1, dtype=dtype)
            y = stored(x)
            assert y.dtype == dtype, f"an input in {dtype} gives a result in {y.dtype}"
            off = distance(y, x.double() @ exact.T)
            assert off <= 8 * rounding, f"in {dtype} the product with {list(shape)} is off by {off:.1e}"

    def test_gradients_reach_the_input_and_never_the_weight(self) -> None:
        """Frozen means frozen."""
        stored = self.store(normal(6, 70))
        x = normal(5, 70, seed=3).requires_grad_()
        (expected,) = torch.autograd.grad((x @ stored.dequantize().T).square().sum(), x)
        stored(x).square().sum().backward()
        assert x.grad is not None, "no gradient reaches the input"
        off = distance(x.grad, expected)
        assert off < 1e-4, f"the input's gradient is off by {off:.1e}: see matmul_transposed"
        touched = [name for name, p in stored.named_parameters() if p.requires_grad or p.grad is not None]
        assert not touched, f"{', '.join(touched)} must be Parameter(..., requires_grad=False)"

    def test_stored_tensors_are_plain_frozen_parameters(self) -> None:
        """No tensor subclasses, whose attributes get lost, and no buffers, which sharding replicates."""
        stored = self.store(normal(9, 130))
        buffers = [name for name, _ in stored.named_buffers()]
        assert not buffers, f"{', '.join(buffers)} must be Parameters, not buffers"
        for name, parameter in stored.named_parameters():
            plain = type(parameter) is nn.Parameter and type(parameter.data) is torch.Tensor
            assert plain, f"{name} is a {type(parameter).__name__}, no plain Parameter of a plain tensor"
        assert stored.state(), "state() is empty: what is stored must be Parameters"

    def test_nbytes_is_the_size_of_the_state(self) -> None:
        """What a forecast of memory is judged by."""
        stored = self.store(normal(64, 256))
        size = sum(tensor.nbytes for tensor in stored.state().values())
        assert stored.nbytes == size, f"nbytes is {stored.nbytes}, the tensors of state() take {size}"

    def test_as_many_bytes_are_stored_as_the_forecast_says(self) -> None:
        """`stored_bytes` of the config model is exact, or None."""
        for rows, columns in SHAPES:
            for dtype in (torch.float32, torch.bfloat16):
                weight = normal(rows, columns, dtype=dtype)
                said = self.choice.config.stored_bytes(layer_of(weight), weight.itemsize)
                found = self.store(weight).nbytes
                assert said in (None, found), (
                    f"stored_bytes() says {said} for {[rows, columns]} in {dtype}; nbytes is {found}"
                )

    def test_what_is_stored_in_a_format_of_others_is_not_taken_over(self) -> None:
        """`adopt`, where there is one, returns None for a kind that it does not know; it is dequantized then."""
        quantizer = self.make()
        if not isinstance(quantizer, AdoptingQuantizer):
            return
        weight = normal(9, 130)
        for meta in ({}, self.store(weight).meta()):
            stored = StoredWeight("a format of nobody", (9, 130), self.store(weight).state(), meta)
            taken = quantizer.adopt(stored, layer_of(weight))
            assert taken is None, "adopt takes over a weight of a kind that nobody has defined: look at stored.kind"

    def test_the_state_gives_the_same_weight_back_bit_for_bit(self) -> None:
        """As tensors in a safetensors file, and JSON."""
        from safetensors.torch import load, save

        for rows, columns in SHAPES:
            stored = self.store(normal(rows, columns))
            meta = json.loads(json.dumps(stored.meta()))
            again = type(stored).from_state(load(save(stored.state())), meta)
            assert same(again.state(), stored.state()), f"from_state changes the tensors of {[rows, columns]}"
            assert torch.equal(again.dequantize(), stored.dequantize()), "the weight from its state is another"
            kept = (again.nbytes, again.meta(), again.error_bound)
            assert kept == (stored.nbytes, stored.meta(), stored.error_bound), "its state loses nbytes, meta or bound"

    def test_a_state_with_a_tensor_too_few_or_too_many_is_refused(self) -> None:
        """Nothing is filled in or ignored silently."""
        stored = self.store(normal(9, 130))
        state = stored.state()
        check_refused(stored, {**state, "left_over": torch.zeros(1)}, "a tensor more, 'left_over'")
        for name in state:
            check_refused(stored, {k: v for k, v in state.items() if k != name}, f"no tensor '{name}'")

    def test_a_state_with_a_tensor_of_another_shape_or_type_is_refused(self) -> None:
        """One that is a row short may only be accepted where it makes a whole, smaller weight."""
        for rows, columns in ((9, 130), (1, 64)):
            stored = self.store(normal(rows, columns))
            for name, tensor in stored.state().items():
                for what, wrong in _misshapen(tensor):
                    check_refused(stored, {**stored.state(), name: wrong}, f"'{name}' {what}")
                if tensor.ndim:
                    check_short(stored, {**stored.state(), name: tensor[:-1]}, f"'{name}' one row short")

    def test_moved_and_copied_weights_are_the_same(self) -> None:
        """`.to(device)`, `.float()` of a whole model, and `copy.deepcopy`."""
        stored = self.store(normal(9, 130))
        dense = stored.dequantize()
        for what, other in (
            ("copy.deepcopy", copy.deepcopy(stored)),
            ('.to("cpu")', copy.deepcopy(stored).to("cpu")),
            (".float()", copy.deepcopy(stored).float()),
        ):
            assert torch.equal(other.dequantize(), dense), f"after {what} the weight is another"
            assert torch.equal(other(normal(2, 130)), stored(normal(2, 130))), f"after {what} the product is another"


def check_bound(stored: FrozenWeight, weight: torch.Tensor, what: str) -> None:
    """Compares each weight's error with the declared share of the largest weight in its row.

    Args:
        stored: The weight as it is stored.
        weight: The one that it was made of.
        what: What that is called, for the error.
    """
    __tracebackhide__ = True
    largest = weight.double().abs().amax(1, keepdim=True)
    error = (stored.dequantize(torch.float64) - weight.double()).abs() / largest.clamp(min=1e-300)
    worst, bound = error.nan_to_num(float("inf")).max().item(), stored.error_bound
    assert worst <= bound * (1 + 1e-6), f"{what}: off by {worst:.4g} of its row's largest; error_bound is {bound:.4g}"


def check_refused(stored: FrozenWeight, state: Mapping[str, torch.Tensor], what: str) -> None:
    """Makes sure that `from_state` says no.

    Args:
        stored: The weight whose class is asked.
        state: A state that is no weight's.
        what: What is wrong with it, for the error.
    """
    __tracebackhide__ = True
    did = refusal(lambda: type(stored).from_state(state, stored.meta()))
    assert not did, f"from_state must raise ValueError for a state with {what}; it {did}"


def check_short(stored: FrozenWeight, state: Mapping[str, torch.Tensor], what: str) -> None:
    """Makes sure that `from_state` says no, or gives a weight that is whole in itself and knows its size.

    Args:
        stored: The weight whose class is asked.
        state: A state with fewer rows or blocks.
        what: What is wrong with it, for the error.
    """
    __tracebackhide__ = True

    def take() -> None:
        short = type(stored).from_state(state, stored.meta())
        sizes = (short.out_features, short.in_features)
        if tuple(short.dequantize().shape) == sizes != (stored.out_features, stored.in_features):
            raise ValueError("a whole, smaller weight")

    did = refusal(take)
    assert not did, f"from_state must raise ValueError for a state with {what}; it {did}"


def _misshapen(tensor: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
    other = torch.int32 if tensor.is_floating_point() else torch.float32
    yield "with a dimension more", tensor.unsqueeze(0)
    yield f"in {other}", tensor.to(other)


def same(first: Mapping[str, torch.Tensor], second: Mapping[str, torch.Tensor]) -> bool:
    """Tells whether two states are equal, bit for bit."""
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
