"""Kernels for CUDA alone: torch's attention, computed from its definition, and bitsandbytes', as its kernels for CPUs.

Sources of the signatures: `aten/src/ATen/native/native_functions.yaml` of torch. Gradients are written out: a kernel is
below autograd, which would not follow it.
"""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch.utils._pytree import tree_leaves, tree_map_only

__all__ = ["register"]


BITSANDBYTES = (
    "quantize_4bit",
    "dequantize_4bit",
    "dequantize_4bit.out",
    "quantize_blockwise",
    "dequantize_blockwise",
    "dequantize_blockwise.out",
    "optimizer_update_8bit_blockwise",
    "optimizer_update_32bit",
)


def register() -> list[torch.library.Library]:
    """Registers the kernels for the simulated device, for as long as what is returned is kept."""
    kernels = torch.library.Library("aten", "IMPL")
    kernels.impl("_flash_attention_forward", _varlen, "CUDA")
    kernels.impl("_flash_attention_backward", _varlen_backward, "CUDA")
    kernels.impl("_scaled_dot_product_efficient_attention", _efficient, "CUDA")
    kernels.impl("_scaled_dot_product_efficient_attention_backward", _efficient_backward, "CUDA")
    quantized = torch.library.Library("bitsandbytes", "IMPL")
    for name in BITSANDBYTES:
        operation, _, overload = name.partition(".")
        found = getattr(getattr(torch.ops.bitsandbytes, operation), overload or "default")
        quantized.impl(name, partial(_on_the_cpu, found), "CUDA", allow_override=True)
    return [kernels, quantized]


def _on_the_cpu(operation: Any, *args: Any, **kwargs: Any) -> Any:
    """Computes an operation on copies of what it is given, and copies back what it may have changed."""
    given = args, kwargs
    copies = tree_map_only(torch.Tensor, lambda tensor: tensor.cpu(), given)
    found = operation(*copies[0], **copies[1])
    for tensor, copy in zip(tree_leaves(given), tree_leaves(copies), strict=True):
        if isinstance(tensor, torch.Tensor) and operation._schema.is_mutable:
            tensor.copy_(copy)
    return tree_map_only(torch.Tensor, lambda tensor: tensor.to("cuda"), found)


def _attend(q: Any, k: Any, v: Any, scale: float | None, seen: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention of `[..., queries, width]` in float32; the log of the sums that scores are divided by beside it."""
    scores = _scores(q, k, scale, seen)
    return scores.softmax(-1).nan_to_num(0) @ v.float(), scores.logsumexp(-1)


def _attend_backward(gradient: Any, q: Any, k: Any, v: Any, scale: float | None, seen: Any) -> tuple[torch.Tensor, ...]:
    """Returns the gradients by queries, keys and values, float32."""
    weights = _scores(q, k, scale, seen).softmax(-1).nan_to_num(0)
    gradient = gradient.float()
    of_weights = gradient @ v.float().transpose(-1, -2)
    of_scores = weights * (of_weights - (of_weights * weights).sum(-1, keepdim=True)) * _scale(q, scale)
    return of_scores @ k.float(), of_scores.transpose(-1, -2) @ q.float(), weights.transpose(-1, -2) @ gradient


def _scores(q: Any, k: Any, scale: float | None, seen: Any) -> torch.Tensor:
    scores: torch.Tensor = q.float() @ k.float().transpose(-1, -2) * _scale(q, scale)
    if seen is None:
        return scores
    return scores.masked_fill(~seen, -torch.inf) if seen.dtype == torch.bool else scores + seen.float()


def _scale(q: Any, scale: float | None) -> float:
    return float(q.shape[-1] ** -0.5 if scale is None else scale)


def _window(queries: int, keys: int, causal: bool, left: int | None, right: int | None) -> torch.Tensor:
    """Tells which keys each query sees, `[queries, keys]`; the last query stands where the last key does."""
    ahead = torch.arange(keys)[None] - torch.arange(queries)[:, None] - (keys - queries)
    seen = torch.ones(queries, keys, dtype=torch.bool)
    if left is not None and left >= 0:
        seen &= ahead >= -left
    if causal or (right is not None and right >= 0):
        seen &= ahead <= (0 if causal else right)
    return seen


def _sequences(q: Any, cu_q: Any, cu_k: Any, max_q: int, max_k: int) -> list[tuple[slice, slice]]:
    """Returns where each sequence's queries and keys lie, and refuses what the kernel would read as something else."""
    for bounds, longest in ((cu_q, max_q), (cu_k, max_k)):
        assert bounds.dtype == torch.int32 and bounds.device == q.device
        assert longest >= max(end - start for start, end in pairwise(bounds.tolist()))
    spans = [[slice(*span) for span in pairwise(bounds.tolist())] for bounds in (cu_q, cu_k)]
    return list(zip(*spans, strict=True))


def _heads_first(tensor: Any, span: slice, heads: int) -> torch.Tensor:
    """Returns some tokens of `[tokens, heads, width]` on the CPU, `[heads, tokens, width]`, each head repeated."""
    part: torch.Tensor = tensor[span].cpu().transpose(0, 1)
    return part.repeat_interleave(heads // len(part), 0)


def _varlen(
    q: Any, k: Any, v: Any, cu_q: Any, cu_k: Any, max_q: int, max_k: int, dropout: float, causal: bool, debug: bool,
    *, scale: float | None = None, window_size_left: int | None = None, window_size_right: int | None = None, **_: Any,
) -> tuple[torch.Tensor, ...]:  # fmt: skip
    assert q.dtype in (torch.float16, torch.bfloat16) and not dropout
    found, sums = torch.empty_like(q), torch.empty(q.shape[1], len(q), device=q.device)
    for here, there in _sequences(q, cu_q, cu_k, max_q, max_k):
        a, b, c = (_heads_first(t, span, q.shape[1]) for t, span in ((q, here), (k, there), (v, there)))
        seen = _window(a.shape[1], b.shape[1], causal, window_size_left, window_size_right)
        values, logs = _attend(a, b, c, scale, seen)
        found[here] = values.transpose(0, 1).to(q.dtype).to(q.device)
        sums[:, here] = logs.to(q.device)
    state = torch.zeros(2, dtype=torch.uint64, device=q.device)
    return found, sums, state, torch.zeros((), dtype=torch.uint64, device=q.device), torch.empty(0, device=q.device)


def _varlen_backward(
    gradient: Any, q: Any, k: Any, v: Any, out: Any, sums: Any, cu_q: Any, cu_k: Any, max_q: int, max_k: int,
    dropout: float, causal: bool, state: Any, unused: Any,
    *, scale: float | None = None, window_size_left: int | None = None, window_size_right: int | None = None,
) -> tuple[torch.Tensor, ...]:  # fmt: skip
    found = tuple(torch.empty_like(tensor) for tensor in (q, k, v))
    for here, there in _sequences(q, cu_q, cu_k, max_q, max_k):
        a, b, c = (_heads_first(t, span, q.shape[1]) for t, span in ((q, here), (k, there), (v, there)))
        seen = _window(a.shape[1], b.shape[1], causal, window_size_left, window_size_right)
        parts = _attend_backward(_heads_first(gradient, here, q.shape[1]), a, b, c, scale, seen)
        for whole, part, span in zip(found, parts, (here, there, there), strict=True):
            summed = part.unflatten(0, (whole.shape[1], -1)).sum(1)
            whole[span] = summed.transpose(0, 1).to(q.dtype).to(q.device)
    return found


def _efficient(
    q: Any, k: Any, v: Any, bias: Any, with_sums: bool, dropout: float = 0.0, causal: bool = False,
    *, scale: float | None = None,
) -> tuple[torch.Tensor, ...]:  # fmt: skip
    assert not dropout
    found, sums = _attend(q.cpu(), k.cpu(), v.cpu(), scale, _seen(q, k, bias, causal))
    found = found.transpose(1, 2).contiguous().transpose(1, 2)
    state = torch.zeros((), dtype=torch.int64, device=q.device)
    return found.to(q.dtype).to(q.device), sums.to(q.device), state, state.clone()


def _efficient_backward(
    gradient: Any, q: Any, k: Any, v: Any, bias: Any, out: Any, sums: Any, seed: Any, offset: Any, dropout: float,
    wanted: list[bool], causal: bool = False, *, scale: float | None = None,
) -> tuple[Any, ...]:  # fmt: skip
    seen = _seen(q, k, bias, causal)
    found = _attend_backward(gradient.cpu(), q.cpu(), k.cpu(), v.cpu(), scale, seen)
    return *(tensor.to(q.dtype).to(q.device) for tensor in found), None


def _seen(q: Any, k: Any, bias: Any, causal: bool) -> torch.Tensor | None:
    if bias is not None:
        return bias.cpu()  # type: ignore[no-any-return]
    ahead = torch.arange(k.shape[2])[None] - torch.arange(q.shape[2])[:, None]
    return ahead <= 0 if causal else None
