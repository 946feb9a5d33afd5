"""Builds a transformers model without memory for its weights."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from graftkit.errors import ModelError
from graftkit.interfaces.architecture import model_class

__all__ = ["build_config", "build_skeleton"]

_NOT_FOR_US = ("auto_map", "quantization_config", "transformers_version", "torch_dtype", "dtype")
_NOWHERE = ("auto_map", "attn_implementation", "experts_implementation")
"""Keys that name code, those of nested configurations among them: a repository of compiled kernels is a value, too."""


class _EmptyOnMeta(TorchFunctionMode):
    """Makes `torch.empty`, which layers allocate their weights with, on the meta device.

    Everything else is computed as usual, so that buffers which hold constants (rotary frequencies) have them.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.empty:
            kwargs["device"] = "meta"
        return func(*args, **kwargs)


def build_config(config: Mapping[str, Any]) -> Any:
    """Returns transformers' own configuration of a config.json, without what names code, storage or versions.

    transformers changes nested settings in place, and what the caller has is written into exports: it gets a copy.

    Raises:
        Exception: transformers refuses it.
    """
    from transformers import CONFIG_MAPPING

    own = {key: deepcopy(value) for key, value in config.items() if key not in _NOT_FOR_US}
    return CONFIG_MAPPING[config["model_type"]](**_without_code(own))


def _without_code(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_code(inner) for key, inner in value.items() if str(key).strip("_") not in _NOWHERE}
    return [_without_code(inner) for inner in value] if isinstance(value, list) else value


def build_skeleton(config: Mapping[str, Any], where: str, dtype: torch.dtype = torch.float32) -> nn.Module:
    """Returns the causal language model that a config.json describes, its weights on the meta device.

    Of a configuration of several models that is the whole of them, such as `Gemma3ForConditionalGeneration`.

    Args:
        config: The config.json.
        where: The model's reference, for errors.
        dtype: What the model computes in; constants that it makes itself are of that type where transformers' are.

    Raises:
        ModelError: transformers does not know the architecture, or refuses the configuration, or the architecture
            does not write one token after the other.
    """
    from transformers import CONFIG_MAPPING

    kind = config["model_type"]
    if kind not in CONFIG_MAPPING:
        foreign = ", and a model's own code is never run" if config.get("auto_map") else ""
        raise ModelError(
            f"transformers has no architecture '{kind}'{foreign}",
            where=where,
            hint="A newer transformers may have it: pip install -U transformers.",
        )
    try:
        built = build_config(config)
        model_class = _class_of(built, where)
        attention = "sdpa" if model_class._supports_sdpa else "eager"
        with _EmptyOnMeta():
            model: nn.Module = model_class._from_config(built, dtype=dtype, attn_implementation=attention)
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(
            f"transformers can't build this {kind} model: {' '.join(str(error).split())[:500]}", where=where
        ) from error
    return model.eval()


def _class_of(config: Any, where: str) -> Any:
    """Returns the class of a causal language model, or of the multimodal model around it.

    Raises:
        ModelError: The architecture has none.
    """
    found = model_class(config)
    if found is None:
        raise ModelError(
            f"'{config.model_type}' is no causal language model: it does not write one token after the other from the "
            "text before",
            where=where,
        )
    return found
