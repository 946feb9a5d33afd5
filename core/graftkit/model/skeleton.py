"""Builds a transformers model without memory for its weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from math import prod
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from graftkit.errors import ModelError
from graftkit.interfaces.architecture import head_of, model_class
from graftkit.interfaces.block_memory import keep_exact
from graftkit.interfaces.model_source import BaseModelFiles

__all__ = ["EmptyOnMeta", "build_config", "build_skeleton", "leave_out_pooler"]

_NOT_FOR_US = ("auto_map", "quantization_config", "transformers_version", "torch_dtype", "dtype")
_NOWHERE = ("auto_map", "attn_implementation", "experts_implementation")
"""Keys that name code, those of nested configurations among them: a repository of compiled kernels is a value, too."""
_OF_A_RESULT = ("return_dict", "output_hidden_states", "output_attentions")
"""Keys of the form in which a pass's results are returned, which whoever calls the model says."""


_LEFT_OUT = frozenset([*_NOWHERE, *_OF_A_RESULT])

_MOST_ELEMENTS = 1 << 26
"""The most elements of a constant that a model makes itself: a causal mask of 8,192 tokens."""
_SPARE_TENSORS = 10_000
_SHAPED = frozenset([torch.zeros, torch.ones, torch.full, torch.rand, torch.randn, torch.eye])
_RANGES = frozenset([torch.arange, torch.linspace])
_FILLS = frozenset(
    {
        *("normal_", "uniform_", "trunc_normal_", "zeros_", "ones_", "constant_", "zero_", "fill_"),
        *("kaiming_normal_", "kaiming_uniform_", "xavier_normal_", "xavier_uniform_"),
    }
)
"""Names of torch's functions that fill a weight, for which transformers has its own: on the meta device they compute
nothing, and take half a millisecond."""


class EmptyOnMeta(TorchFunctionMode):
    """Makes `torch.empty`, which layers allocate their weights with, on the meta device.

    Everything else is computed as usual, so that buffers which hold constants (rotary frequencies) have them; but not
    what would be far larger than a model's constants are.

    Args:
        tensors: How many tensors the weights have; None for no limit.
    """

    def __init__(self, tensors: int | None = None) -> None:
        super().__init__()
        self._left = None if tensors is None else 16 * tensors + _SPARE_TENSORS

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.empty:
            self._count()
            kwargs["device"] = "meta"
        elif getattr(func, "__name__", "") in _FILLS and (filled := args[0] if args else kwargs["tensor"]).is_meta:
            return filled
        elif _elements(func, args, kwargs) > _MOST_ELEMENTS:
            raise ModelError(f"the configuration asks for a constant of over {_MOST_ELEMENTS:,} numbers")
        return func(*args, **kwargs)

    def _count(self) -> None:
        if self._left is not None:
            self._left -= 1
            if self._left < 0:
                raise ModelError("the configuration describes far more tensors than the weights are")


def _elements(func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> int:
    """Returns how many elements a result has at most; 0 where it is made on the meta device."""
    if func in _SHAPED:
        size = kwargs.get("size", args[0] if args and isinstance(args[0], Sequence) else args)
        return prod(number for number in size if isinstance(number, int))
    if func in _RANGES:
        return max((abs(int(arg)) for arg in (*args, *kwargs.values()) if isinstance(arg, int | float)), default=0)
    tensors = [arg for arg in args if isinstance(arg, torch.Tensor)]
    if len(tensors) < 2 or prod(max(1, tensor.numel()) for tensor in tensors) <= _MOST_ELEMENTS:
        return 0
    try:
        found = func(*(arg.to("meta") if isinstance(arg, torch.Tensor) else arg for arg in args), **kwargs)
    except Exception:  # on the meta device alone, or there too
        return 0
    return found.numel() if isinstance(found, torch.Tensor) else 0


def build_config(config: Mapping[str, Any]) -> Any:
    """Returns transformers' own configuration of a config.json, without keys of code, storage, versions and results.

    transformers changes nested settings in place, and what the caller has is written into exports: it gets a copy.

    Raises:
        Exception: transformers refuses it.
    """
    from transformers import CONFIG_MAPPING

    own = {key: deepcopy(value) for key, value in config.items() if key not in _NOT_FOR_US}
    return CONFIG_MAPPING[config["model_type"]](**_without_code(own))


def _without_code(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_code(inner) for key, inner in value.items() if str(key).strip("_") not in _LEFT_OUT}
    return [_without_code(inner) for inner in value] if isinstance(value, list) else value


def leave_out_pooler(model: Any, files: BaseModelFiles) -> None:
    """Takes a pooler that the files lack from a model which gives vectors: none of them is made by it.

    Args:
        model: The model.
        files: Its files.
    """
    if head_of(files.config) != "embedding" or any("pooler." in name for name in files.tensors):
        return
    if isinstance(getattr(model, "pooler", None), nn.Module):
        model.pooler = None


def build_skeleton(
    config: Mapping[str, Any], where: str, dtype: torch.dtype = torch.float32, tensors: int | None = None
) -> nn.Module:
    """Returns the causal language model that a config.json describes, its weights on the meta device.

    Of a configuration of several models that is the whole of them, such as `Gemma3ForConditionalGeneration`.

    Args:
        config: The config.json.
        where: The model's reference, for errors.
        dtype: What the model computes in; constants that it makes itself are of that type where transformers' are,
            computed in float32 and rounded as transformers loads them. Their values before that are kept
            (`exact_constants`).
        tensors: How many tensors the weights have; None where that is not known.

    Raises:
        ModelError: transformers does not know the architecture, or refuses the configuration, or the architecture
            does not write one token after the other, or it describes far more tensors than there are.
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
        with EmptyOnMeta(tensors):
            model: nn.Module = model_class._from_config(built, dtype=dtype, attn_implementation=attention)
            if dtype in (torch.bfloat16, torch.float16) and _constants(model):
                again = build_config(config)
                _round_constants(model, model_class._from_config(again, dtype=torch.float32))
    except ModelError as error:
        raise ModelError(error.message, where=where, hint=error.hint) from None
    except Exception as error:
        raise ModelError(
            f"transformers can't build this {kind} model: {' '.join(str(error).split())[:500]}", where=where
        ) from error
    return model.eval()


def _constants(model: nn.Module) -> list[tuple[nn.Module, str, str]]:
    """Returns the buffers with numbers that no file holds: each one's module, that one's path, and its own name."""
    return [
        (module, path, name)
        for path, module in model.named_modules()
        for name, buffer in module.named_buffers(recurse=False)
        if name in module._non_persistent_buffers_set and buffer.is_floating_point() and not buffer.is_meta
    ]


def _round_constants(model: nn.Module, exact: nn.Module) -> None:
    """Gives a model in half precision the constants of one in float32, rounded to the types that its own have.

    An architecture's code that computes them in half precision gives others, such as GPT-J's rotary frequencies.
    """
    for module, path, name in _constants(model):
        constant = exact.get_submodule(path).get_buffer(name)
        rounded = constant.to(module.get_buffer(name).dtype)
        module._buffers[name] = rounded
        if rounded.dtype != constant.dtype:
            keep_exact(module, name, constant)


def _class_of(config: Any, where: str) -> Any:
    """Returns the class of a causal language model, of the multimodal model around it, or of one with another head.

    Raises:
        ModelError: The architecture has none.
    """
    found = model_class(config)
    if found is None and head_of({"architectures": config.architectures}) != "language":
        has_both = config.is_encoder_decoder
        raise ModelError(
            f"{'it is an encoder with a decoder' if has_both else f'transformers has no {config.architectures[0]}'}: "
            f"a '{config.model_type}' model can't be given such a head",
            where=where,
            hint="Models of other architectures can be given one: docs/objectives.md names some.",
        )
    if found is None:
        raise ModelError(
            f"'{config.model_type}' is no causal language model: it does not write one token after the other from the "
            "text before",
            where=where,
        )
    return found
