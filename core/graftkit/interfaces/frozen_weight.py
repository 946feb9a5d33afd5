"""A frozen weight as adapters see it: four operations and a state."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import nn

__all__ = ["EmbeddingWeight", "FrozenWeight", "PlainWeight"]


class FrozenWeight(nn.Module, ABC):
    """A matrix `W [out, in]` that never changes and may be stored in few bits.

    Its tensors are plain frozen parameters whose first dimension follows the output rows where that is possible
    (no tensor subclasses, whose attributes get lost, and no buffers, which sharding replicates).

    Attributes:
        error_bound: The largest error of one weight, as a share of the largest magnitude in its row; it may depend on
            the weight, and must be the same after `from_state`.
        rounds_products: Whether products in training mode (`self.training`) are less exact than those with the
            dequantized matrix, because the recipe asks for it. Otherwise, and in evaluation mode, they are exact.
    """

    error_bound: float = 0.0
    rounds_products: bool = False

    def __init__(self, out_features: int, in_features: int) -> None:
        super().__init__()
        self.out_features = out_features
        self.in_features = in_features

    @abstractmethod
    def dequantize(self, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """Returns the stored matrix, `[out, in]`."""

    @abstractmethod
    def meta(self) -> dict[str, Any]:
        """Returns what `from_state` needs beside the tensors, as JSON."""

    @classmethod
    @abstractmethod
    def from_state(cls, tensors: Mapping[str, torch.Tensor], meta: Mapping[str, Any]) -> Self:
        """Builds a weight from `state()` and `meta()`.

        Raises:
            ValueError: A tensor is missing, left over, or of another shape or type.
        """

    def matmul(self, x: torch.Tensor) -> torch.Tensor:
        """Returns `x W^T`: `[..., in]` to `[..., out]`."""
        return nn.functional.linear(x, self.dequantize(x.dtype))

    def matmul_transposed(self, grad: torch.Tensor) -> torch.Tensor:
        """Returns `grad W`: `[..., out]` to `[..., in]`, the backward pass of `matmul`."""
        return grad @ self.dequantize(grad.dtype)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns `matmul(x)`, differentiable in `x` alone: the weight's own gradient is never computed."""
        result: torch.Tensor = _FrozenMatmul.apply(x, self)  # type: ignore[no-untyped-call]
        return result

    def state(self) -> dict[str, torch.Tensor]:
        """Returns the stored tensors by name."""
        return {name: parameter.detach() for name, parameter in self.named_parameters()}

    @property
    def nbytes(self) -> int:
        """The bytes that the stored tensors take."""
        return sum(parameter.nbytes for parameter in self.parameters())


class PlainWeight(FrozenWeight):
    """A frozen weight that is one matrix as it is.

    Args:
        weight: `[out, in]`. It is not copied; a parameter may be another module's, too.

    Attributes:
        weight: The matrix, `[out, in]`.
    """

    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__(*weight.shape)
        self.weight = weight if isinstance(weight, nn.Parameter) else nn.Parameter(weight, requires_grad=False)

    def dequantize(self, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """Returns the matrix, `[out, in]`."""
        return self.weight.detach().to(dtype)

    def meta(self) -> dict[str, Any]:
        """Nothing is needed beside the tensor."""
        return {}

    @classmethod
    def from_state(cls, tensors: Mapping[str, torch.Tensor], meta: Mapping[str, Any]) -> Self:
        """Builds a weight from its one tensor."""
        if tensors.keys() != {"weight"}:
            raise ValueError(f"stored tensors {sorted(tensors)} are not ['weight']")
        return cls(tensors["weight"])


class EmbeddingWeight(FrozenWeight):
    """The frozen weight of an embedding: `W [out, in]` as of any layer, stored as its rows, `[in, out]`.

    What it is called with are ids: `W` times the unit vector of an id is the id's row. Products with vectors
    (`matmul`) are there as well.

    Args:
        rows: `[in, out]`: a row for each id. It is not copied; a parameter may be another module's, too.
        padding_idx: The id whose row gets no gradient, as in `torch.nn.Embedding`; None where each row does.

    Attributes:
        rows: `[in, out]`.
        padding_idx: The id whose row gets no gradient.
    """

    def __init__(self, rows: torch.Tensor, padding_idx: int | None = None) -> None:
        super().__init__(rows.shape[1], rows.shape[0])
        self.rows = rows if isinstance(rows, nn.Parameter) else nn.Parameter(rows, requires_grad=False)
        self.padding_idx = padding_idx

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Maps ids `[...]` to their rows, `[..., out]`."""
        return self.look_up(ids, self.rows)

    def look_up(self, ids: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
        """Maps ids `[...]` to the rows `[..., n]` of a table `[in, n]` of the same ids, such as a low-rank update's.

        Differentiable in the table, but for the row of `padding_idx`.
        """
        return nn.functional.embedding(ids, table, self.padding_idx)

    def dequantize(self, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """Returns the matrix, `[out, in]`."""
        return self.rows.detach().T.to(dtype)

    def meta(self) -> dict[str, Any]:
        """Returns which row gets no gradient."""
        return {"padding_idx": self.padding_idx}

    @classmethod
    def from_state(cls, tensors: Mapping[str, torch.Tensor], meta: Mapping[str, Any]) -> Self:
        """Builds a weight from its one tensor."""
        if tensors.keys() != {"rows"}:
            raise ValueError(f"stored tensors {sorted(tensors)} are not ['rows']")
        return cls(tensors["rows"], meta["padding_idx"])


class _FrozenMatmul(torch.autograd.Function):
    """`x W^T` whose backward pass is `grad W`; nothing is kept for it but the weight itself."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: FrozenWeight) -> torch.Tensor:
        ctx.weight = weight
        return weight.matmul(x)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, None]:
        return (ctx.weight.matmul_transposed(grads[0]) if ctx.needs_input_grad[0] else None), None
