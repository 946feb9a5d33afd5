"""A base model's weight that its file holds quantized already."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from graftkit.interfaces.frozen_weight import FrozenWeight

__all__ = ["StoredWeight"]


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class StoredWeight:
    """A matrix as a file stores it.

    Attributes:
        kind: The format's name, on which a model source and the quantizers that take it over agree. It is the tensor's
            type in `BaseModelFiles.tensors`, too.
        shape: Of the matrix that it stands for: `(out, in)`, as in `BaseModelFiles.tensors`.
        tensors: The stored tensors by name, on the CPU.
        meta: What is needed beside them, as JSON.
        dequantize: Makes the matrix, floating point; None where the source can't.
        freeze: Makes the frozen weight that keeps `tensors` as they are and computes, bit for bit, what `dequantize`
            makes of them; None where the source has none. `quantizer: stored` takes it.
    """

    kind: str
    shape: tuple[int, ...]
    tensors: Mapping[str, torch.Tensor]
    meta: Mapping[str, Any]
    dequantize: Callable[[], torch.Tensor] | None = None
    freeze: Callable[[], FrozenWeight] | None = None
