"""A trained model on another base than it was trained on: what an adapter can be merged onto.

An adapter that was trained on quantized weights may be merged onto those, dequantized: what was trained. Merged onto
the original weights it computes something else, since it has learnt to make up for some of what quantizing lost; and
merged and quantized again, since quantizing rounds what it adds. Here a model computes each of these in its own place:
a layer's other matrix is made when it is used and let go then, so that no second model is in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from graftkit.interfaces.adapted_weight import AdaptedWeight
from graftkit.interfaces.exporter import MergeBase
from graftkit.interfaces.frozen_weight import FrozenWeight
from graftkit.interfaces.layer import LayerInfo, OriginalWeights
from graftkit.interfaces.quantizer import Quantizer
from graftkit.model.adapt import merged
from graftkit.model.linear import FrozenLinear
from graftkit.model.made_weight import MadeWeight
from graftkit.model.outer_layers import OuterLayer

__all__ = ["as_merged", "on_base", "rounds"]


def rounds(quantizer: Quantizer, layers: Sequence[LayerInfo]) -> bool:
    """Tells whether a quantizer rounds, by a matrix of random numbers in the place of the smallest layer's."""
    if not layers:
        return False
    smallest = min(layers, key=lambda layer: layer.out_features * layer.in_features)
    shape = smallest.out_features, smallest.in_features
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    return not torch.equal(quantizer.quantize(weight, smallest).dequantize(), weight)


@contextmanager
def on_base(network: nn.Module, onto: MergeBase, originals: OriginalWeights) -> Iterator[None]:
    """Has an adapted model compute on another base, and `AdaptedModel.merged_tensors` yield it, as long as it lasts.

    On "original" the adapter itself stands on the base model's own weights. On "requantized" each layer's merged weight
    is quantized again, of layers without an adapter, too. "dequantized" changes nothing.

    Args:
        network: The model.
        onto: The base.
        originals: Reads a layer's original weight, and quantizes as the layer's own was.
    """
    if onto == "dequantized":
        yield
        return

    def original(layer: FrozenLinear) -> FrozenWeight:
        own, info = layer.frozen, layer.info
        device = next(own.parameters()).device

        def read() -> torch.Tensor:
            found = originals.original(info)
            return own.dequantize() if found is None else found.to(device)

        return MadeWeight(info, read, device)

    if onto == "original":
        with _frozen_weights(network, original):
            yield
        return

    def requantized(layer: FrozenLinear) -> torch.Tensor:
        return originals.quantize(merged(layer)[0], layer.info).dequantize()

    with _merged_layers(network, requantized):
        yield


@contextmanager
def as_merged(network: nn.Module, dtype: torch.dtype) -> Iterator[None]:
    """Has each layer of an adapted model compute with its merged weight, rounded to the type that it is stored in.

    Args:
        network: The model.
        dtype: The type.
    """
    with _merged_layers(network, lambda layer: merged(layer)[0].to(dtype).float()):
        yield


def _quantized_layers(network: nn.Module) -> list[FrozenLinear]:
    """Returns the layers whose weights a quantizer has stored: all within the blocks, the same on every base."""
    modules = network.modules()
    return [module for module in modules if isinstance(module, FrozenLinear) and not isinstance(module, OuterLayer)]


@contextmanager
def _frozen_weights(network: nn.Module, other: Callable[[FrozenLinear], FrozenWeight]) -> Iterator[None]:
    """Puts another frozen weight below each layer's adapter, or in its place where there is none."""
    layers = _quantized_layers(network)
    before = [(layer, layer.frozen) for layer in layers]
    made = [other(layer) for layer in layers]
    try:
        for layer, weight in zip(layers, made, strict=True):
            _put_below(layer, weight)
        yield
    finally:
        for layer, weight in before:
            _put_below(layer, weight)


@contextmanager
def _merged_layers(network: nn.Module, make: Callable[[FrozenLinear], torch.Tensor]) -> Iterator[None]:
    """Puts a matrix made of each layer in the place of weight and adapter, its merged bias beside it."""
    layers = _quantized_layers(network)
    before = [(layer, layer.core, layer.bias) for layer in layers]
    try:
        for layer in layers:
            layer.core, layer.bias = _made_of(_apart(layer), make)
        yield
    finally:
        for layer, core, bias in before:
            layer.core, layer.bias = core, bias


def _made_of(
    layer: FrozenLinear, make: Callable[[FrozenLinear], torch.Tensor]
) -> tuple[FrozenWeight, nn.Parameter | None]:
    core, bias = layer.core, layer.bias
    change = core.bias_delta() if isinstance(core, AdaptedWeight) else None
    if bias is not None and change is not None:
        bias = nn.Parameter((bias.float() + change.to(bias.device)).to(bias.dtype), requires_grad=False)
    device = next(layer.frozen.parameters()).device
    return MadeWeight(layer.info, lambda: make(layer), device), bias


def _put_below(layer: FrozenLinear, weight: FrozenWeight) -> None:
    if isinstance(layer.core, AdaptedWeight):
        layer.core.frozen = weight
    else:
        layer.core = weight


def _apart(layer: FrozenLinear) -> FrozenLinear:
    """Returns the layer as it is now, whatever is put into the network's own."""
    found = FrozenLinear(layer.core, layer.info)
    found.bias = layer.bias
    return found
