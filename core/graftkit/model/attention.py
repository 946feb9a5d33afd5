"""Attention over packed sequences: no dense mask over the pass, no padding.

transformers describes what a query may see by a mask function: causal, windowed, chunked, or any combination. Here
that function is evaluated for each sequence of the pass alone, so that windows and chunks are honoured and no sequence
sees another. A keyword that this attention does not implement is refused, never ignored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, MutableMapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch.nn.functional import dropout as drop
from torch.nn.functional import scaled_dot_product_attention, softmax
from torch.utils.weak import WeakIdKeyDictionary

from graftkit.articles import with_article
from graftkit.model.varlen import attend_at_once, can_attend_at_once

__all__ = ["PACKED", "DeferredMask", "UnsupportedAttention", "native_attention", "register_packed_attention"]

PACKED = "graftkit_packed"
"""The name under which transformers knows this attention."""
_SHORT = 128
"""Tokens of a sequence up to which torch's attention on a CPU takes longer in 16 bits than in 32."""
_TILE = 512
"""Queries whose mask is evaluated, and attention computed, at once, where a sequence's mask is more than causal."""
_TOGETHER = 2048
"""Tokens of short sequences whose masks are looked at together on a device, which takes longer to begin than to do."""

_WITHOUT_EFFECT = frozenset(
    {
        "cache_position",
        "cu_seq_lens_k",
        "deterministic",  # of flash attention's backward pass (ModernBERT)
        "layer_idx",
        "logits_to_keep",
        "max_length_k",
        "max_length_q",
        "num_items_in_batch",
        "output_attentions",
        "output_hidden_states",
        "output_router_logits",
        "position_embeddings",
        "position_ids",
        "return_dict",
        "seq_idx",
        "sliding_window",  # the mask function has it
        "use_cache",
    }
)
"""Keywords that say nothing about what is computed, or that the mask says too."""


class UnsupportedAttention(Exception):
    """A model asks its attention for something that packed attention does not implement."""


@dataclass(frozen=True, slots=True)
class Tile:
    """Some queries of a sequence, the keys that any of them sees, and which sees which.

    Attributes:
        queries: Where they stand in the pass.
        keys: Where the keys stand.
        mask: What each query sees, `[1, 1, queries, keys]`; None where that is every key, or every key up to itself.
        causal: Whether it is every key up to itself.
    """

    queries: slice
    keys: slice
    mask: torch.Tensor | None
    causal: bool = False


class DeferredMask:
    """What a query may see, as a function of indices, evaluated for one sequence when its attention is computed.

    Args:
        function: `(batch, head, query, key) -> bool`, as transformers composes it.
        use_vmap: Whether the function takes one index at a time and must be vectorized.
        device: Where the model computes.
    """

    def __init__(self, function: Callable[..., torch.Tensor], use_vmap: bool, device: torch.device) -> None:
        self._function = function
        self._use_vmap = use_vmap
        self._device = device
        self._tiles: dict[tuple[int, int], list[Tile]] = {}
        self._reach: list[tuple[int, int] | None] = []

    def reach(self, bounds: Sequence[int], cu_seq_lens: torch.Tensor) -> tuple[int, int] | None:
        """Returns how many tokens before and after itself each one sees at most, where that is the same for all.

        The device is asked once a pass. Short sequences are looked at together, and of a long one some queries at a
        time.

        Args:
            bounds: Where sequences begin, and where the last one ends.
            cu_seq_lens: The same on the device, int32.
        """
        if not self._reach:
            spans = list(pairwise(bounds))
            start, end = max(spans, key=lambda span: span[1] - span[0])
            first, last = self._evaluated(start, end, start, start + 1), self._evaluated(start, end, end - 1)
            before, after = last[0, 0].sum() - 1, first[0, 0].sum() - 1
            positions = torch.arange(bounds[-1], device=self._device)
            owners = torch.bucketize(positions, cu_seq_lens, right=True)
            odd = [self._reaches_otherwise(positions, owners, *part, before, after) for part in _together(spans)]
            before, after, differs = torch.stack([before, after, torch.stack(odd).any().long()]).tolist()
            self._reach = [None if differs or min(before, after) < 0 else (before, after)]
        return self._reach[0]

    def _reaches_otherwise(
        self,
        positions: torch.Tensor,
        owners: torch.Tensor,
        queries: slice,
        keys: slice,
        before: torch.Tensor,
        after: torch.Tensor,
    ) -> torch.Tensor:
        """Tells whether one of some queries sees more or less among some keys, those of its own sequence."""
        ahead = positions[keys] - positions[queries].unsqueeze(1)
        expected = (ahead >= -before) & (ahead <= after)
        found = self._evaluated(keys.start, keys.stop, queries.start, queries.stop)
        return ((found != expected) & (owners[keys] == owners[queries].unsqueeze(1))).any()

    def __getitem__(self, index: Any) -> DeferredMask:
        """Returns itself where all of it is asked for: Gemma 4 takes the queries whose logits are wanted.

        Raises:
            TypeError: Only a part is asked for.
        """
        if any(part not in (slice(None), slice(0, None)) for part in index):
            raise TypeError("a part of its attention mask is asked for")
        return self

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"it computes with its attention mask itself, and asks for its {name}")

    def tiles(self, start: int, end: int) -> list[Tile]:
        """Returns the parts that attention over the sequence at `[start, end)` is computed in.

        A causal sequence is one part. Any other is cut by queries, and a part holds the keys between the first and the
        last one that its queries see: with a window, memory and work grow with the sequence's length, not its square.
        """
        if (start, end) not in self._tiles:
            parts = [self._tile(start, first, last, end) for first, last in _rows(start, end)]
            whole = slice(start, end)
            if all(part.causal for part in parts):
                self._tiles[start, end] = [Tile(whole, whole, None, causal=True)]
            else:
                self._tiles[start, end] = [self._explicit(part) for part in parts]
        return self._tiles[start, end]

    def _tile(self, start: int, first: int, last: int, end: int) -> Tile:
        """Returns what the queries at `[first, last)` see, the mask left out where that is every key, or up to each."""
        mask = self._evaluated(start, end, first, last)
        if torch.equal(mask, torch.ones_like(mask).tril(first - start)):
            return Tile(slice(first, last), slice(start, last), None, causal=True)
        if mask.all():
            return Tile(slice(first, last), slice(start, end), None)
        seen = mask.flatten(0, 2).any(0).nonzero()
        low, high = int(seen[0]), int(seen[-1]) + 1
        return Tile(slice(first, last), slice(start + low, start + high), mask[..., low:high])

    def _explicit(self, part: Tile) -> Tile:
        """Returns a part with its mask, without which kernels would align queries and keys at their beginnings."""
        queries, keys = part.queries, part.keys
        if not part.causal or queries.start == keys.start:
            return part
        shape = (1, 1, queries.stop - queries.start, keys.stop - keys.start)
        mask = torch.ones(shape, dtype=torch.bool, device=self._device)
        return Tile(queries, keys, mask.tril(queries.start - keys.start))

    def _evaluated(self, start: int, end: int, first: int | None = None, last: int | None = None) -> torch.Tensor:
        """Returns what the queries at `[first, last)`, or all, see of the sequence at `[start, end)`."""
        from transformers.masking_utils import sdpa_mask

        first, last = start if first is None else first, end if last is None else last
        mask: torch.Tensor = sdpa_mask(
            batch_size=1,
            q_length=last - first,
            kv_length=end - start,
            q_offset=first,
            kv_offset=start,
            mask_function=self._function,
            allow_is_causal_skip=False,
            use_vmap=self._use_vmap,
            device=self._device,
        )
        return mask.expand(1, -1, last - first, end - start).bool()


def _together(spans: Sequence[tuple[int, int]]) -> Iterator[tuple[slice, slice]]:
    """Yields queries and keys of a few million pairs, in which each query of each span is beside all keys of it."""
    start, end = spans[0]
    for first, last in [*spans[1:], (spans[-1][1], spans[-1][1])]:
        if first < last and last - start <= _TOGETHER:
            end = last
            continue
        rows = max(1, _TOGETHER**2 // (end - start))
        for row in range(start, end, rows):
            yield slice(row, min(row + rows, end)), slice(start, end)
        start, end = first, last


def _rows(start: int, end: int) -> list[tuple[int, int]]:
    """Returns the queries at `[start, end)` in parts of which all keys are looked at together."""
    return [(first, min(first + _TILE, end)) for first in range(start, end, _TILE)]


def packed_attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: DeferredMask | None,
    *,
    cu_seq_lens_q: torch.Tensor | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    is_causal: bool | None = None,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """Attends within each sequence of a pass.

    Args:
        module: The attention layer.
        query: `[1, heads, tokens, head_dim]`, the sequences one after the other.
        key: `[1, kv_heads, tokens, head_dim]`.
        value: `[1, kv_heads, tokens, value_dim]`.
        attention_mask: What each query may see within its sequence; None where the model made no mask: then causal,
            unless `is_causal` or the module says otherwise.
        cu_seq_lens_q: Cumulative sequence lengths, from 0 to `tokens`.
        scaling: What scores are multiplied by; `head_dim ** -0.5` when left out.
        dropout: The share of attention weights that are dropped.
        is_causal: Whether a query sees only what stands before it.
        softcap: Scores are `softcap * tanh(score / softcap)` (Gemma 2).
        s_aux: One extra score a head, which takes part in the softmax and attends to nothing (gpt-oss), `[heads]`.
        others: Further keywords of the model; only those without an effect on the result are accepted.

    Returns:
        `[1, tokens, heads, value_dim]`, and None for the weights.

    Raises:
        UnsupportedAttention: The model gives a keyword, a mask or shapes that are not implemented here.
    """
    bounds = _bounds(cu_seq_lens_q)
    _check(others, attention_mask, bounds, query)
    assert cu_seq_lens_q is not None
    causal = bool(getattr(module, "is_causal", True) if is_causal is None else is_causal)
    furthest = max(end - start for start, end in pairwise(bounds)) - 1
    reach: tuple[int, int] | None = (furthest, 0 if causal else furthest)
    if attention_mask is not None:
        # Of a mask on a device each question is a wait: one for all sequences, then, not one for each of its tiles.
        reach = attention_mask.reach(bounds, cu_seq_lens_q) if query.device.type != "cpu" else None
        if reach and reach[0] >= furthest and (reach[1] == 0 or reach[1] >= furthest):
            attention_mask, causal = None, reach[1] == 0
    plainly = softcap is None and s_aux is None and dropout == 0
    if reach and plainly and can_attend_at_once(query, key, value):
        return attend_at_once(query, key, value, cu_seq_lens_q, furthest + 1, reach, scaling), None
    found = []
    for start, end in pairwise(bounds):
        whole = slice(start, end)
        for part in attention_mask.tiles(start, end) if attention_mask else [Tile(whole, whole, None, causal)]:
            q, k, v = query[:, :, part.queries], key[:, :, part.keys], value[:, :, part.keys]
            if softcap is None and s_aux is None:
                found.append(_attend(q, k, v, part.mask, part.causal, scaling, dropout))
            else:
                visible = q.new_ones(q.shape[2], q.shape[2], dtype=torch.bool).tril() if part.causal else part.mask
                found.append(_attend_explicitly(q, k, v, visible, scaling, dropout, softcap, s_aux))
    return torch.cat([heads.transpose(1, 2) for heads in found], dim=1), None


_KNOWN_BOUNDS: MutableMapping[torch.Tensor, list[int]] = WeakIdKeyDictionary()
"""What a tensor on the device says of boundaries, so that no layer waits for the device to tell it."""


def remember_bounds(cu_seq_lens: torch.Tensor, bounds: list[int]) -> None:
    """Notes what a tensor of cumulative sequence lengths holds, from 0 to the pass's tokens."""
    _KNOWN_BOUNDS[cu_seq_lens] = bounds


def _bounds(cu_seq_lens: torch.Tensor | None) -> list[int]:
    if cu_seq_lens is None:
        raise UnsupportedAttention("it does not tell its attention where sequences begin")
    if cu_seq_lens not in _KNOWN_BOUNDS:
        _KNOWN_BOUNDS[cu_seq_lens] = cu_seq_lens.tolist()
    return _KNOWN_BOUNDS[cu_seq_lens]


def _check(others: dict[str, Any], mask: DeferredMask | None, bounds: Sequence[int], query: torch.Tensor) -> None:
    unknown = sorted(name for name, value in others.items() if value is not None and name not in _WITHOUT_EFFECT)
    if unknown:
        raise UnsupportedAttention(f"its attention is given {', '.join(unknown)}")
    if mask is not None and not isinstance(mask, DeferredMask):
        raise UnsupportedAttention(f"it makes its attention mask itself, as {with_article(type(mask).__name__)}")
    if mask is None and others.get("sliding_window") is not None:
        raise UnsupportedAttention("it gives its attention a window and no mask")
    if query.shape[0] != 1 or query.shape[2] != bounds[-1]:
        raise UnsupportedAttention(f"it gives its attention queries of shape {list(query.shape)}")


def _attend(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    mask: torch.Tensor | None,
    causal: bool,
    scaling: float | None,
    dropout: float,
) -> torch.Tensor:
    """Attends within one sequence by torch's kernel; `[1, heads, tokens, value_dim]`."""
    dtype = q.dtype
    if q.device.type == "cpu" and q.itemsize == 2 and q.shape[2] <= _SHORT:
        q, k, v = q.float(), k.float(), v.float()
    groups = q.shape[1] // k.shape[1]
    if groups > 1 and not _kernel_takes_groups(q, k, v, mask):
        k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
    return scaled_dot_product_attention(
        q, k, v, mask, dropout, is_causal=causal, scale=scaling, enable_gqa=q.shape[1] != k.shape[1]
    ).to(dtype)


def _kernel_takes_groups(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None) -> bool:
    """Tells whether a kernel reads keys and values that several heads share as they are.

    On CUDA flash attention alone does. Without it torch would take the attention that is written out, without a word,
    and keep all scores: memory by the square of the length (`sdp_utils.cpp`, `check_batch_size_and_num_heads_dense`).
    """
    return q.device.type == "cpu" or (mask is None and can_attend_at_once(q, k, v))


def _attend_explicitly(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    visible: torch.Tensor | None,
    scaling: float | None,
    dropout: float,
    softcap: float | None,
    sinks: torch.Tensor | None,
) -> torch.Tensor:
    """Attends within one sequence, the scores written out; `[1, heads, tokens, value_dim]`."""
    groups = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
    scores = q @ k.transpose(2, 3) * (scaling if scaling is not None else q.shape[-1] ** -0.5)
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    if visible is not None:
        scores = scores.masked_fill(~visible, torch.finfo(scores.dtype).min)
    if sinks is not None:
        extra = sinks.reshape(1, -1, 1, 1).expand(1, -1, scores.shape[2], 1).to(scores.dtype)
        scores = torch.cat([scores, extra], dim=-1)
    weights = softmax(scores, dim=-1, dtype=torch.float32).to(q.dtype)
    if sinks is not None:
        weights = weights[..., :-1]
    return drop(weights, dropout, training=dropout > 0) @ v


def _deferred_mask(
    *, mask_function: Callable[..., torch.Tensor], device: torch.device, use_vmap: bool = False, **others: Any
) -> DeferredMask:
    """What transformers calls in place of making a mask over the whole pass."""
    if others.get("attention_mask") is not None:
        raise UnsupportedAttention("it masks padding, which a packed pass has none of")
    return DeferredMask(mask_function, use_vmap, device)


def register_packed_attention() -> None:
    """Makes the packed attention known to transformers."""
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(PACKED, packed_attention)
    AttentionMaskInterface.register(PACKED, _deferred_mask)


def native_attention(network: Any) -> str:
    """Returns transformers' own attention for a model: `sdpa` where the architecture has it, else `eager`."""
    return "sdpa" if getattr(network, "_supports_sdpa", False) else "eager"
