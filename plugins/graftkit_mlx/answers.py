"""What mlx-lm does with a model's folder; imported where mlx-lm may change its process."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten
from mlx_lm.utils import load_adapters, load_model, quantize_model, save_model

__all__ = ["compute", "quantize", "try_twin"]


def compute(folder: Path, target: str, adapter: str | None = None) -> dict[str, Any]:
    """Writes the logits of probes, `[positions, vocabulary]`, float32, by their numbers into `logits.safetensors`.

    Args:
        folder: The model's folder.
        target: Where to write, and where `probes.json` lies.
        adapter: The folder of an adapter that is put on it.
    """
    model = _load_exact(folder)
    if adapter:
        model = load_adapters(model, adapter)
        model.eval()
    found = {}
    for number, probe in enumerate(json.loads((Path(target) / "probes.json").read_bytes())):
        found[str(number)] = _logits(model, probe["ids"])[mx.array(probe["positions"])]
        mx.eval(found[str(number)])
    mx.save_safetensors(str(Path(target) / "logits.safetensors"), found)
    return {}


def _load_exact(folder: Path) -> Any:
    """Loads a model as mlx-lm does, to compute in float32 with the weights that are stored."""
    model, _ = load_model(folder, lazy=True)
    model.set_dtype(mx.float32)
    return model


def _logits(model: Any, ids: Sequence[int]) -> mx.array:
    """Returns the logits of a sequence's tokens, `[tokens, vocabulary]`, float32."""
    logits: mx.array = model(mx.array([list(ids)]))[0].astype(mx.float32)
    return logits


def try_twin(folder: Path, ids: Sequence[int]) -> dict[str, Any]:
    """Returns what mlx-lm computes with a twin, and which of its tensors each of the architecture's is made of.

    Args:
        folder: The twin's folder, in which `architecture.safetensors` has the tensors by their names in transformers.
        ids: A sequence.
    """
    model = _load_exact(folder)
    own: Any = mx.load(str(folder / "architecture.safetensors"))
    theirs = dict(tree_flatten(model.parameters()))
    made = {name: _made_of(name, tensor, theirs) for name, tensor in own.items()}
    return {"logits": _logits(model, ids).tolist(), "made": made}


def _made_of(name: str, whole: mx.array, tensors: Mapping[str, mx.array]) -> list[str]:
    """Returns the tensors that stand one after the other in the rows of one; none where these are not all of it."""
    if name in tensors and _equal(whole, tensors[name]):
        return [name]
    found: list[str] = []
    rows = 0
    axis = max(0, whole.ndim - 2)
    while rows < whole.shape[axis]:
        place = (slice(None),) * axis
        fitting = (
            other
            for other, tensor in tensors.items()
            if tensor.ndim == whole.ndim and _equal(whole[*place, rows : rows + tensor.shape[axis]], tensor)
        )
        part = next(fitting, None)
        if part is None:
            return []
        found.append(part)
        rows += tensors[part].shape[axis]
    return found


def _equal(one: mx.array, other: mx.array) -> bool:
    return one.shape == other.shape and bool(mx.array_equal(one.astype(mx.float32), other.astype(mx.float32)))


def quantize(folder: Path, bits: int, group_size: int, target: str) -> dict[str, Any]:
    """Writes a model's weights quantized, as `mlx_lm.convert` does, and returns how each is.

    Args:
        folder: The folder of a model that is not quantized.
        bits: Of each number.
        group_size: Numbers that share a scale and an offset.
        target: Where to write.
    """
    model, config = load_model(folder, lazy=True)
    model, config = quantize_model(model, config, group_size, bits)
    save_model(target, model, donate_model=True)
    return {"quantization": config["quantization"]}
