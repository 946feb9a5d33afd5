"""Which of a model's attention masks hide earlier tokens from later ones, found out from the masks themselves."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import torch
from torch import nn

__all__ = ["hidden_pasts"]

_PROBE = "graftkit_mask_probe"
"""The name under which transformers knows the attention that computes nothing."""
_MOST_NUMBERS = 1 << 27
"""How large the embedded tokens of a sequence may be: 512 MB."""


class _EveryMaskMade(Exception):
    """Ends a forward pass before its layers are computed."""


@torch.no_grad()
def hidden_pasts(network: Any, length: int, *, masks: int | None = None) -> list[bool]:
    """Tells for each mask that a model makes whether the last token of a sequence is kept from seeing an earlier one.

    Attention is not computed, and with `masks` nothing else is either, so that a long sequence costs little.

    Args:
        network: A transformers model that lets its attention be chosen.
        length: Tokens of the sequence.
        masks: After how many masks to stop; the forward pass is run to its end when left out.

    Returns:
        For each mask in the order in which they are made.

    Raises:
        ValueError: It has to embed the tokens, and they are too many.
    """
    from transformers import AttentionInterface, AttentionMaskInterface

    found: list[bool] = []

    def look(**call: Any) -> None:
        found.append(not _last_row(length, **call).all())
        if len(found) == masks:
            raise _EveryMaskMade

    AttentionInterface.register(_PROBE, _zeros)
    AttentionMaskInterface.register(_PROBE, look)
    embedding = network.get_input_embeddings().weight
    if sum(isinstance(m, nn.Embedding) and len(m.weight) == len(embedding) for m in network.modules()) > 1:
        if length * embedding.shape[1] > _MOST_NUMBERS:
            raise ValueError("it has several embeddings, too wide for sequences as long as its context")
        inputs = {"input_ids": torch.zeros(1, length, dtype=torch.long, device=embedding.device)}
    else:  # which takes no memory
        inputs = {"inputs_embeds": embedding.new_zeros(1, 1, 1).expand(1, length, embedding.shape[1])}
    former = network.config._attn_implementation
    network.set_attn_implementation(_PROBE)
    try:
        with suppress(_EveryMaskMade):
            network.base_model(**inputs, use_cache=False)
    finally:
        network.set_attn_implementation(former)
    return found


def _last_row(length: int, *, mask_function: Any, device: Any, use_vmap: bool = False, **others: Any) -> torch.Tensor:
    """Returns which tokens the last one sees, `[1, heads, 1, length]`."""
    from transformers.masking_utils import sdpa_mask

    row: torch.Tensor = sdpa_mask(
        batch_size=1,
        q_length=1,
        kv_length=length,
        q_offset=length - 1,
        kv_offset=0,
        mask_function=mask_function,
        allow_is_causal_skip=False,
        use_vmap=use_vmap,
        device=device,
    )
    return row.bool()


def _zeros(module: Any, query: torch.Tensor, key: Any, value: torch.Tensor, *rest: Any, **others: Any) -> Any:
    """Has the form of transformers' attention functions, but attends to nothing."""
    return value.new_zeros(1, query.shape[2], query.shape[1], value.shape[3]), None
