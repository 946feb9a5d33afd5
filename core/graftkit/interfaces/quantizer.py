"""What stores a frozen weight in fewer bits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import torch

    from graftkit.interfaces.frozen_weight import FrozenWeight

__all__ = ["Quantizer"]


class Quantizer(Protocol):
    """Makes frozen weights. Built from its own config model: `Class(config)`, or `Class()` without one."""

    def quantize(self, weight: torch.Tensor) -> FrozenWeight:
        """Stores a weight.

        Args:
            weight: `[out, in]`, floating point, any device.

        Raises:
            ValueError: The weight holds NaN or infinity, or is no matrix.
        """
