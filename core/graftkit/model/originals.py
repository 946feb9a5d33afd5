"""The weights of single layers as the base model's files hold them, for adapters that start from those."""

from __future__ import annotations

from functools import cached_property

import torch

from graftkit.interfaces.frozen_weight import FrozenWeight
from graftkit.interfaces.layer import LayerInfo
from graftkit.interfaces.model_source import BaseModelFiles
from graftkit.interfaces.quantizer import Quantizer
from graftkit.model.load import Loader
from graftkit.model.model_plan import plan_base_model

__all__ = ["FileOriginals"]


class FileOriginals:
    """Reads a layer's weight when it is asked for; until then nothing is read, and nothing is planned.

    Args:
        files: The opened base model.
        quantizer: What stored the model's weights.
        device: Where the model computes.
        dtype: What it computes in.
    """

    def __init__(self, files: BaseModelFiles, quantizer: Quantizer, device: torch.device, dtype: torch.dtype) -> None:
        self._files = files
        self._quantizer = quantizer
        self._device = device
        self._dtype = dtype

    @cached_property
    def _loader(self) -> Loader:
        return Loader(plan_base_model(self._files, self._dtype), self._quantizer, self._device)

    def original(self, layer: LayerInfo) -> torch.Tensor | None:
        """Reads a layer's weight, `[out, in]`, float32; None where the file's own form of it is all that is known.

        Raises:
            ModelError: It can't be read.
        """
        return self._loader.original(layer)

    def quantize(self, weight: torch.Tensor, layer: LayerInfo) -> FrozenWeight:
        """Stores a matrix `[out, in]` as the layer's own weight was stored."""
        return self._loader.quantize(weight, layer)

    def forget(self) -> None:
        """Lets go of what was read and planned, once every layer is adapted."""
        self.__dict__.pop("_loader", None)
