"""What a layer that an adapter made has to give: looked at before anything is trained, and named after its plugin."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from graftkit.host.guard import wrong_result
from graftkit.host.results import kind_named
from graftkit.interfaces.adapted_weight import AdaptedWeight
from graftkit.interfaces.adapter import Adapter

__all__ = ["check_delta", "check_parts", "check_round_trip", "check_unshared"]


def check_parts(adapter: Adapter, weight: AdaptedWeight, path: str) -> None:
    """Makes sure that a layer names its parameters and its state.

    Args:
        adapter: What made it.
        weight: The layer.
        path: Its dotted path.

    Raises:
        PluginCallError: It doesn't.
    """
    parts: dict[str, Mapping[str, object]] = {}
    for method in ("trainable_parameters", "rate_scales", "adapter_state"):
        found = getattr(weight, method)()
        if not isinstance(found, Mapping):
            raise wrong_result(adapter, method, f"gave {kind_named(found)}, not a mapping, for the layer {path}")
        parts[method] = found
    parameters, scales, state = parts.values()
    for name, parameter in parameters.items():
        if not (isinstance(parameter, nn.Parameter) and parameter.is_leaf and parameter.requires_grad):
            told = f"gave {kind_named(parameter)} as '{name}' of the layer {path}, which is no parameter to train"
            raise wrong_result(adapter, "trainable_parameters", told)
    for name, scale in scales.items():
        if not isinstance(scale, int | float):
            told = f"gave {kind_named(scale)} for '{name}' of the layer {path}, not a number"
            raise wrong_result(adapter, "rate_scales", told)
    for name, tensor in state.items():
        if not isinstance(tensor, torch.Tensor):
            told = f"gave {kind_named(tensor)} as '{name}' of the layer {path}, not a tensor"
            raise wrong_result(adapter, "adapter_state", told)


def check_unshared(adapter: Adapter, weight: AdaptedWeight, path: str, owners: dict[tuple[int, int], str]) -> None:
    """Makes sure that a layer's parameters are no other layer's: each is stored, and trained, by itself.

    Args:
        adapter: What made it.
        weight: The layer.
        path: Its dotted path.
        owners: The layers before it by where their parameters lie, to which this one's are added.

    Raises:
        PluginCallError: They are.
    """
    for name, parameter in weight.trainable_parameters().items():
        if parameter.is_meta or not parameter.numel():
            continue
        # unlike an address, tensors without contents have these, too
        place = parameter.untyped_storage()._cdata, int(parameter.storage_offset())
        other = owners.setdefault(place, path)
        if other != path:
            raise wrong_result(adapter, "attach", f"gave the layers {other} and {path} the same parameter, '{name}'")


@torch.no_grad()
def check_round_trip(adapter: Adapter, weight: AdaptedWeight, path: str) -> None:
    """Makes sure that what is stored of a layer is all that was trained on it: it is put in again, and compared.

    Args:
        adapter: What made it.
        weight: The layer, which is left as it was.
        path: Its dotted path.

    Raises:
        PluginCallError: Something would be lost.
    """
    parameters = weight.trainable_parameters()
    before = {name: parameter.clone() for name, parameter in parameters.items()}
    try:
        for parameter in parameters.values():
            parameter.copy_(torch.linspace(0.5, 1, parameter.numel()).view_as(parameter))
        expected = {name: parameter.clone() for name, parameter in parameters.items()}
        state = {name: tensor.clone() for name, tensor in weight.adapter_state().items()}
        for parameter in parameters.values():
            parameter.zero_()
        try:
            weight.load_adapter_state(state)
        except ValueError as error:
            raise wrong_result(adapter, "adapter_state", f"gave what load_adapter_state() refuses: {error}") from None
        lost = [name for name, parameter in parameters.items() if not torch.equal(parameter, expected[name])]
    finally:
        for name, parameter in parameters.items():
            parameter.copy_(before[name])
    if lost:
        told = f"gave no state that brings back {', '.join(lost)} of the layer {path}: what is trained would be lost"
        raise wrong_result(adapter, "adapter_state", told)


def check_delta(weight: AdaptedWeight, delta: object, like: torch.Tensor) -> torch.Tensor:
    """Returns what a merge adds to a layer's weight, where it can be added.

    Args:
        weight: The layer.
        delta: What its `delta` gave.
        like: The weight, `[out, in]`.

    Raises:
        PluginCallError: It can't.
    """
    if isinstance(delta, torch.Tensor) and delta.shape == like.shape:
        return delta.to(like.device)
    told = f"a tensor of the shape {list(delta.shape)}" if isinstance(delta, torch.Tensor) else kind_named(delta)
    raise wrong_result(weight, "delta", f"gave {told} for a weight of {list(like.shape)}")
