"""Which format a folder's weights are quantized in, and the matrices that they make."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from graftkit.errors import ModelError
from graftkit.interfaces.model_source import INTEGERS

from graftkit_models.quantized.awq import awq_matrices
from graftkit_models.quantized.bitsandbytes import bitsandbytes_matrices
from graftkit_models.quantized.compressed_tensors import compressed_tensors_matrices
from graftkit_models.quantized.fp8 import fp8_matrices
from graftkit_models.quantized.gptq import gptq_matrices
from graftkit_models.quantized.matrix import FileTensors, QuantizedMatrix, Settings
from graftkit_models.quantized.mxfp4 import mxfp4_matrices

__all__ = ["dense_config", "quantized_matrices"]

_FORMATS: Mapping[str, Callable[[Settings, FileTensors], Iterator[tuple[str, QuantizedMatrix]]]] = {
    "awq": awq_matrices,
    "bitsandbytes": bitsandbytes_matrices,
    "compressed-tensors": compressed_tensors_matrices,
    "fp8": fp8_matrices,
    "gptq": gptq_matrices,
    "mxfp4": mxfp4_matrices,
}
"""The formats by the name that transformers gives them as `quant_method`."""

_KEYS = ("quantization_config", "compression_config", "quantization")
"""Keys of a configuration under which programs say how weights are stored; the last is MLX's."""
_FLOATS = {"F64", "F32", "F16", "BF16"}
_INTEGER_BUFFER = re.compile(r"attn(\.attention)?\.bias$|attention\.bias$|causal_mask$|position_ids$|tid2eid$")
"""Names of integer tensors that are no weights: causal masks, positions, routing tables."""


def quantized_matrices(config: Mapping[str, Any], where: str, tensors: FileTensors) -> dict[str, QuantizedMatrix]:
    """Returns each matrix that a folder holds quantized, by its name in the architecture.

    Args:
        config: The folder's config.json.
        where: Its path, for errors.
        tensors: What the weights' headers say.

    Raises:
        ModelError: The configuration names a format, or a variant of one, that is not known, or one that no tensor is
            stored in; the tensors of a matrix do not fit together; or one that is no floating point number belongs to
            none.
    """
    settings = _settings(config, where)
    if settings is None:
        _refuse_others(tensors, frozenset())
        return {}
    found = dict(_FORMATS[settings.values["quant_method"]](settings, tensors))
    used = frozenset(name for matrix in found.values() for name in matrix.parts.values())
    _refuse_others(tensors, used, settings)
    twice = next((name for name in found if name in tensors and name not in used), None)
    if twice is not None:
        raise settings.refused(f"tensor '{twice}' is there quantized and as it was")
    if not found:
        raise settings.refused(f"it names {settings.values['quant_method']}, in which no tensor is stored")
    return found


def dense_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a configuration without what it says of quantization, that of its parts included.

    What is computed with, and exported, is the dequantized model: other programs would read it wrongly otherwise.
    """
    kept = {key: value for key, value in config.items() if key not in _KEYS}
    return {
        key: {inner: v for inner, v in value.items() if inner not in _KEYS} if isinstance(value, dict) else value
        for key, value in kept.items()
    }


def _settings(config: Mapping[str, Any], where: str) -> Settings | None:
    """Returns what a configuration, or a part of it, such as that of a multimodal model's text, says of quantization.

    Raises:
        ModelError: It names no format, or one that is not known, or says different things in two places.
    """
    parts = [("", config), *((f"{key}.", part) for key, part in config.items() if isinstance(part, dict))]
    found = [(f"{prefix}{key}", part[key]) for prefix, part in parts for key in _KEYS if part.get(key)]
    if not found:
        return None
    key, values = found[0]
    said = values.get("quant_method") if isinstance(values, dict) else None
    own = Settings(key, values if isinstance(values, dict) else {}, where, config)
    if said is None and {"bits", "group_size"} <= own.values.keys():
        raise own.refused("the weights are quantized for MLX, which mlx-lm loads and graftkit does not")
    if not isinstance(said, str):
        raise own.refused("it names no format that is known, and the weights are already quantized")
    if said not in _FORMATS:
        known = ", ".join(sorted(_FORMATS))
        raise own.refused(f"quant_method is {said[:40]!r}, which is not known; known: {known}")
    other = next((name for name, theirs in found if theirs != values), None)
    if other is not None:
        raise own.refused(f"{other[:60]} says otherwise how the weights are stored")
    return own


def _refuse_others(tensors: FileTensors, used: frozenset[str], settings: Settings | None = None) -> None:
    """Refuses a tensor that is no floating point number and belongs to no matrix.

    Raises:
        ModelError: There is one.
    """
    odd = next(
        (name for name in tensors if name not in used and not _is_plain(name, tensors.headers[name].dtype)), None
    )
    if odd is None:
        return
    type_ = f"tensor '{odd}' is of type {tensors.headers[odd].dtype}"
    if settings is not None:
        raise settings.refused(f"{type_}, which {settings.values['quant_method']} as it is known here does not have")
    raise ModelError(
        f"{type_}: the weights are already quantized",
        where=str(tensors.places[odd]),
        hint="Give the unquantized model.",
    )


def _is_plain(name: str, dtype: str) -> bool:
    return dtype in _FLOATS or (dtype in INTEGERS and _INTEGER_BUFFER.search(name) is not None)
