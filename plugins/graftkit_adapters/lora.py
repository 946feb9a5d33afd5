"""Low-rank adaptation: a frozen weight plus the product of two thin matrices.

Hu et al., LoRA, 2021 (https://arxiv.org/abs/2106.09685): `y = W x + (alpha / rank) B A x`. `A` starts uniform in
`±1/sqrt(in)`, `B` at zero, so that training starts from the model as it was; `graftkit_adapters.starts` has others. On
quantized weights it is QLoRA.

rsLoRA (Kalajdzievski, 2023, https://arxiv.org/abs/2312.03732) scales by `alpha / sqrt(rank)`. LoRA+ (Hayou et al.,
2024, https://arxiv.org/abs/2402.12354) trains `B` with a higher rate than `A`. Ranks and alphas of single layers follow
PEFT's `rank_pattern` and `alpha_pattern`. DoRA is in `graftkit_adapters.dora`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import sqrt
from typing import Any

import torch
from graftkit import AdaptedWeight, Layer, LayerInfo

from graftkit_adapters.config import LoraConfig
from graftkit_adapters.dora import DoraWeight
from graftkit_adapters.eva import EvaObserver
from graftkit_adapters.lora_weight import MAGNITUDE, LoraEmbedding, LoraWeight

__all__ = ["Lora"]

_OF_EMBEDDING = "lora_embedding_"
"""What the names of an embedding's two matrices begin with in PEFT's files."""


class Lora:
    """Puts LoRA on weights."""

    def __init__(self, config: LoraConfig | None = None) -> None:
        self._config = config or LoraConfig()

    def attach(self, layer: Layer) -> LoraWeight:
        """Adapts one layer; the result starts by computing what its weight alone computes.

        Raises:
            ValueError: It is an embedding, on which there is no DoRA and no start from the weight.
        """
        if layer.info.kind == "embedding":
            return LoraEmbedding(layer, self._config)
        if self._config.dora:
            return DoraWeight(layer, self._config)
        return LoraWeight(layer, self._config)

    @property
    def observed_tokens(self) -> int:
        """How many tokens' inputs the start is made of: those that `init: eva` looks at."""
        return self._config.eva_tokens if self._config.init == "eva" else 0

    def observer(self, layers: Sequence[LayerInfo]) -> EvaObserver:
        """Returns what sees the inputs of layers for `init: eva`."""
        return EvaObserver(self._config, layers)

    def peft_config(self) -> Mapping[str, Any] | None:
        """Returns the method's fields of adapter_config.json, or None where the frozen weights are no base model's.

        A start that is taken off is a second update beside the trained one: both are one of twice the rank.
        """
        config = self._config
        if config.init == "qpissa":
            return None
        ranks = 2 if config.start_is_taken_off else 1
        alphas = sqrt(ranks) if config.rslora else ranks
        return {
            "peft_type": "LORA",
            "r": config.rank * ranks,
            "lora_alpha": config.alpha * alphas,
            "lora_dropout": config.dropout,
            "bias": "none",
            "fan_in_fan_out": False,
            "use_rslora": config.rslora,
            "use_dora": config.dora,
            "init_lora_weights": True,
            "rank_pattern": {pattern: rank * ranks for pattern, rank in config.rank_pattern.items()},
            "alpha_pattern": {pattern: alpha * alphas for pattern, alpha in config.alpha_pattern.items()},
            "modules_to_save": None,
        }

    def peft_tensors(self, adapted: AdaptedWeight) -> Mapping[str, torch.Tensor]:
        """Returns `lora_A.weight [rank, in]` and `lora_B.weight [out, rank]`, and DoRA's magnitudes `[out]`.

        Those of an embedding are `lora_embedding_A [rank, ids]` and `lora_embedding_B [out, rank]`.
        """
        state = dict(adapted.adapter_state())
        if adapted.info.kind == "embedding":
            return {f"{_OF_EMBEDDING}{name.removeprefix('lora_')}": tensor for name, tensor in state.items()}
        if self._config.start_is_taken_off:
            state["lora_A"] = torch.cat([state["lora_A"], state.pop("start_A")])
            state["lora_B"] = torch.cat([state["lora_B"], -state.pop("start_B")], dim=1)
        return {name if name == MAGNITUDE else f"{name}.weight": tensor for name, tensor in state.items()}

    def from_peft(self, tensors: Mapping[str, torch.Tensor]) -> Mapping[str, torch.Tensor]:
        """Returns `lora_A`, `lora_B`, of a start that is taken off `start_A` and `start_B`, of DoRA the magnitudes."""
        state = {key.replace(_OF_EMBEDDING, "lora_").removesuffix(".weight"): tensor for key, tensor in tensors.items()}
        if any(key.startswith(_OF_EMBEDDING) for key in tensors):
            return state
        if self._config.start_is_taken_off:
            state["lora_A"], state["start_A"] = state["lora_A"].tensor_split(2)
            state["lora_B"], off = state["lora_B"].tensor_split(2, dim=1)
            state["start_B"] = -off
        return state
