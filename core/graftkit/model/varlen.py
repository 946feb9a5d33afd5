"""Attention over all sequences of a pass in one call of `torch.nn.attention.varlen`, where the device can.

It needs a CUDA device of compute capability 8.0, 16 bits, and a mask by which every token sees as far back and as far
ahead. A loop over sequences, each by scaled dot product attention (`graftkit.model.attention`), computes the same for
everything.
"""

from __future__ import annotations

from functools import cache
from inspect import signature
from typing import Any

import torch

__all__ = ["attend_at_once", "can_attend_at_once"]

_LARGEST_HEAD = 256
_MULTIPLE = 8
"""The kernel's heads are at most as wide, and whole multiples of this."""


def can_attend_at_once(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> bool:
    """Tells whether the kernel takes such queries, keys and values, each `[1, heads, tokens, head_dim]`."""
    width = query.shape[-1]
    return (
        query.device.type == "cuda"
        and query.dtype in (torch.bfloat16, torch.float16)
        and key.dtype == value.dtype == query.dtype
        and width == value.shape[-1]
        and width <= _LARGEST_HEAD
        and width % _MULTIPLE == 0
        and _has_kernel(query.device)
    )


def attend_at_once(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    bounds: torch.Tensor,
    longest: int,
    reach: tuple[int, int],
    scaling: float | None,
) -> torch.Tensor:
    """Attends within each sequence; `[1, tokens, heads, head_dim]`.

    Args:
        query: `[1, heads, tokens, head_dim]`, the sequences one after the other.
        key: `[1, kv_heads, tokens, head_dim]`.
        value: `[1, kv_heads, tokens, head_dim]`.
        bounds: Cumulative sequence lengths, from 0 to `tokens`, int32 on the device.
        longest: Tokens of the longest sequence.
        reach: How many tokens before itself each one sees at most, and how many after.
        scaling: What scores are multiplied by; `head_dim ** -0.5` when left out.
    """
    from torch.nn.attention.varlen import varlen_attn

    groups = query.shape[1] // key.shape[1]
    options: dict[str, Any] = {}
    if groups > 1 and "enable_gqa" in signature(varlen_attn).parameters:
        options["enable_gqa"] = True
    elif groups > 1:
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    q, k, v = (tensor[0].transpose(0, 1) for tensor in (query, key, value))
    before, after = (-1 if tokens >= longest - 1 > 0 else tokens for tokens in reach)  # -1: all that there are
    options["window_size"] = (before, after)
    found: Any = varlen_attn(q, k, v, bounds, bounds, longest, longest, scale=scaling, **options)
    attended: torch.Tensor = found
    return attended.unsqueeze(0)


@cache
def _has_kernel(device: torch.device) -> bool:
    """Tells whether this torch has the function in the form that is called here, and the device what it needs."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:  # torch before 2.10
        return False
    known = {"scale", "window_size"} <= signature(varlen_attn).parameters.keys()
    return known and torch.cuda.get_device_capability(device) >= (8, 0)
