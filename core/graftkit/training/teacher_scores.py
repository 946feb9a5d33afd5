"""The likeliest tokens of a teacher at each position, with their log-probabilities."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from graftkit.training.batch import PackedBatch
from graftkit.training.loss import TokenLoss

__all__ = ["TeacherScores", "teacher_scores"]


@dataclass(frozen=True, slots=True)
class TeacherScores:
    """What a teacher says of the tokens in the loss of a pass, on the CPU.

    Attributes:
        ids: The tokens that it finds likeliest in the place of each, `[loss tokens, k]`, int32.
        logps: Their log-probabilities, in nats, `[loss tokens, k]`, float32, descending.
        nll: The negative log-likelihood of the tokens themselves, without a temperature, `[loss tokens]`, float32.
    """

    ids: torch.Tensor
    logps: torch.Tensor
    nll: torch.Tensor


@torch.no_grad()
def teacher_scores(
    loss: TokenLoss, batch: PackedBatch, top_k: int, vocabulary: int, temperature: float
) -> TeacherScores:
    """Scores a pass, a piece of the logits at a time.

    Args:
        loss: Makes the teacher's logits.
        batch: The sequences.
        top_k: How many tokens are kept at each place.
        vocabulary: How many tokens there are: logits after them are left out of the distribution.
        temperature: What logits are divided by.
    """
    kept, nll, done = [], [], 0
    for logits in loss.logits(batch)():
        labels, done = batch.labels[done : done + len(logits)], done + len(logits)
        logps = logits[:, :vocabulary].log_softmax(1)
        nll.append(-logps.gather(1, labels.unsqueeze(1)).squeeze(1).cpu())
        if temperature != 1:
            logps = (logits[:, :vocabulary] / temperature).log_softmax(1)
        values, ids = logps.topk(top_k, 1)
        kept.append((ids.int().cpu(), values.cpu()))
    return TeacherScores(torch.cat([ids for ids, _ in kept]), torch.cat([v for _, v in kept]), torch.cat(nll))
