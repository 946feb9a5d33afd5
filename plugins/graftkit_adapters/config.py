"""The adapters' own recipe fields."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from math import sqrt
from typing import Annotated, Any, ClassVar, Literal, Self

from graftkit import LayerInfo, LayerKind, ProviderConfig
from graftkit.interfaces.patterns import takes_forever
from pydantic import AfterValidator, Field, model_validator

__all__ = ["BitFitConfig", "FullConfig", "LoraConfig", "QloraConfig", "Start"]

Start = Literal["kaiming", "gaussian", "orthogonal", "pissa", "olora", "qpissa", "eva"]
"""What LoRA's two matrices start as."""

_FROM_WEIGHT = ("pissa", "olora", "qpissa")
"""Starts that are made of a layer's original weight."""

_TAKEN_OFF = ("pissa", "olora")
"""Starts whose product is taken off again, which PEFT has as LoRA of twice the rank."""


def _end_of_path(pattern: str) -> str:
    """Returns the expression that PEFT makes of a pattern: it matches a path whose end, from a dot on, it describes."""
    return rf"(.*\.)?({pattern})$"


def _compiles(pattern: str) -> str:
    try:
        _compiled(pattern)
    except re.error as error:
        raise ValueError(f"'{pattern}' is no regular expression: {error}") from None
    if takes_forever(pattern):
        raise ValueError(f"'{pattern}' could take forever")
    return pattern


@lru_cache(maxsize=4096)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(_end_of_path(pattern))


_OF_PEFT = {
    "r": "rank",
    "lora_alpha": "alpha",
    "lora_dropout": "dropout",
    "use_rslora": "rslora",
    "use_dora": "dora",
    "rank_pattern": "rank_pattern",
    "alpha_pattern": "alpha_pattern",
}
"""PEFT's names of the fields of a `LoraConfig`."""

_DEFAULTS_OF_PEFT = {"rank": 8, "alpha": 8, "dropout": 0.0, "rslora": False, "dora": False, "init": "kaiming"}

_VARIANTS = {"use_qalora": "QA-LoRA", "use_bdlora": "BD-LoRA", "arrow_config": "Arrow"}
"""Fields of PEFT's that make another method of LoRA."""

_STARTS = (True, False, "gaussian", "orthogonal", "eva")
"""Values of `init_lora_weights` that leave the frozen weights as they are; others, such as PiSSA's, change them."""

_OF_STARTS = frozenset(
    ["corda_config", "eva_config", "loftq_config", "lora_ga_config", "megatron_core", "qalora_group_size"]
)
"""Fields that say something for a start, or for a variant that another field switches on."""


def _refuse_variants(fields: Mapping[str, Any]) -> None:
    """Refuses whatever makes LoRA compute something else than `W + scale B A`, or DoRA's rows of it.

    Raises:
        ValueError: A field does.
    """
    for key, name in _VARIANTS.items():
        if fields.get(key):
            raise ValueError(f"it is {name} ('{key}'), which graftkit does not have")
    if fields.get("bias", "none") != "none":
        raise ValueError(f"it trains biases as well ('bias' is {str(fields['bias'])[:40]!r}), which lora does not")
    start = fields.get("init_lora_weights", True)
    if start not in _STARTS or (isinstance(start, int) and not isinstance(start, bool)):
        raise ValueError(
            f"its 'init_lora_weights' is {str(start)[:40]!r}, which changes the weights that it belongs to: save it "
            "with PEFT's path_initial_model_for_weight_conversion, as an ordinary LoRA"
        )
    known = {"peft_type", "bias", "init_lora_weights", *_OF_PEFT, *_OF_STARTS}
    other = sorted(key for key, value in fields.items() if value and key not in known)
    if other:
        raise ValueError(f"it has the option '{other[0][:60]}', which lora does not know")


Pattern = Annotated[str, AfterValidator(_compiles)]
"""A regular expression for the end of a layer's path, from a dot on, as PEFT reads it."""


class LoraConfig(ProviderConfig):
    """How large a low-rank update is, and how it is scaled."""

    rank: int = Field(default=16, ge=1, le=4096, description="the rank of the update")
    alpha: float = Field(default=32.0, ge=1e-6, le=1e6, description="the update is scaled by alpha / rank")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="share of a layer's inputs to the update left out")
    rslora: bool = Field(default=False, description="scale by alpha / sqrt(rank) instead, as rsLoRA does")
    dora: bool = Field(
        default=False,
        description="learn each output's magnitude apart from its direction, as DoRA does; a step takes longer",
    )
    init: Start = Field(
        default="kaiming",
        description="what the update starts as: kaiming, gaussian or orthogonal of nothing; pissa or olora of the "
        "weight's own principal part; qpissa likewise, the rest of the weight being stored by the quantizer; eva of "
        "the principal components of the layer's inputs on training tokens, ranks being shared out among the layers",
    )
    eva_rho: float = Field(
        default=2.0, ge=1, le=64, description="with init: eva, a layer's largest rank is this times its own; 1 keeps it"
    )
    eva_tokens: int = Field(
        default=4096, ge=2, le=1_000_000_000, description="with init: eva, how many training tokens are looked at"
    )
    rank_pattern: dict[Pattern, Annotated[int, Field(ge=1, le=4096)]] = Field(
        default={},
        description="other ranks: a regular expression for the end of a layer's path -> rank; the first holds",
    )
    alpha_pattern: dict[Pattern, Annotated[float, Field(ge=1e-6, le=1e6)]] = Field(
        default={}, description="other alphas, likewise"
    )
    lora_plus_ratio: float = Field(
        default=1.0, ge=0.001, le=1000, description="the rate of B is that of A times this, as in LoRA+"
    )

    @model_validator(mode="after")
    def _halves(self) -> Self:
        odd = next((rank for rank in (self.rank, *self.rank_pattern.values()) if rank % 2), None)
        if self.init == "orthogonal" and odd:
            raise ValueError(f"init: orthogonal takes an even rank, not {odd}")
        return self

    @model_validator(mode="after")
    def _of_eva(self) -> Self:
        """Refuses what only EVA's start goes by where there is another one."""
        for field in ("eva_rho", "eva_tokens") if self.init != "eva" else ():
            if getattr(self, field) != type(self).model_fields[field].default:
                raise ValueError(f"{field} is of init: eva, and the start is {self.init}")
        return self

    peft_prefix: ClassVar[str] = "lora_"
    free_fields: ClassVar[frozenset[str]] = frozenset(["dropout"])
    layer_kinds: ClassVar[frozenset[LayerKind]] = frozenset(["linear", "conv1d", "experts", "embedding"])

    @classmethod
    def from_peft(cls, fields: Mapping[str, Any]) -> dict[str, Any] | None:
        """Returns the recipe fields of a LoRA of PEFT's, or None where it is another method.

        Raises:
            ValueError: It is a variant of LoRA that computes something else, such as QA-LoRA.
        """
        if fields.get("peft_type") != "LORA":
            return None
        _refuse_variants(fields)
        found = {name: fields[key] for key, name in _OF_PEFT.items() if fields.get(key) is not None}
        return {**_DEFAULTS_OF_PEFT, **found}

    def refusal(self, layer: LayerInfo) -> str | None:
        """Refuses on an embedding what has no such form: DoRA, and starts from its matrix."""
        if layer.kind == "experts" and self.init == "eva":
            return "it is a stack of experts, which has no start of eva"
        if layer.kind != "embedding":
            return None
        if self.dora:
            return "it is an embedding, on which there is no DoRA"
        return f"it is an embedding, which has no start of {self.init}" if self.init in _FROM_WEIGHT else None

    def rank_of(self, layer: LayerInfo) -> int:
        """Returns the rank of a layer's update."""
        pattern = _pattern_of(_named(layer), self.rank_pattern)
        return self.rank if pattern is None else self.rank_pattern[pattern]

    def scale_of(self, layer: LayerInfo) -> float:
        """Returns what a layer's update `B A` is multiplied by."""
        rank = self.rank_of(layer)
        return self._alpha_of(layer) / (sqrt(rank) if self.rslora else rank)

    def alpha_for(self, layer: LayerInfo, rank: int) -> float:
        """Returns the alpha by which a layer's update of another rank is scaled as one of its own rank is."""
        share = rank / self.rank_of(layer)
        return self._alpha_of(layer) * (sqrt(share) if self.rslora else share)

    def _alpha_of(self, layer: LayerInfo) -> float:
        pattern = _pattern_of(_named(layer), self.alpha_pattern)
        return self.alpha if pattern is None else self.alpha_pattern[pattern]

    @property
    def start_is_taken_off(self) -> bool:
        """Whether the start's own product is subtracted, so that the update is nothing at first."""
        return self.init in _TAKEN_OFF

    def idle_patterns(self, paths: Sequence[str]) -> Iterator[tuple[str, str]]:
        """Yields each pattern that holds for no adapted layer."""
        for field in ("rank_pattern", "alpha_pattern"):
            patterns = getattr(self, field)
            holding = {_pattern_of(path, patterns) for path in paths}
            yield from ((field, pattern) for pattern in patterns if pattern not in holding)

    def trainable_parameters(self, layer: LayerInfo) -> int:
        """Returns the size of `A [rank, in]` and `B [out, rank]`, and of DoRA's magnitudes `[out]`."""
        magnitudes = layer.out_features if self.dora else 0
        return self.rank_of(layer) * (layer.in_features + layer.out_features) + magnitudes


class QloraConfig(LoraConfig):
    """LoRA on NF4 weights whose scales are quantized too, unless the recipe names a quantizer."""

    preset: ClassVar[Mapping[str, Any]] = {"quantizer": {"use": "nf4", "double_quant": True}}


class FullConfig(ProviderConfig):
    """Full fine-tuning has no fields."""

    rate_scale: ClassVar[float] = 0.1
    """LoRA's best rates are about ten times those of full fine-tuning (https://thinkingmachines.ai/blog/lora/)."""

    def trainable_parameters(self, layer: LayerInfo) -> int:
        """Returns the size of the weight."""
        return layer.out_features * layer.in_features


class BitFitConfig(ProviderConfig):
    """Training biases has no fields."""

    def refusal(self, layer: LayerInfo) -> str | None:
        """Layers without a bias are left as they are."""
        return None if layer.bias else "it has no bias"

    def trainable_parameters(self, layer: LayerInfo) -> int:
        """Returns the size of the bias."""
        return layer.out_features if layer.bias else 0


def _named(layer: LayerInfo) -> str:
    """Returns the path that patterns are compared with: an expert's is its stack's, which has no number at its end."""
    return layer.path.rpartition(".")[0] if layer.kind == "experts" else layer.path


def _pattern_of(path: str, patterns: Iterable[str]) -> str | None:
    """Returns the first pattern that matches a layer's path, or None."""
    return next((pattern for pattern in patterns if _compiled(pattern).match(path)), None)
