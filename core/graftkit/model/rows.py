"""Embedding and output matrices of which some rows are trained and all others are frozen."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn.functional import embedding, linear

from graftkit.model.row_scale import RowScale

__all__ = ["NewRowsEmbedding", "NewRowsLinear", "TrainedRows"]


class TrainedRows(nn.Module):
    """The rows of new tokens; an embedding and a tied output layer share one.

    Attributes:
        ids: The tokens' ids, ascending, `[new]`, int64.
        rows: `[new, hidden]`, float32: what is trained.
        slots: For each id its place among the new ones, or -1, `[size]`, int64.
    """

    def __init__(self, ids: Sequence[int], rows: torch.Tensor, size: int) -> None:
        super().__init__()
        device = rows.device
        places = torch.full((size,), -1)
        places[list(ids)] = torch.arange(len(ids))
        self.ids = nn.Parameter(torch.tensor(list(ids), device=device), requires_grad=False)
        self.slots = nn.Parameter(places.to(device), requires_grad=False)
        self.rows = nn.Parameter(rows)
        self._stretch = (ids[0], ids[-1] + 1) if ids[-1] - ids[0] + 1 == len(ids) else None

    def put(self, values: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
        """Puts the new ids' values in their places: `[..., size]`, `[..., new]`; changes `values`."""
        if self._stretch:
            values[..., self._stretch[0] : self._stretch[1]] = new
            return values
        return values.index_copy_(values.ndim - 1, self.ids, new)


class NewRowsEmbedding(nn.Module):
    """An embedding with some trained rows.

    Attributes:
        weight: `[size, hidden]`, frozen; its rows at the new ids are not used.
        new: The trained rows.
        scale: What every row is multiplied by once it is looked up, new or old, as Gemma does. The matrix and the new
            rows are not scaled, and a tied output layer takes them as they are.
    """

    def __init__(self, weight: torch.Tensor, new: TrainedRows, scale: RowScale) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.new = new
        self.scale = scale

    @property
    def num_embeddings(self) -> int:
        """Rows in all."""
        return self.weight.shape[0]

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Maps ids `[...]` to `[..., hidden]`."""
        slots = self.new.slots[ids]
        trained = embedding(slots.clamp(min=0), self.new.rows).to(self.weight.dtype)
        rows = torch.where((slots >= 0).unsqueeze(-1), trained, embedding(ids, self.weight))
        return self.scale.times(rows)


class NewRowsLinear(nn.Module):
    """An output layer with some trained rows.

    Attributes:
        weight: `[size, hidden]`, frozen; its rows at the new ids are not used.
        new: The trained rows.
        bias: `[size]`, frozen, or None.
    """

    def __init__(self, weight: nn.Parameter, new: TrainedRows, bias: torch.Tensor | None = None) -> None:
        super().__init__()
        self.weight = weight
        self.new = new
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps `[..., hidden]` to logits, `[..., size]`."""
        scores = linear(x, self.weight)
        logits = self.new.put(scores, linear(x, self.new.rows.to(x.dtype)))
        return logits if self.bias is None else logits + self.bias
