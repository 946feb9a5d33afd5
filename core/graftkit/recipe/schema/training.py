"""How the adapter is trained, and what a step keeps in memory."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    model_validator,
)

from graftkit.interfaces.config import MOST_COUNTED, StrictModel

__all__ = [
    "DecayType",
    "MemorySection",
    "Optimizer",
    "Schedule",
    "TrainingSection",
]

Schedule = Literal["cosine", "linear", "constant", "wsd", "cosine_with_restarts", "polynomial", "inverse_sqrt"]
"""How the learning rate falls after the warm-up."""

DecayType = Literal["linear", "cosine", "1-sqrt"]
"""Along which curve it falls with `wsd`."""

Optimizer = Literal["adamw", "adamw-8bit", "sgd", "lion", "adafactor", "muon"]

_DEVICES = r"auto|cpu|mps|(cuda|xpu)(:\d{1,3})?"


def _whole_if_it_is(value: float) -> float:
    """Returns 3.0 as 3, as people write it, in manifests and messages, too."""
    return int(value) if value == int(value) else value


def _device(value: Any) -> Any:
    if not isinstance(value, str) or not re.fullmatch(_DEVICES, value, re.ASCII):
        raise ValueError("training.device: auto, cpu, cuda, cuda:N, mps, xpu or xpu:N")
    return value


_BETA2_OF_LION = 0.99
"""As its paper has it."""


def _chosen(schema: dict[str, Any]) -> None:
    """Takes the default out of a key's JSON Schema: when left out, the plan chooses the value."""
    del schema["default"]


class TrainingSection(StrictModel):
    """How the adapter is trained.

    The plan of a run chooses what is left out of `tokens_per_step`, `learning_rate`, and `epochs` and `steps`; see
    `graftkit.flow.records.training_numbers`. The defaults here are of a section that no run uses.
    """

    epochs: Annotated[float, Field(gt=0, le=10_000), AfterValidator(_whole_if_it_is)] | None = Field(
        default=None,
        description="how often every record is seen, such as 2 or 0.5; 3 when left out, or as often as 30 steps take",
    )
    steps: int | None = Field(
        default=None, ge=1, le=1_000_000, description="how many optimizer steps, instead of epochs"
    )
    tokens_per_step: int = Field(
        default=4096,
        ge=8,
        le=MOST_COUNTED,
        json_schema_extra=_chosen,
        description="tokens of one optimizer step at most; those of about 8 examples when left out",
    )
    microbatch_tokens: Annotated[int, Field(ge=8, le=MOST_COUNTED)] | Literal["auto"] = Field(
        default=1024,
        description="tokens of one forward pass at most; less takes less memory. auto: from 1024 to 8192, and no less "
        "than the longest example, as many as the memory has room for that is free when the run starts",
    )
    learning_rate: float = Field(
        default=2e-4,
        ge=1e-12,
        lt=1,
        json_schema_extra=_chosen,
        description="the highest rate; when left out 1e-3 for models up to 0.2 billion parameters, 5e-4 up to 2 "
        "billion, 2e-4 for larger ones; a tenth of that for adapter: full, and where preferences or rewards are "
        "learnt, and a fifth with lion",
    )
    schedule: Schedule = Field(
        default="cosine",
        description="how the rate falls after the warm-up. wsd: it stays, and falls at the end; "
        "cosine_with_restarts: along several cosines, each from the highest rate; polynomial: by a power of the "
        "steps that are left; inverse_sqrt: by the square root of the steps since the warm-up",
    )
    decay: float = Field(
        default=0.1, gt=0, le=1, description="the share of steps, the last ones, in which the rate falls with wsd"
    )
    decay_type: DecayType = Field(default="linear", description="along which curve the rate falls with wsd")
    cycles: int = Field(
        default=2, ge=1, le=1_000_000, description="how many cosines follow one another with cosine_with_restarts"
    )
    power: float = Field(
        default=1.0, gt=0, le=100, description="the power with polynomial: 1 is a straight line, 2 falls faster first"
    )
    timescale: int | None = Field(
        default=None,
        ge=1,
        le=MOST_COUNTED,
        description="with inverse_sqrt after how many steps the rate is 0.71 of the highest, after three times as many "
        "a half; the warm-up's steps when left out, or 10000 without one",
    )
    min_lr_ratio: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="what the rate falls to, as a share of the highest rate; 0.1 for a tenth of it",
    )
    warmup: float = Field(default=0.05, ge=0, le=1, description="the share of steps in which the rate rises")
    warmup_steps: int | None = Field(
        default=None, ge=0, le=1_000_000, description="in how many steps the rate rises, instead of warmup's share"
    )
    optimizer: Optimizer = Field(
        default="adamw",
        description="adamw; adamw-8bit, whose moments take a quarter of the memory; sgd, with a momentum of 0.9; lion, "
        "which keeps one moment and takes a lower rate; adafactor, which keeps a number a row and a column; muon for "
        "the matrices of hidden layers, and adamw for all else",
    )
    beta1: float = Field(
        default=0.9, ge=0, lt=1, description="the decay of AdamW's mean of the gradient, or of that which lion steps by"
    )
    beta2: float = Field(
        default=0.999,
        ge=0,
        lt=1,
        description="the decay of AdamW's mean of its square; with lion that of the mean it keeps, 0.99 when left out",
    )
    epsilon: float = Field(
        default=1e-8, ge=1e-30, le=1, description="what AdamW adds to the root of the second moment before it divides"
    )
    weight_decay: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="the optimizer's weight decay, decoupled but for sgd's, of all that is trained, biases too, but "
        "new embedding rows",
    )
    max_grad_norm: float = Field(default=1.0, ge=1e-12, le=1e12, description="the gradient is clipped to this norm")
    neftune_noise_alpha: float | None = Field(
        default=None,
        gt=0,
        le=1000,
        description="noise on the input embeddings in training (NEFTune): uniform, up to this over the root of a "
        "sequence's tokens times the embedding's width; its paper takes 5 to 15",
    )
    divergence_factor: float | None = Field(
        default=2.0,
        gt=1,
        le=1e12,
        description="the run stops where the mean loss of the last divergence_window steps is more than this times the "
        "lowest such mean so far, and higher than the first; null: it never does",
    )
    divergence_window: int = Field(default=10, ge=1, le=1_000_000, description="over how many steps that mean is taken")
    seed: int = Field(default=0, ge=0, lt=2**63, description="one seed, one result")
    checkpoint_every: int | None = Field(
        default=None,
        ge=1,
        le=MOST_COUNTED,
        description="steps between checkpoints; a run that is stopped leaves one in any case",
    )
    keep_checkpoints: int = Field(
        default=2,
        ge=1,
        le=MOST_COUNTED,
        description="how many checkpoints are kept, the newest ones, besides that of the best step",
    )
    device: Annotated[str, BeforeValidator(_device)] = Field(
        default="auto",
        json_schema_extra={"pattern": f"^({_DEVICES})$"},
        description="auto, cpu, cuda, cuda:N, mps, xpu or xpu:N",
    )
    dtype: Literal["float32", "bfloat16", "auto"] = Field(
        default="float32",
        description="the type of the products; what is trained is kept and updated in float32. auto: bfloat16 where "
        "the device multiplies it faster, which a CPU is timed for",
    )
    parallel: Literal["auto", "data", "shard", "hybrid"] = Field(
        default="auto",
        description="how several processes hold the frozen weights. data: each has all of them; shard: each keeps a "
        "part, and the rest of one block at a time; hybrid: so on each machine. auto: data where the weights fit the "
        "device, hybrid where they fit all devices of a machine together, else shard",
    )

    @model_validator(mode="before")
    @classmethod
    def _of_lion(cls, said: Any) -> Any:
        lion = isinstance(said, dict) and said.get("optimizer") == "lion"
        return {"beta2": _BETA2_OF_LION, **said} if lion else said

    @property
    def pass_tokens(self) -> int:
        """The tokens of one forward pass at most, once it is settled what `auto` is."""
        assert self.microbatch_tokens != "auto"
        return self.microbatch_tokens

    @model_validator(mode="after")
    def _one_length(self) -> TrainingSection:
        if self.epochs is not None and self.steps is not None:
            raise ValueError("say either epochs or steps, not both")
        return self


class MemorySection(StrictModel):
    """What a training step keeps in memory."""

    checkpoint: Literal["none", "blocks", "auto"] = Field(
        default="none",
        description="activation checkpointing. blocks: of each repeated block only its inputs are kept, and it is "
        "computed again for its gradient: the same result, in up to a third more time. auto: where the largest pass "
        "does not fit otherwise into the memory that is free when the run starts",
    )
    offload: bool = Field(
        default=False,
        description="have the inputs of checkpointed blocks wait in the host's memory instead of the GPU's until their "
        "block is computed again: the same result, and each is copied there and back",
    )

    @model_validator(mode="after")
    def _of_blocks(self) -> MemorySection:
        if self.offload and self.checkpoint == "none":
            raise ValueError("memory.offload: what waits are the inputs of checkpointed blocks; say checkpoint: blocks")
        return self
