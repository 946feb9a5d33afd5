"""Which adapted layers a GGUF adapter has a form of, what they are called there, and how their rows stand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

import torch
from graftkit import PlannedModel
from graftkit.errors import ExportError, ModelError
from graftkit.exporting.lora_matrices import check_lora_alone, lora_fields, lora_scale
from graftkit.interfaces.architecture import model_class

from graftkit_gguf.architectures import Architecture, complete_config
from graftkit_gguf.families import architecture_of

__all__ = ["INSTEAD", "TOKEN_EMBEDDING", "check_planned", "factor_of_b", "file_alpha", "stored_layer"]

TOKEN_EMBEDDING = "token_embd.weight"
"""The embedding's matrix, whose update llama.cpp looks up by token; see `graftkit_gguf.adapter_file`."""

INSTEAD = "Export gguf, the whole model with the adapter merged in."
_FORM = "a GGUF adapter"
_NOT_BUILT = ("auto_map", "quantization_config", "transformers_version", "torch_dtype", "dtype", "architectures")


def check_planned(planned: PlannedModel) -> None:
    """Makes sure that a GGUF adapter has a form of all that is going to be trained.

    Raises:
        ExportError: It has none of the method, of new rows of the embeddings, or of a layer.
        ModelError: The architecture is none of those that are written as GGUF.
    """
    architecture = architecture_of(planned.config)
    architecture.metadata(complete_config(planned.config))
    check_lora_alone(planned, _FORM, INSTEAD)
    file_alpha(planned.adapter.peft_config())
    if planned.expert_targets:
        raise ExportError(
            f"the experts '{planned.expert_targets[0]}' are one tensor in a GGUF file, whose adapter would be another",
            hint=INSTEAD,
        )
    names: dict[str, str] = {}
    for layer, rows in _rows(planned.config, planned.targets).items():
        name, _ = stored_layer(architecture, layer, rows, planned.config)
        if name in ("output.weight", TOKEN_EMBEDDING) and architecture.ties_in_file(complete_config(planned.config)):
            own = "embedding" if name == "output.weight" else "output layer"
            what = f"'{layer}' is tied to the {own}, and no matrix of its own in the base model's GGUF file"
            raise ExportError(what, hint=INSTEAD)
        if name in names:
            raise ExportError(f"the layers '{names[name]}' and '{layer}' are one tensor in a GGUF file", hint=INSTEAD)
        names[name] = layer


def _rows(config: Mapping[str, Any], layers: Sequence[str]) -> dict[str, int]:
    """Returns how many rows the weight of each layer has, from the architecture without its weights."""
    from transformers import AutoConfig

    built = AutoConfig.for_model(**{key: deepcopy(value) for key, value in config.items() if key not in _NOT_BUILT})
    with torch.device("meta"):
        skeleton: Any = model_class(built)._from_config(built)  # type: ignore[union-attr]
    return {layer: len(skeleton.get_submodule(layer).weight) for layer in layers}


def stored_layer(
    architecture: Architecture, layer: str, rows: int, config: Mapping[str, Any]
) -> tuple[str, torch.Tensor]:
    """Returns the name of a layer's weight in the file, and which of its rows stands at each place, `[rows]`.

    The architecture is asked to store a matrix of row numbers, so that what it does to a weight beyond giving its rows
    another order is found out.

    Args:
        architecture: llama.cpp's.
        layer: The layer's dotted path in transformers.
        rows: How many rows its weight has.
        config: The keys of the model's `config.json`.

    Raises:
        ExportError: The file has no weight of this layer alone, or one that is not its rows.
    """
    numbers = torch.arange(rows, dtype=torch.float32)[:, None]
    try:
        name, stored = architecture.tensor(f"{layer}.weight", numbers, config)
    except ModelError as error:
        raise ExportError(f"the layer '{layer}' can't be adapted: {error.message}", hint=INSTEAD) from None
    except RuntimeError:  # it takes the matrix apart in a way that its rows alone don't allow
        name, stored = "", numbers
    by_rows = stored.shape == numbers.shape and torch.equal(stored.sort(0).values, numbers)
    if not (name.startswith(("blk.", "output.")) or name == TOKEN_EMBEDDING) or not by_rows:
        raise ExportError(f"the layer '{layer}' is no matrix of its own in a GGUF file", hint=INSTEAD)
    return name, stored[:, 0].long()


def file_alpha(fields: Mapping[str, Any] | None) -> float:
    """Returns the one alpha that a GGUF adapter has.

    Args:
        fields: The method's fields of PEFT's `adapter_config.json`, or None.

    Raises:
        ExportError: The method is not LoRA, or trains something besides its two matrices.
    """
    alpha = float(lora_fields(fields, _FORM, INSTEAD)["lora_alpha"])
    if not alpha > 0:
        raise ExportError(f"an alpha of {alpha:g} has no form in {_FORM}: llama.cpp scales by one above zero")
    return alpha


def factor_of_b(fields: Mapping[str, Any], layer: str, rank: int) -> float:
    """Returns what a layer's `lora_B` is multiplied by, so that the file's alpha over its rank scales it rightly.

    llama.cpp scales every layer by the file's alpha over the layer's rank (`llama_adapter_lora_weight::get_scale`);
    PEFT by its own scale (`lora_scale`). The quotient of the two goes into `lora_B`.

    Args:
        fields: The method's fields of PEFT's `adapter_config.json`.
        layer: The layer's dotted path.
        rank: Its rank.

    Example:
        >>> factor_of_b({"lora_alpha": 8, "use_rslora": True}, "layers.0.q_proj", 16)
        4.0
    """
    return lora_scale(fields, layer, rank) * rank / float(fields["lora_alpha"])
