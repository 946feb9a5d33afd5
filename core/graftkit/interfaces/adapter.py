"""What is trained on top of frozen weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import torch

    from graftkit.interfaces.adapted_weight import AdaptedWeight
    from graftkit.interfaces.layer import Layer

__all__ = ["Adapter"]


class Adapter(Protocol):
    """Puts something small and trainable on a frozen weight. Built from its own config model: `Class(config)`."""

    def attach(self, layer: Layer) -> AdaptedWeight:
        """Adapts one layer; right after it, the result computes what the frozen weight alone computes."""

    def peft_config(self) -> Mapping[str, Any] | None:
        """Returns the method's own fields of PEFT's `adapter_config.json`, or None where PEFT has no such form."""

    def peft_tensors(self, adapted: AdaptedWeight) -> Mapping[str, torch.Tensor]:
        """Returns PEFT's tensors of one layer by their key below the layer's path, such as "lora_A.weight"."""

    def from_peft(self, tensors: Mapping[str, torch.Tensor]) -> Mapping[str, torch.Tensor]:
        """Returns the adapter's own state of one layer from PEFT's tensors: the way back from `peft_tensors`."""
