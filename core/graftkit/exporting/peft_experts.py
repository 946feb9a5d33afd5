"""Where PEFT keeps the LoRA of a mixture's experts: found out from peft itself, on a model without weights.

PEFT wraps the module that holds a stack, once for each stack that is adapted (`target_parameters`), so that the names
of the tensors depend on the order in which the architecture registers its parameters.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from graftkit.interfaces.architecture import model_class
from graftkit.interfaces.peft_experts import ExpertLayout
from graftkit.interfaces.quiet import importing_bitsandbytes

__all__ = ["PeftExperts", "peft_experts", "refused_experts", "target_parameters"]

_NOT_BUILT = ("auto_map", "quantization_config")
"""Keys of a config.json that name code, or how a file stores weights."""


@dataclass(frozen=True, slots=True)
class PeftExperts:
    """What PEFT is told of adapted experts.

    Attributes:
        fields: The method's fields of adapter_config.json, `target_parameters` among them, and without dropout: PEFT
            adds the update to the stack before it is multiplied, where no input could be dropped. An export computes
            the same without, since dropout is for training alone.
        layouts: Where the tensors of each stack lie, by the stack's path.
    """

    fields: Mapping[str, Any]
    layouts: Mapping[str, ExpertLayout]


def refused_experts(config: Mapping[str, Any], fields: Mapping[str, Any], stacks: Sequence[str]) -> str | None:
    """Says why PEFT can't adapt these stacks, or None.

    Args:
        config: The model's config.json.
        fields: The method's fields of adapter_config.json.
        stacks: The dotted paths of the adapted stacks.
    """
    names = ", ".join(sorted({path.rpartition(".")[2] for path in stacks}))
    try:
        peft_experts(config, fields, dict.fromkeys(stacks, False))
    except ImportError:
        return f"experts are adapted ({names}), which takes peft to write: pip install peft, or export merged"
    except Exception as error:  # whatever peft, or transformers, has against them
        reason = " ".join(str(error).split())[:300]
        return f"experts are adapted ({names}), which PEFT can't load here: {reason}: export merged"
    return None


def peft_experts(config: Mapping[str, Any], fields: Mapping[str, Any], stacks: Mapping[str, bool]) -> PeftExperts:
    """Asks peft where it keeps the LoRA of stacks of experts.

    Args:
        config: The model's config.json.
        fields: The method's fields of adapter_config.json.
        stacks: The adapted stacks by their dotted paths, and whether each holds `[experts, in, out]`.

    Raises:
        ImportError: peft is not installed.
        ValueError: PEFT refuses the method for experts, or finds other parameters than these.
    """
    with importing_bitsandbytes():
        from peft import LoraConfig, inject_adapter_in_model
        from peft.tuners.lora.layer import ParamWrapper

    if fields.get("peft_type") != "LORA":
        raise ValueError(f"it adapts experts by LoRA alone, not by {fields.get('peft_type')}")
    model = _without_weights(config)
    named = target_parameters(stacks, [name for name, _ in model.named_parameters()])
    told = {**fields, "lora_dropout": 0.0, "target_parameters": named}
    own = {key: value for key, value in told.items() if key != "peft_type"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of patterns that are other layers' alone
        inject_adapter_in_model(LoraConfig(**own, target_modules=[]), model, low_cpu_mem_usage=True)
    found = {}
    for path, module in model.named_modules():
        if isinstance(module, ParamWrapper):
            holder = path.replace(".base_layer", "")
            # It takes a stack for [experts, out, in] where it exchanged the two sizes, for [experts, in, out] else.
            in_first = not getattr(module, "_did_swap_in_out_features", False)
            stack = f"{holder}.{module.parameter_name}"
            swapped = in_first != stacks.get(stack, False)
            found[stack] = ExpertLayout(f"base_model.model.{path}", module.num_experts, swapped)
    if found.keys() != stacks.keys():
        raise ValueError(f"it finds other stacks of experts, such as {sorted(found.keys() ^ stacks.keys())[0]}")
    return PeftExperts(told, found)


def target_parameters(stacks: Collection[str], parameters: Collection[str]) -> list[str]:
    """Returns the shortest list that means just these parameters to PEFT, which compares the ends of paths.

    Example:
        >>> target_parameters(["l.0.experts.up", "l.1.experts.up"], ["l.0.experts.up", "l.1.experts.up", "l.0.up"])
        ['experts.up']
    """
    ends = {".".join(stack.split(".")[-2:]) for stack in stacks}
    meant = {name for name in parameters if any(name.endswith(f".{end}") for end in ends)}
    return sorted(ends if meant == set(stacks) else stacks)


def _without_weights(config: Mapping[str, Any]) -> Any:
    import torch
    from transformers import AutoConfig

    built = AutoConfig.for_model(**{key: deepcopy(value) for key, value in config.items() if key not in _NOT_BUILT})
    found = model_class(built)
    if found is None:
        raise ValueError(f"transformers has no causal language model of type '{built.model_type}'")
    with torch.device("meta"):
        return found(built)
