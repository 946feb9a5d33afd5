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
    """A matrix as a file stores it, or a stack of them, such as those of a mixture's experts.

    Attributes:
        kind: The format's name, on which a model source and the quantizers that take it over agree. It is the tensor's
            type in `BaseModelFiles.tensors`, too.
        shape: Of the matrix that it stands for: `(out, in)`, as in `BaseModelFiles.tensors`; of a stack, as the
            architecture has that.
        tensors: The stored tensors by name, on the CPU.
        meta: What is needed beside them, as JSON.
        dequantize: Makes the matrix, floating point; None where the source can't.
        freeze: Makes the frozen weight that keeps `tensors` as they are and computes, bit for bit, what `dequantize`
            makes of them; None where the source has none. `quantizer: stored` takes it.
        matrix: Of a stack, returns the stored weight of one of its matrices by number: `(out, in)` as it is multiplied
            by, whichever way round the architecture has it. None where a stack is given as a whole alone.
    """

    kind: str
    shape: tuple[int, ...]
    tensors: Mapping[str, torch.Tensor]
    meta: Mapping[str, Any]
    dequantize: Callable[[], torch.Tensor] | None = None
    freeze: Callable[[], FrozenWeight] | None = None
    matrix: Callable[[int], StoredWeight] | None = None
