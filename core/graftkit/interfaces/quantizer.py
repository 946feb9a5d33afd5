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

        Returns:
            The weight, or None where its kind is another or it is stored otherwise than this quantizer's fields say;
            it is dequantized and quantized then, where its source can.

        Raises:
            ValueError: It is of a kind that is known, but damaged.
        """
