"""EVA: `A` starts as the directions in which a layer's inputs vary most, and ranks go where more is explained.

Paischer et al., One Initialization to Rule them All: Fine-tuning via Explained Variance Adaptation, 2024
(https://arxiv.org/abs/2410.07170). A row of `A` is a principal component of the layer's inputs, `B` is zero. Of all
layers' components those that explain the largest shares of their layers' variances are taken, as many as the ranks
together; a layer has `rho` times its rank of them at most, and none where all its components explain less. Ranks and
the choice are those of `peft.tuners.lora.eva` (peft 0.21). A layer that gets another rank keeps its scale.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from graftkit import LayerInfo
from graftkit.interfaces.observing import ObservedStart

from graftkit_adapters.config import LoraConfig

__all__ = ["EvaObserver", "PrincipalComponents"]

_AT_ONCE = 256
"""Tokens that are taken in at once, whose products with each other are decomposed."""

_FEWEST_KEPT = 64
"""Components that are kept at least while vectors come, so that few of them are lost that grow later."""


class PrincipalComponents:
    """Principal components of vectors that come a few at a time.

    Ross et al., Incremental Learning for Robust Visual Tracking, 2008: what is kept are the largest components of all
    vectors so far, scaled by their singular values; they are decomposed again together with new vectors and the shift
    of the mean.

    Args:
        size: Numbers of a vector.
        kept: How many components are kept.

    Attributes:
        count: Vectors so far.
    """

    def __init__(self, size: int, kept: int) -> None:
        self.count = 0
        self._kept = min(size, kept)
        self._mean = torch.zeros(size, dtype=torch.float64)
        self._scaled = torch.zeros(0, size, dtype=torch.float64)
        self._variance = 0.0

    def add(self, vectors: torch.Tensor) -> None:
        """Takes in vectors, `[vectors, size]`."""
        for block in torch.split(vectors, _AT_ONCE):
            self._add(block.double())

    def _add(self, block: torch.Tensor) -> None:
        mean, many = block.mean(0), len(block)
        shift = (self._mean.to(block.device) - mean) * (self.count * many / (self.count + many)) ** 0.5
        centered = block - mean
        self._variance += float(centered.square().sum() + shift.square().sum())
        self._mean = (self._mean.to(block.device) * self.count + mean * many) / (self.count + many)
        self.count += many
        rows = torch.cat([self._scaled.to(block.device), centered, shift.unsqueeze(0)])
        _, vectors = torch.linalg.eigh(rows @ rows.T)
        self._scaled = vectors.flip(1)[:, : self._kept].T @ rows

    def components(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns the components, `[kept, size]`, orthonormal, and the share of the variance that each explains.

        The largest number of each is positive, so that equal vectors give equal components.
        """
        lengths = self._scaled.norm(dim=1)
        unit = self._scaled / lengths.clamp(min=torch.finfo(torch.float64).tiny).unsqueeze(1)
        largest = unit.gather(1, unit.abs().argmax(1, keepdim=True))
        return unit * largest.sign(), lengths.square() / max(self._variance, torch.finfo(torch.float64).tiny)


class EvaObserver:
    """Sees the inputs of layers, and makes LoRA's start of them.

    Args:
        config: LoRA's fields.
        layers: The layers that are adapted.
    """

    def __init__(self, config: LoraConfig, layers: Sequence[LayerInfo]) -> None:
        self._config = config
        self._layers = {layer.path: layer for layer in layers}
        self._most = {
            layer.path: min(layer.in_features, round(config.rank_of(layer) * config.eva_rho)) for layer in layers
        }
        self._seen: dict[str, PrincipalComponents] = {}

    def observe(self, path: str, inputs: torch.Tensor) -> None:
        """Takes in some of a layer's inputs, `[tokens, in]`."""
        if path not in self._seen:
            most = max(self._most.values())
            self._seen[path] = PrincipalComponents(inputs.shape[1], max(_FEWEST_KEPT, 2 * most))
        self._seen[path].add(inputs)

    def start(self, shared: Mapping[str, str]) -> ObservedStart:
        """Returns `lora_A` of each layer that gets a rank, and the ranks and alphas that differ from the recipe's.

        Raises:
            ValueError: Fewer tokens were seen than components may be taken.
        """
        for path, most in self._most.items():
            seen = self._seen.get(shared.get(path, path))
            count = seen.count if seen else 0
            if count <= most:
                raise ValueError(
                    f"init: eva takes up to {most} components of the inputs of '{path}', of which {count} were seen"
                )
        found = {path: seen.components() for path, seen in self._seen.items()}
        parts = {path: found[shared.get(path, path)] for path in self._layers}
        ranks = self._ranks({path: shares[: self._most[path]].tolist() for path, (_, shares) in parts.items()})
        return ObservedStart(
            tensors={path: {"lora_A": parts[path][0][:rank].float()} for path, rank in ranks.items() if rank},
            options=self._options({path: rank for path, rank in ranks.items() if rank}),
            left_out=frozenset(path for path, rank in ranks.items() if not rank),
        )

    def _ranks(self, shares: Mapping[str, Sequence[float]]) -> dict[str, int]:
        """Returns how many of its components each layer gets; of equal ones the first layer's come first."""
        budget = sum(self._config.rank_of(layer) for layer in self._layers.values())
        every = [(-share, number, path) for path, own in shares.items() for number, share in enumerate(own)]
        ranks = dict.fromkeys(self._layers, 0)
        for _, _, path in sorted(every, key=lambda item: item[:1])[:budget]:
            ranks[path] += 1
        return ranks

    def _options(self, ranks: Mapping[str, int]) -> dict[str, object]:
        """Returns the ranks and alphas of layers as patterns of their whole paths."""
        config = self._config
        alphas = {path: config.alpha_for(self._layers[path], rank) for path, rank in ranks.items()}
        own_ranks = {path: rank for path, rank in ranks.items() if rank != config.rank or config.rank_pattern}
        own_alphas = {path: alpha for path, alpha in alphas.items() if alpha != config.alpha or config.alpha_pattern}
        return {  # the recipe's still hold for layers that were not observed
            "rank_pattern": own_ranks | dict(config.rank_pattern),
            "alpha_pattern": own_alphas | dict(config.alpha_pattern),
        }
