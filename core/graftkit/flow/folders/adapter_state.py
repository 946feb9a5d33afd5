"""Reads the tensors of an adapter in PEFT's format, and what of its state they are."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate

import torch
from safetensors import SafetensorError

from graftkit.errors import FolderError, ModelError
from graftkit.flow.folders.adapter_folder import NEW_ROWS, OF_BASE, PREFIX, AdapterFolder
from graftkit.interfaces.adapter import Adapter
from graftkit.interfaces.peft_experts import ExpertLayout
from graftkit.store.file_hashes import sha256_of

__all__ = ["read_state", "saved_names", "state_from_peft"]


def read_state(folder: AdapterFolder) -> dict[str, torch.Tensor]:
    """Reads an adapter's tensors, float32 on the CPU.

    Raises:
        FolderError: They are damaged, or others than those that were there when the folder was read.
    """
    from safetensors.torch import load_file

    try:
        if sha256_of(folder.tensors) != folder.files[folder.tensors.name]:
            what = "the file has changed since it was checked"
            raise FolderError(what, where=str(folder.tensors), hint="Start again.")
        tensors: dict[str, torch.Tensor] = load_file(folder.tensors)
    except (OSError, ValueError, SafetensorError) as error:
        raise FolderError(f"it is damaged: {error}", where=str(folder.tensors)) from None
    for name, tensor in tensors.items():
        if not tensor.is_floating_point() or not torch.isfinite(tensor.float()).all():
            what = (
                "numbers that are not finite" if tensor.is_floating_point() else f"numbers of the type {tensor.dtype}"
            )
            raise FolderError(f"its tensor '{name[:120]}' has {what}", where=str(folder.tensors))
    return {name: tensor.float() for name, tensor in tensors.items()}


def state_from_peft(
    tensors: Mapping[str, torch.Tensor],
    adapter: Adapter,
    targets: Sequence[str],
    layouts: Mapping[str, ExpertLayout] | None = None,
    whole: Iterable[str] = (),
) -> dict[str, torch.Tensor]:
    """Returns what `AdaptedModel.adapter_state` gives from PEFT's tensors: the adapter's, new rows, whole parameters.

    Args:
        tensors: The tensors of an adapter_model.safetensors.
        adapter: The adapter that has its method.
        targets: The dotted paths of the adapted layers, and of stacks of experts.
        layouts: Where the tensors of each of those stacks lie.
        whole: The names of the whole parameters.

    Raises:
        ModelError: There is no tensor of a layer.
    """
    state = {name: tensors[f"{PREFIX}{name}"] for name in whole}
    layouts, names = layouts or {}, sorted(tensors)
    for layer in dict.fromkeys(target for target in targets if target not in layouts):
        below = [name for name in _below(names, f"{PREFIX}{layer}.") if not name.startswith(OF_BASE)]
        own = {name: tensors[f"{PREFIX}{layer}.{name}"] for name in below}
        if not own:
            raise ModelError(f"it has no tensor of the layer '{layer[:120]}', which its manifest names")
        state |= {f"{layer}.{name}": value for name, value in adapter.from_peft(own).items()}
    for stack, layout in layouts.items():
        try:
            experts = list(layout.split(tensors))
        except (LookupError, ValueError) as error:
            raise ModelError(f"it has no tensors of the experts '{stack[:120]}': {error}") from None
        for expert, own in enumerate(experts):
            state |= {f"{stack}.{expert}.{name}": value for name, value in adapter.from_peft(own).items()}
    for key, value in tensors.items():
        if key.endswith(NEW_ROWS):
            state[f"{key.removeprefix(PREFIX).removesuffix(NEW_ROWS)}.new_rows"] = value
    return state


def saved_names(tensors: Iterable[str], layers: Collection[str], layouts: Mapping[str, ExpertLayout]) -> list[str]:
    """Returns the names of whole parameters among PEFT's names of tensors: what belongs to no layer, and is no new row.

    Args:
        tensors: The names.
        layers: The dotted paths of the adapted layers.
        layouts: Where the tensors of adapted stacks of experts lie.
    """
    held = {name for layout in layouts.values() for name in layout.names}
    names = [name.removeprefix(PREFIX) for name in tensors if name not in held and not name.endswith(NEW_ROWS)]
    adapted = set(layers)
    return [name for name in names if adapted.isdisjoint(accumulate(name.split("."), "{}.{}".format))]


def _below(names: Sequence[str], prefix: str) -> Iterator[str]:
    """Yields what follows a prefix in those of sorted names that begin with it."""
    for place in range(bisect_left(names, prefix), len(names)):
        if not names[place].startswith(prefix):
            break
        yield names[place].removeprefix(prefix)
