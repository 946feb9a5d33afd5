"""Compares what an export's configurations ask a library to build with the weights beside them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from graftkit.errors import ExportError, ModelError
from graftkit.interfaces.counts import check_counts, count_weights
from graftkit.interfaces.json_file import read_json_object, special_float
from graftkit.interfaces.model_source import TensorInfo
from graftkit.interfaces.regular_file import MOST_BYTES
from graftkit.model.skeleton import build_skeleton

__all__ = ["check_configurations"]

_MOST_PACKED = 16
"""Weights of 2 bits in a number of 32."""

_SPARE = 1 << 20
"""Weights that a library makes anew, and that cost nothing."""


def check_configurations(folder: Path) -> None:
    """Refuses an export whose config.json asks for more than the weights beside it have.

    Libraries build each layer that it names, and tables as large as it says, before they look at the weights. The
    headers of these have passed `check_tensor_header`.

    Args:
        folder: The export.

    Raises:
        ModelError: A config.json names more layers, experts or other parts than there are tensors, a size that none
            has, or far more weights than there are; or transformers, which has its architecture, can't build the model.
        ExportError: A config.json or a header can't be read.
    """
    for path in sorted(folder.rglob("config.json")):
        shapes = _shapes_beside(path)
        if shapes:
            config = read_json_object(path, MOST_BYTES, ExportError, object_hook=special_float)
            check_counts(config, shapes, str(path))
            _check_weights(config, shapes, str(path))


def _check_weights(config: Mapping[str, Any], shapes: Mapping[str, TensorInfo], where: str) -> None:
    """Compares how many weights the configuration asks for with those that there are, packed ones in whole numbers."""
    from transformers import CONFIG_MAPPING

    kind = config.get("model_type")
    if not isinstance(kind, str) or kind not in CONFIG_MAPPING:  # the exporter's own program knows it, or nobody
        return
    skeleton = build_skeleton(config, where, tensors=len(shapes))
    asked, stored = sum(one.numel() for one in skeleton.parameters()), count_weights(shapes)
    if asked > _MOST_PACKED * stored + _SPARE:
        raise ModelError(
            f"the configuration asks for {asked:,} weights, of which {stored:,} numbers are stored",
            where=where,
            hint="Configuration and weights do not belong together: take both from the same export.",
        )


def _shapes_beside(path: Path) -> Mapping[str, TensorInfo]:
    found: dict[str, TensorInfo] = {}
    for file in sorted(path.parent.glob("*.safetensors")):
        try:
            with safe_open(file, framework="numpy") as tensors:
                slices = {name: tensors.get_slice(name) for name in tensors.keys()}  # noqa: SIM118 - it is no dict
                found |= {name: TensorInfo(tuple(one.get_shape()), one.get_dtype()) for name, one in slices.items()}
        except (OSError, SafetensorError) as error:
            raise ExportError(f"it is damaged: {error}", where=str(file)) from None
    return found
