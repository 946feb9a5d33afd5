"""A layer as adapters and quantizers see it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch

    from graftkit.interfaces.frozen_weight import FrozenWeight

__all__ = ["Layer", "LayerInfo", "LayerKind"]

LayerKind = Literal["linear", "conv1d", "experts"]
"""How an architecture stores a weight: `[out, in]`, `[in, out]` as GPT-2 does, or one matrix an expert in a stack."""


@dataclass(frozen=True, slots=True)
class LayerInfo:
    """What is known of a layer before its weight is read. Its weight is `[out, in]`, whatever its kind.

    Attributes:
        path: Its dotted path in the model.
        kind: "linear" for a weight `[out, in]`, "conv1d" for GPT-2's, which is stored as `[in, out]`, "experts" for
            the matrices of a mixture's experts in one tensor.
        out_features: Numbers that it gives.
        in_features: Numbers that it takes.
        bias: Whether it adds a bias.
    """

    path: str
    kind: LayerKind
    out_features: int
    in_features: int
    bias: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """A layer that is going to be adapted.

    Later versions may have more attributes; the weight before it was quantized is not among them yet.

    Attributes:
        info: Its path, kind and sizes.
        weight: The frozen weight, `[out, in]`.
        bias: The frozen bias, `[out]`, in the type of the computation, or None. It is added after the adapted weight,
            by whoever calls that.
        generator: The source of every random number that the start needs, made from the run's seed and the layer's
            path.
    """

    info: LayerInfo
    weight: FrozenWeight
    bias: torch.Tensor | None
    generator: torch.Generator
