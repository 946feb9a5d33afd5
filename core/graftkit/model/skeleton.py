"""Builds a transformers model without memory for its weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from graftkit.errors import ModelError

__all__ = ["build_skeleton"]

_NOT_FOR_US = ("auto_map", "quantization_config", "transformers_version", "torch_dtype", "dtype")


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


def build_skeleton(config: Mapping[str, Any], where: str) -> nn.Module:
    """Returns the causal language model that a config.json describes, its weights on the meta device.

    Args:
        config: The config.json.
        where: The model's reference, for errors.

    Raises:
        ModelError: transformers does not know the architecture, or refuses the configuration.
    """
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM

    kind = config["model_type"]
    if kind not in CONFIG_MAPPING:
        foreign = ", and a model's own code is never run" if config.get("auto_map") else ""
        raise ModelError(
            f"transformers has no architecture '{kind}'{foreign}",
            where=where,
            hint="A newer transformers may have it: pip install -U transformers.",
        )
    try:
        own = {key: value for key, value in config.items() if key not in _NOT_FOR_US}
        built = CONFIG_MAPPING[kind](**own)
        with _EmptyOnMeta():
            model: nn.Module = AutoModelForCausalLM.from_config(built, trust_remote_code=False, dtype=torch.float32)
    except Exception as error:
        raise ModelError(
            f"transformers can't build this {kind} model: {' '.join(str(error).split())[:500]}", where=where
        ) from error
    return model.eval()
