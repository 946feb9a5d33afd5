"""What stores a frozen weight in fewer bits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    import torch

    from graftkit.interfaces.frozen_weight import FrozenWeight
    from graftkit.interfaces.layer import LayerInfo
    from graftkit.interfaces.stored_weight import StoredWeight

__all__ = ["AdoptingQuantizer", "Quantizer"]


class Quantizer(Protocol):
    """Makes frozen weights. Built from its own config model: `Class(config)`, or `Class()` without one."""

    def quantize(self, weight: torch.Tensor, layer: LayerInfo) -> FrozenWeight:
        """Stores a weight.

        Args:
            weight: `[out, in]`, floating point, any device.
            layer: Whose weight it is.

        Raises:
            ValueError: The weight holds NaN or infinity, or is no matrix.
        """


@runtime_checkable
class AdoptingQuantizer(Protocol):
    """What a quantizer may offer besides: weights that a file holds quantized already are kept as they are."""

    def adopt(self, stored: StoredWeight, layer: LayerInfo) -> FrozenWeight | None:
        """Takes over a stored weight, without rounding it again.

        Args:
            stored: What a model source gives, its tensors on the device that computes. A plain tensor is offered, too,
                before it is rounded to the type of the computation: under the name of its type ("F32", "F16", "BF16"),
                as the one tensor "weight".
            layer: Whose weight it is.

        Returns:
            The weight, or None where its kind is another or it is stored otherwise than this quantizer's fields say;
            it is dequantized and quantized then, where its source can.

        Raises:
            ValueError: It is of a kind that is known, but damaged.
            ModelError: It can't be kept, and must not be stored otherwise.
        """
