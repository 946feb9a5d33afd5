"""Which layers an adapter goes on. Judged from tensors' names and shapes alone: no torch."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from graftkit.errors import TargetError
from graftkit.interfaces.model_source import TensorInfo
from graftkit.suggest import nearest

__all__ = ["ALL_LINEAR", "linear_layers", "match_targets"]

ALL_LINEAR = "all-linear"

_IN_A_BLOCK = re.compile(r"\.\d+\.")


def linear_layers(tensors: Mapping[str, TensorInfo]) -> dict[str, tuple[int, int]]:
    """Returns the linear layers inside the repeated blocks, each with its `(out, in)`.

    Embeddings and the output layer lie outside the blocks and are not among them.

    Example:
        >>> linear_layers({"model.layers.0.mlp.up_proj.weight": TensorInfo((64, 16), "F32")})
        {'model.layers.0.mlp.up_proj': (64, 16)}
    """
    return {
        name.removesuffix(".weight"): (info.shape[0], info.shape[1])
        for name, info in tensors.items()
        if name.endswith(".weight") and len(info.shape) == 2 and _IN_A_BLOCK.search(name)
    }


def match_targets(patterns: Sequence[str], layers: Sequence[str], where: str = "") -> list[str]:
    """Returns the layers that the patterns name, in the model's order.

    A pattern is `all-linear`, a layer's last name (`q_proj`), the end of its path (`self_attn.q_proj`), its whole
    path, or any of these with `*` and `?`.

    Raises:
        TargetError: A pattern matches no layer.
    """
    chosen: set[str] = set()
    for pattern in patterns:
        found = {layer for layer in layers if _matches(pattern, layer)}
        if not found:
            names = sorted({layer.rpartition(".")[2] for layer in layers})
            meant = nearest(pattern, [*names, ALL_LINEAR])
            raise TargetError(
                f"the target '{pattern}' matches no layer of the model",
                where=where,
                hint=f"{meant}Its layers end in: {', '.join(names)}; or say all-linear.",
            )
        chosen |= found
    return [layer for layer in layers if layer in chosen]


def _matches(pattern: str, layer: str) -> bool:
    return (
        pattern == ALL_LINEAR
        or fnmatchcase(layer, pattern)
        or fnmatchcase(layer, f"*.{pattern}")
        or fnmatchcase(layer.rpartition(".")[2], pattern)
    )
