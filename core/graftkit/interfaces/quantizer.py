"""What stores a frozen weight in fewer bits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import torch

    from graftkit.interfaces.frozen_weight import FrozenWeight
    from graftkit.interfaces.layer import LayerInfo

__all__ = ["Quantizer"]


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
