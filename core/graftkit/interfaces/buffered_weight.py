"""A frozen weight that is dequantized, for each product, into memory that all such weights share."""

from __future__ import annotations

import threading
import weakref
from abc import abstractmethod
from typing import Any

import torch
from torch import nn

from graftkit.interfaces.frozen_weight import FrozenWeight

__all__ = ["BufferedWeight"]


class BufferedWeight(FrozenWeight):
    """A frozen weight whose products dequantize it into one buffer, as large as the largest of them.

    Fresh memory for every product costs a CPU about as much time as the dequantization. The buffer goes with the last
    weight that uses it. On other devices torch's own allocator keeps memory for the next product.
    """

    def __init__(self, out_features: int, in_features: int) -> None:
        super().__init__(out_features, in_features)
        self._buffers_of_threads = _shared()

    @abstractmethod
    def dequantize_into(self, out: torch.Tensor) -> None:
        """Writes the stored matrix.

        Args:
            out: `[out, in]`, contiguous, of any floating point type, on the weight's device.
        """

    def dequantize(self, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """Returns the stored matrix, `[out, in]`, in memory of its own."""
        out = torch.empty(self.out_features, self.in_features, dtype=dtype, device=next(self.parameters()).device)
        self.dequantize_into(out)
        return out

    def matmul(self, x: torch.Tensor) -> torch.Tensor:
        """Returns `x W^T`: `[..., in]` to `[..., out]`."""
        return nn.functional.linear(x, self._dense(x))

    def matmul_transposed(self, grad: torch.Tensor) -> torch.Tensor:
        """Returns `grad W`: `[..., out]` to `[..., in]`."""
        return grad @ self._dense(grad)

    def _dense(self, x: torch.Tensor) -> torch.Tensor:
        """Returns the matrix in the type of `x`: in the buffer, unless autograd would keep it for later."""
        if x.device.type != "cpu" or (torch.is_grad_enabled() and x.requires_grad):
            return self.dequantize(x.dtype)
        out = self._buffers_of_threads.take(self.out_features * self.in_features, x.dtype)
        out = out.view(self.out_features, self.in_features)
        self.dequantize_into(out)
        return out


class _Buffers(threading.local):
    """A thread's buffer, in bytes."""

    def __init__(self) -> None:
        self._bytes = torch.empty(0, dtype=torch.uint8)

    def take(self, numbers: int, dtype: torch.dtype) -> torch.Tensor:
        """Returns memory for so many numbers, which is good until the next call."""
        size = numbers * dtype.itemsize
        if len(self._bytes) < size:
            self._bytes = torch.empty(0, dtype=torch.uint8)  # the old one goes first
            self._bytes = torch.empty(size, dtype=torch.uint8)
        return self._bytes[:size].view(dtype)

    def __deepcopy__(self, memo: dict[int, Any]) -> _Buffers:
        return self  # a copied weight shares them, too

    def __reduce__(self) -> Any:
        return _shared, ()


_LIVING: weakref.WeakValueDictionary[str, _Buffers] = weakref.WeakValueDictionary()


def _shared() -> _Buffers:
    """Returns the buffers that the weights there are share, or new ones where there is none."""
    return _LIVING.setdefault("buffers", _Buffers())
