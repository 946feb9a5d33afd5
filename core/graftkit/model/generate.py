"""Greedy generation of many answers side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from inspect import signature
from typing import Any

import torch

from graftkit.model.attention import native_attention
from graftkit.model.packing import attention_as

__all__ = ["generate_greedily", "stream_greedily"]


def generate_greedily(
    network: Any,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    stop: Sequence[int],
    poll: Callable[[int], None] = lambda made: None,
) -> list[list[int]]:
    """Continues each prompt with the likeliest token until a stop token.

    Args:
        network: A transformers causal language model.
        prompts: Token ids of each prompt; none is empty.
        max_new_tokens: Tokens of an answer at most.
        stop: Tokens that end an answer; they are not part of it.
        poll: Called after each token with how many each answer has by now; raises to stop.

    Returns:
        The tokens of each answer.
    """
    if _keeps_a_state(network) and len({len(prompt) for prompt in prompts}) > 1:
        options = {"max_new_tokens": max_new_tokens, "stop": stop, "poll": poll}
        return [generate_greedily(network, [prompt], **options)[0] for prompt in prompts]  # type: ignore[arg-type]
    answers: list[list[int]] = [[] for _ in prompts]
    open_rows = set(range(len(prompts)))
    for made, tokens in enumerate(_next_tokens(network, prompts, max_new_tokens), 1):
        poll(made)
        open_rows -= {row for row in open_rows if tokens[row] in stop}
        for row in open_rows:
            answers[row].append(tokens[row])
        if not open_rows:
            break
    return answers


def stream_greedily(network: Any, prompt: Sequence[int], *, max_new_tokens: int, stop: Sequence[int]) -> Iterator[int]:
    """Yields the tokens of one answer as they come."""
    for tokens in _next_tokens(network, [prompt], max_new_tokens):
        if tokens[0] in stop:
            return
        yield tokens[0]


def _next_tokens(network: Any, prompts: Sequence[Sequence[int]], limit: int) -> Iterator[list[int]]:
    """Yields the likeliest next token of every prompt, again and again, with a cache of what was computed.

    Prompts of different lengths are padded on the left; the padding is masked.
    """
    ids, mask = _pad_left(prompts, network.get_input_embeddings().weight.device)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    cache = None
    cache_name = "cache_params" if _keeps_a_state(network) else "past_key_values"
    padded = not bool(mask.all())
    with attention_as(network, native_attention(network)):
        for _ in range(limit):
            with torch.no_grad():
                output = network(
                    input_ids=ids,
                    attention_mask=mask if padded else None,
                    position_ids=positions,
                    use_cache=True,
                    logits_to_keep=1,
                    **{cache_name: cache},
                )
            cache = getattr(output, cache_name)
            chosen = output.logits[:, -1].argmax(-1)
            yield chosen.tolist()
            ids, positions = chosen.unsqueeze(1), positions[:, -1:] + 1
            mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)


def _keeps_a_state(network: Any) -> bool:
    """Tells whether the model is all state space (Mamba): its cache has a name of its own and knows no padding."""
    return "cache_params" in signature(network.forward).parameters


def _pad_left(prompts: Sequence[Sequence[int]], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    longest = max(map(len, prompts))
    ids = torch.zeros(len(prompts), longest, dtype=torch.long)
    mask = torch.zeros(len(prompts), longest, dtype=torch.long)
    for row, prompt in enumerate(prompts):
        ids[row, longest - len(prompt) :] = torch.tensor(prompt)
        mask[row, longest - len(prompt) :] = 1
    return ids.to(device), mask.to(device)
