"""Compares what an export's configurations ask a library to build with the weights beside them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open

from graftkit.errors import ExportError
from graftkit.flow.export_manifest import MAX_CONFIG
from graftkit.interfaces.counts import check_counts
from graftkit.interfaces.json_file import read_json_object
from graftkit.interfaces.model_source import TensorInfo

__all__ = ["check_configurations"]


def check_configurations(folder: Path) -> None:
    """Refuses an export whose config.json asks for more than the weights beside it have.

    Libraries build each layer that it names, and tables as large as it says, before they look at the weights. The
    headers of these have passed `check_tensor_header`.

    Args:
        folder: The export.

    Raises:
        ModelError: A config.json names more layers, experts or other parts than there are tensors, or a size that none
            has.
        ExportError: A config.json or a header can't be read.
    """
    for path in sorted(folder.rglob("config.json")):
        shapes = _shapes_beside(path)
        if shapes:
            check_counts(read_json_object(path, MAX_CONFIG, ExportError), shapes, str(path))


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
