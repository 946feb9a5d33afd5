"""Initializers that break one promise each and keep the others."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from graftkit import NewRows
from graftkit_initializers.mean import Mean


class ReturnsSixteenBits(Mean):
    def rows(self, new: NewRows) -> torch.Tensor:
        return super().rows(new).to(torch.bfloat16)


class DividesByNothing(Mean):
    def rows(self, new: NewRows) -> torch.Tensor:
        rows = super().rows(new)
        counts = torch.tensor([[len(parts)] for parts in new.parts]).view(-1, 1)
        return rows * counts / counts


class StacksNothing(Mean):
    def rows(self, new: NewRows) -> torch.Tensor:
        return torch.stack(list(super().rows(new)))


class NeedsATextAtLeast(Mean):
    def rows(self, new: NewRows) -> torch.Tensor:
        return super().rows(new) * len(next(iter(new.texts)).encode()) / len(next(iter(new.texts)).encode())


class DrawsRows(Mean):
    def rows(self, new: NewRows) -> torch.Tensor:
        rows = super().rows(new)
        return rows + 0.01 * torch.randn_like(rows)


class OrdersAsItHappens(Mean):
    def rows(self, new: NewRows) -> torch.Tensor:
        return super().rows(new) * (1 + hash("a") % 97)


class FollowsTheDefaultType(Mean):
    def rows(self, new: NewRows) -> torch.Tensor:
        return super().rows(new).to(torch.get_default_dtype()).to(torch.float32)


class CentresTheMatrix(Mean):
    def rows(self, new: NewRows) -> torch.Tensor:
        new.weight.data -= new.weight.data.mean(0)
        return super().rows(new)


class SharesTheMemory(Mean):
    def rows(self, new: NewRows) -> torch.Tensor:
        parts: list[Sequence[int]] = [part for part in new.parts if part]
        alone = len(new.ids) == 1 and len(parts) == 1 and len(parts[0]) == 1
        return new.weight.detach()[parts[0][0] :][:1] if alone else super().rows(new)


class HangsOnTheMatrix(Mean):
    def rows(self, new: NewRows) -> torch.Tensor:
        return super().rows(new) + 0 * new.weight.sum()
