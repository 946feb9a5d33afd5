"""Runs token sequences through a transformers model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

__all__ = ["probe_logits"]


@torch.no_grad()
def probe_logits(model: Any, probes: Sequence[Sequence[int]]) -> list[torch.Tensor]:
    """Returns each probe's logits, `[tokens, vocabulary]`, float32."""
    model.eval()
    return [model(input_ids=torch.tensor([list(ids)])).logits[0].float() for ids in probes]
