"""Attention over packed rows, one row at a time: no dense mask, no padding, nothing leaks between rows."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention

__all__ = ["PACKED", "register_packed_attention"]

PACKED = "graftkit_packed"
"""The name under which transformers knows this attention."""
_SHORT = 128
"""Tokens of a row up to which torch's attention on a CPU, forward and backward, takes longer in 16 bits than in 32."""


def packed_attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    row_lengths: list[int],
    scaling: float | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Attends causally within each row of a packed sequence.

    Args:
        module: The attention layer.
        query: `[1, heads, tokens, head_dim]`, the rows one after the other.
        key: `[1, kv_heads, tokens, head_dim]`.
        value: `[1, kv_heads, tokens, head_dim]`.
        attention_mask: Unused; each row sees its own past and nothing else.
        row_lengths: Tokens of each row; they add up to `tokens`.
        scaling: What scores are multiplied by.

    Returns:
        `[1, tokens, heads, head_dim]`, and None for the weights, which are never made.
    """
    rows = [
        _attend(q, k, v, scaling)
        for q, k, v in zip(
            torch.split(query, row_lengths, dim=2),
            torch.split(key, row_lengths, dim=2),
            torch.split(value, row_lengths, dim=2),
            strict=True,
        )
    ]
    return torch.cat(rows, dim=2).transpose(1, 2), None


def _attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scaling: float | None) -> torch.Tensor:
    """Attends causally within one row; `[1, heads, tokens, head_dim]`."""
    dtype = q.dtype
    if q.device.type == "cpu" and q.itemsize == 2 and q.shape[2] <= _SHORT:
        q, k, v = q.float(), k.float(), v.float()
    grouped = q.shape[1] != k.shape[1]
    return scaled_dot_product_attention(q, k, v, is_causal=True, scale=scaling, enable_gqa=grouped).to(dtype)


def register_packed_attention() -> None:
    """Makes the packed attention known to transformers, without a mask."""
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(PACKED, packed_attention)
    AttentionMaskInterface.register(PACKED, lambda *_, **__: None)
