"""Noise on the input embeddings while a model trains: NEFTune (Jain et al., 2023, https://arxiv.org/abs/2310.05914)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

__all__ = ["embedding_noise"]


@contextmanager
def embedding_noise(network: Any, alpha: float | None) -> Iterator[None]:
    """Adds uniform noise to the input embeddings of each forward pass in training mode, for a while.

    Each number of a sequence of `tokens` tokens gets one from `[-bound, bound]` of its own, where `bound` is `alpha` /
    sqrt(tokens * width). Of packed sequences each has its own bound, as if it were alone; transformers' NEFTune takes
    the length of the padded batch. Numbers are drawn from torch's global generator, as dropout's are.

    Args:
        network: A transformers model.
        alpha: How strong the noise is; None for none at all.
    """
    if alpha is None:
        yield
        return
    bounds: list[torch.Tensor] = []

    def before_pass(body: nn.Module, inputs: tuple[Any, ...], keywords: Mapping[str, Any]) -> None:
        bounds[:] = [keywords["cu_seq_lens_q"]] if "cu_seq_lens_q" in keywords else []

    def after_embedding(embedding: nn.Module, inputs: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor:
        return output + _noise(output, alpha, bounds[0] if bounds else None) if network.training else output

    handles = (
        network.base_model.register_forward_pre_hook(before_pass, with_kwargs=True),
        network.get_input_embeddings().register_forward_hook(after_embedding),
    )
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _noise(embedded: torch.Tensor, alpha: float, bounds: torch.Tensor | None) -> torch.Tensor:
    """Returns noise for embeddings, `[1, tokens, width]`, whose sequences end where `bounds` says, 0 before them."""
    _, tokens, width = embedded.shape
    lengths = torch.tensor([tokens], device=embedded.device) if bounds is None else bounds.diff()
    strengths = (alpha / (lengths * width).sqrt()).repeat_interleave(lengths, output_size=tokens)
    drawn = torch.empty_like(embedded).uniform_(-1, 1)
    return drawn * strengths.to(embedded.dtype)[None, :, None]
