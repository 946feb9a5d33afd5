"""Weights as the model's file holds them: an adapter is trained on exactly those that are published."""

from __future__ import annotations

import torch
from graftkit import FrozenWeight, LayerInfo, StoredWeight, check_matrix
from graftkit.errors import ModelError

from graftkit_quantizers.config import StoredConfig
from graftkit_quantizers.dense import DenseWeight
from graftkit_quantizers.int8 import stored_int8
from graftkit_quantizers.kinds import BITSANDBYTES_NF4, OWN_NF4

__all__ = ["Stored"]

_PLAIN = ("F32", "F16", "BF16")


class Stored:
    """Keeps each weight in the type that the file has it in."""

    def __init__(self, config: StoredConfig | None = None) -> None: ...

    def quantize(self, weight: torch.Tensor, layer: LayerInfo) -> DenseWeight:
        """Keeps `[out, in]` as it is: what the file has in another order, and what an adapter puts in its place.

        Raises:
            ValueError: The weight holds NaN or infinity, or is no matrix.
        """
        check_matrix(weight)
        return DenseWeight(weight)

    def adopt(self, stored: StoredWeight, layer: LayerInfo) -> FrozenWeight | None:
        """Keeps a weight in its file's own form.

        Returns:
            The weight, or None where its source can't even dequantize it, of which core tells.

        Raises:
            ModelError: Its source has no frozen weight of this form.
        """
        if stored.kind in _PLAIN:
            return self.quantize(stored.tensors["weight"], layer)
        known = _known(stored, layer)
        if known is not None:
            return known
        if stored.freeze is not None:
            return stored.freeze()
        if stored.dequantize is not None:
            raise ModelError(
                f"its weight is stored as {stored.kind}, on which nothing can be trained as it is",
                where=layer.path,
                hint="Write `quantizer: nf4` (or int8, none), which stores it anew, or give the model in another type.",
            )
        return None


def _known(stored: StoredWeight, layer: LayerInfo) -> FrozenWeight | None:
    """Returns a weight of the other quantizers, which computes faster, where a file holds one of theirs."""
    if stored.kind in (OWN_NF4, BITSANDBYTES_NF4):
        from graftkit_quantizers.nf4 import stored_nf4  # imports bitsandbytes, which takes seconds

        return stored_nf4(stored, layer)
    return stored_int8(stored)
