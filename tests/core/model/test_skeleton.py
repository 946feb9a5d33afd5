"""A model without memory for its weights is built without computing any of them."""

from __future__ import annotations

from typing import Any

import torch
from graftkit.model.skeleton import EmptyOnMeta, build_skeleton
from graftkit.testing.tiny import TINY_CONFIG
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode


class _Computed(TorchDispatchMode):
    """Keeps the names of what torch computes on the meta device."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and result.is_meta:
            self.names.append(func.overloadpacket.__name__)
        return result


def test_no_weight_is_filled_with_numbers() -> None:
    with _Computed() as computed:
        build_skeleton(TINY_CONFIG, "tiny")
    assert "empty" in computed.names
    assert not [name for name in computed.names if name.rstrip("_") in ("normal", "uniform", "fill", "zero")]


def test_constants_are_filled_as_ever() -> None:
    with EmptyOnMeta():
        made = nn.init.constant_(torch.zeros(3), 2.0)
        norm = nn.LayerNorm(4)
    assert made.tolist() == [2, 2, 2] and norm.weight.is_meta
