"""The two matrices of LoRA on each layer, for formats that hold those and nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from math import sqrt
from typing import Any

import torch

from graftkit.errors import ExportError
from graftkit.interfaces.exporter import PlannedModel, TrainedModel

__all__ = ["check_lora_alone", "lora_fields", "lora_matrices", "lora_scale"]


def check_lora_alone(planned: PlannedModel, form: str, instead: str) -> None:
    """Makes sure that the two matrices of LoRA on layers are all that is going to be trained.

    Args:
        planned: What is going to be trained.
        form: The format, as in "a GGUF adapter", for errors.
        instead: What to do else, a sentence.

    Raises:
        ExportError: Something besides is.
    """
    if planned.change is not None:
        raise ExportError(f"rows of the embeddings have no form in {form}", hint=instead)
    if planned.saved_modules:
        what = f"'{planned.saved_modules[0]}', which is whole beside the adapter, has no form in {form}"
        raise ExportError(what, hint=instead)
    lora_fields(planned.adapter.peft_config(), form, instead)


def lora_fields(fields: Mapping[str, Any] | None, form: str, instead: str) -> dict[str, Any]:
    """Returns the fields of PEFT's `adapter_config.json` of a method that is LoRA alone.

    Args:
        fields: What `Adapter.peft_config` gave.
        form: As for `check_lora_alone`.
        instead: Likewise.

    Raises:
        ExportError: The method is not LoRA, or trains something besides its two matrices.
    """
    found = dict(fields or {})
    method = str(getattr(found.get("peft_type"), "value", found.get("peft_type")))
    if method != "LORA":
        named = "this adapter" if fields is None else f"PEFT's method {method}"
        raise ExportError(f"{named} has no form in {form}, which is LoRA", hint=instead)
    besides = {
        "DoRA's magnitudes": found.get("use_dora"),
        "biases": found.get("bias", "none") != "none" or found.get("lora_bias"),
        "modules_to_save": found.get("modules_to_save"),
        "trained rows of embeddings": found.get("trainable_token_indices"),
        "aLoRA's invocation tokens": found.get("alora_invocation_tokens"),
    }
    for what, there in besides.items():
        if there:
            raise ExportError(f"{what} have no form in {form}", hint=instead)
    return found


def lora_scale(fields: Mapping[str, Any], layer: str, rank: int) -> float:
    """Returns what PEFT multiplies a layer's update `B A` with: its alpha over its rank, or the rank's root for rsLoRA.

    Args:
        fields: The method's fields of PEFT's `adapter_config.json`.
        layer: The layer's dotted path.
        rank: Its rank.

    Example:
        >>> lora_scale({"lora_alpha": 8, "use_rslora": True}, "layers.0.q_proj", 16)
        2.0
    """
    alphas = fields.get("alpha_pattern") or {}
    pattern = next((pattern for pattern in alphas if re.match(rf"(.*\.)?({pattern})$", layer)), None)
    alpha = fields["lora_alpha"] if pattern is None else alphas[pattern]
    return float(alpha / (sqrt(rank) if fields.get("use_rslora") else rank))


def lora_matrices(trained: TrainedModel, instead: str) -> Iterator[tuple[str, torch.Tensor, torch.Tensor]]:
    """Yields each adapted layer's path and its two matrices in PEFT's order, float32, without their scale.

    Of a layer they are `A [rank, in]` and `B [out, rank]`; of an embedding the same of its transpose.

    Args:
        trained: What was trained.
        instead: What to do else, for errors.

    Raises:
        ExportError: On a layer something else was trained.
    """
    for layer, adapted in trained.adapted.items():
        tensors, embeds = dict(trained.adapter.peft_tensors(adapted)), adapted.info.kind == "embedding"
        keys = [f"lora_embedding_{part}" if embeds else f"lora_{part}.weight" for part in "AB"]
        if tensors.keys() != set(keys) or adapted.bias_delta() is not None:
            raise ExportError(
                f"on '{layer}' more, or something else, was trained than the two matrices of LoRA", hint=instead
            )
        a, b = (tensors[key].detach().float().cpu() for key in keys)
        yield layer, a, b
