"""What an export is proved with: a few token sequences and the logits that the trained model gives them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from graftkit.flow.base_model import LoadedModel
from graftkit.flow.corpus import Corpus
from graftkit.model.attention import native_attention
from graftkit.model.packing import attention_as
from graftkit.store.files import write_atomic

__all__ = ["PROBES_FILE", "Probes", "allowed_difference", "largest_difference", "make_probes"]

PROBES_FILE = "probes.safetensors"
COUNT = 4
TOKENS = 48
KEPT = 4
"""Logits are kept of the last tokens of each probe: each depends on every token before it."""


@dataclass(frozen=True, slots=True)
class Probes:
    """Token sequences and what the trained model makes of them.

    Attributes:
        ids: Token ids, one list a probe.
        logits: For each probe the logits of its last tokens, `[KEPT, vocabulary]`, float32.
        tokenizer_fingerprint: Of the tokenizer that the ids are of.
    """

    ids: list[list[int]]
    logits: list[torch.Tensor]
    tokenizer_fingerprint: str = ""

    def save(self, path: Path) -> None:
        """Writes one safetensors file."""
        from safetensors.torch import save

        tensors = {f"ids.{n}": torch.tensor(ids) for n, ids in enumerate(self.ids)}
        tensors |= {f"logits.{n}": logits.contiguous() for n, logits in enumerate(self.logits)}
        data = save(tensors, metadata={"tokenizer_fingerprint": self.tokenizer_fingerprint})
        write_atomic(path, lambda file: file.write(data))

    @classmethod
    def load(cls, path: Path) -> Probes:
        """Reads what `save` wrote."""
        from safetensors.torch import load_file

        tensors = load_file(path)
        count = len(tensors) // 2
        return cls(
            [tensors[f"ids.{n}"].tolist() for n in range(count)],
            [tensors[f"logits.{n}"] for n in range(count)],
        )


@torch.no_grad()
def make_probes(loaded: LoadedModel, corpus: Corpus) -> Probes:
    """Takes the beginnings of some rows, held-out ones where there are any, and runs the trained model on them.

    It runs in float32 whatever it was trained in, so that what is compared are the weights and not the rounding of
    activations; it stays in float32 afterwards.
    """
    store = corpus.holdout if len(corpus.holdout) else corpus.train
    ids = [store[row].ids[:TOKENS].tolist() for row in range(min(COUNT, len(store)))]
    network = loaded.model.network.float()
    with attention_as(network, native_attention(network)):
        logits = [_logits(network, probe, loaded.device) for probe in ids]
    return Probes(ids, logits, loaded.model.tokenizer.fingerprint)


def _logits(network: nn.Module, ids: Sequence[int], device: torch.device) -> torch.Tensor:
    output = network(input_ids=torch.tensor([ids], device=device), use_cache=False)
    kept: torch.Tensor = output.logits[0, -KEPT:].float().cpu()
    return kept


def allowed_difference(probes: Probes, share: float) -> float:
    """Returns how far a logit may be off: a share of the largest one, and 1e-4 at least."""
    return max(1e-4, share * max(logits.abs().max().item() for logits in probes.logits))


def largest_difference(probes: Probes, found: Sequence[torch.Tensor]) -> float:
    """Returns the largest difference of a logit; infinite where shapes differ or a number is not finite.

    Vocabulary rows that one side has beyond the other's are padding and are left out.
    """
    largest = 0.0
    for expected, logits in zip(probes.logits, found, strict=True):
        kept = logits[-len(expected) :].float()
        width = min(expected.shape[1], kept.shape[1])
        difference = (expected[:, :width] - kept[:, :width]).abs().max().item()
        if kept.shape[0] != expected.shape[0] or difference != difference:
            return float("inf")
        largest = max(largest, difference)
    return largest
