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
from graftkit import AdaptedWeight, EmbeddingWeight, Layer, LayerInfo
from torch import nn
from torch.nn.functional import dropout, linear

from graftkit_adapters.config import LoraConfig
from graftkit_adapters.eva import EvaObserver
from graftkit_adapters.starts import start_of

__all__ = ["MAGNITUDE", "Lora", "LoraEmbedding", "LoraWeight"]

_OF_EMBEDDING = "lora_embedding_"
"""What the names of an embedding's two matrices begin with in PEFT's files."""

MAGNITUDE = "lora_magnitude_vector"
"""What DoRA's magnitudes are called, here and in PEFT's files."""


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
            from graftkit_adapters.dora import DoraWeight

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


class LoraWeight(AdaptedWeight):
    """A frozen weight with a low-rank update.

    Attributes:
        lora_A: `[rank, in]`, float32.
        lora_B: `[out, rank]`, float32.
        start_A: What `lora_A` was at first, where that is taken off, else None.
        start_B: What `lora_B` was at first, likewise.
    """

    def __init__(self, layer: Layer, config: LoraConfig) -> None:
        super().__init__(layer)
        rank, self._scale = config.rank_of(layer.info), config.scale_of(layer.info)
        a, b = start_of(config.init, layer, rank, self._scale)
        self.lora_A, self.lora_B = nn.Parameter(a), nn.Parameter(b)
        taken = config.start_is_taken_off
        self.start_A = nn.Parameter(a.clone(), requires_grad=False) if taken else None
        self.start_B = nn.Parameter(b.clone(), requires_grad=False) if taken else None
        if config.init == "qpissa":
            self.replace_frozen(layer.requantize(layer.original() - self._scale * (b @ a)))
        self._dropout = config.dropout
        self._rate_of_b = config.lora_plus_ratio

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps `[..., in]` to `[..., out]`, in the type of what comes in; parameters and their steps stay float32."""
        return self._rest(x) + self._update(dropout(x, self._dropout, self.training))

    def _rest(self, x: torch.Tensor) -> torch.Tensor:
        """Returns what is not trained of the product: that of the frozen weight, less a start that is taken off."""
        y: torch.Tensor = self.frozen(x)
        return y if self.start_A is None else y - self._product(x, self.start_A, self.start_B)

    def _update(self, x: torch.Tensor) -> torch.Tensor:
        """Returns `B A x`, scaled."""
        return self._product(x, self.lora_A, self.lora_B)

    def _product(self, x: torch.Tensor, a: torch.Tensor, b: torch.Tensor | None) -> torch.Tensor:
        assert b is not None
        return linear(linear(x, a.to(x.dtype)), (b * self._scale).to(x.dtype))

    def delta(self) -> torch.Tensor:
        """Returns `B A`, scaled, less a start that is taken off, `[out, in]`."""
        a, b = self._factors()
        return (b.detach() @ a.detach()) * self._scale

    def _factors(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns `A` and `B` of all that is added to the frozen weight; their rank is twice with such a start."""
        if self.start_A is None or self.start_B is None:
            return self.lora_A, self.lora_B
        return torch.cat([self.lora_A, self.start_A]), torch.cat([self.lora_B, -self.start_B], dim=1)

    def adapter_state(self) -> dict[str, torch.Tensor]:
        """Returns what is trained, and a start that is taken off."""
        return super().adapter_state() | self._start()

    def load_adapter_state(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Takes over tensors that `adapter_state` gave.

        Raises:
            ValueError: A tensor is missing, left over, or of another shape; nothing is changed then.
        """
        start = self._start()
        for name, own in start.items():
            if name not in tensors or tensors[name].shape != own.shape:
                found = list(tensors[name].shape) if name in tensors else "none"
                raise ValueError(f"adapter tensor {name!r} is {list(own.shape)}; the state's is {found}")
        super().load_adapter_state({name: tensor for name, tensor in tensors.items() if name not in start})
        with torch.no_grad():
            for name, own in start.items():
                own.copy_(tensors[name])

    def _start(self) -> dict[str, torch.Tensor]:
        found = {"start_A": self.start_A, "start_B": self.start_B}
        return {name: tensor.detach() for name, tensor in found.items() if tensor is not None}

    def rate_scales(self) -> Mapping[str, float]:
        """Returns LoRA+'s ratio for `B`."""
        return {"lora_B": self._rate_of_b}


class LoraEmbedding(LoraWeight):
    """An embedding with a low-rank update: `A` has a column for each id, `[rank, ids]`, and starts at zero.

    As in PEFT there is no dropout on it, and the row of a `padding_idx` is not trained. LoRA+'s ratio is for layers
    whose inputs are vectors.
    """

    def __init__(self, layer: Layer, config: LoraConfig) -> None:
        reason = config.refusal(layer.info)
        if reason:
            raise ValueError(f"the layer '{layer.info.path}' can't be adapted: {reason}")
        super().__init__(layer, config)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps ids `[...]` to `[..., out]`, in the type of the frozen rows."""
        frozen = self.frozen
        assert isinstance(frozen, EmbeddingWeight)
        rows: torch.Tensor = frozen(x)
        low = frozen.look_up(x, self.lora_A.T)
        return rows + linear(low.to(rows.dtype), (self.lora_B * self._scale).to(rows.dtype))

    def rate_scales(self) -> Mapping[str, float]:
        """Returns no factors."""
        return {}
