"""Loads the base model of an adapter's folder, and puts the adapter on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from graftkit.flow.base_files.generation_settings import generation_config, processors_of, stop_tokens
from graftkit.flow.folders.adapter_state import read_state, state_from_peft
from graftkit.flow.planning.check_adapter import check_head
from graftkit.flow.preparation.base_model import LoadedModel
from graftkit.flow.preparation.check_model import pick_device
from graftkit.flow.preparation.new_rows import changed_config
from graftkit.flow.preparation.place_adapter import load_state, place_adapter
from graftkit.flow.preparation.plan_adapter import PlannedAdapter
from graftkit.interfaces.architecture import text_settings
from graftkit.interfaces.counts import count_weights
from graftkit.interfaces.layer import LayerInfo
from graftkit.interfaces.quantizer import AdoptingQuantizer
from graftkit.model.adapt import AdaptedModel
from graftkit.model.load import Loader
from graftkit.model.merge import rounds
from graftkit.model.model_plan import plan_base_model
from graftkit.model.originals import FileOriginals
from graftkit.model.packing import choose_packing, use_packing
from graftkit.model.peft_targets import peft_targets
from graftkit.model.stored_weights import StoredWeights
from graftkit.model.streamed import FileWeights, StreamedModel
from graftkit.model.targets import likely_layers, names_are_certain

__all__ = ["load_adapted", "load_packed", "stops_of", "stream_adapted"]


def load_packed(planned: PlannedAdapter, targets: Sequence[str], device: str = "auto") -> LoadedModel:
    """Loads the base model and puts the adapter on it, as training would compute it.

    Args:
        planned: The adapter and its base model.
        targets: What `check_layers` gave.
        device: Where it computes.

    Raises:
        ModelError: The adapter does not fit the base model, or that is not causal.
    """
    files = planned.files
    packing = choose_packing(files.config, files.reference, count_weights(files.tensors))
    place = pick_device(device)
    model, originals = load_adapted(planned, targets, place, _kept_in(planned))
    use_packing(model.network, packing)
    return LoadedModel(model, place, packing, originals)


def _kept_in(planned: PlannedAdapter) -> torch.dtype | None:
    """Returns the 16-bit type of the base's files, where a model that is kept in it holds the numbers of a float32 one.

    What proves an adapter computes in float32 block by block, whatever the model is kept in.
    """
    types = {info.dtype for info in planned.files.tensors.values()}
    found = [dtype for dtype, name in _TYPES.items() if types == {name}]
    exact = planned.dtype == "float32" and not (planned.folder.saved or planned.folder.rows)
    return getattr(torch, found[0]) if found and exact else None


def load_adapted(
    planned: PlannedAdapter, targets: Sequence[str], device: torch.device, dtype: torch.dtype | None = None
) -> tuple[AdaptedModel, FileOriginals]:
    """Loads the base model and puts the adapter on it, with the model's own attention.

    Arguments and errors as for `load_packed`; `dtype` is the type that tensors are kept in, as in training if left out.

    Returns:
        The model, and what reads the original weights of its layers.
    """
    files = planned.files
    dtype = dtype or getattr(torch, planned.dtype)
    base = plan_base_model(files, dtype)
    if planned.head:
        check_head(planned.folder, base)
    StoredWeights(base, planned.quantizer, device).check()
    network: Any = Loader(base, planned.quantizer, device).load()
    originals = FileOriginals(files, planned.quantizer, device, dtype)
    model = place_adapter(
        planned.folder,
        network,
        planned.adapter,
        targets,
        reference=files.reference,
        config=changed_config(files.config, planned.change, planned.tokenizer),
        tokenizer=planned.tokenizer,
        generation=generation_of(planned),
        processors=processors_of(files),
        pairs=bool(planned.head and planned.head.pairs),
        change=planned.change,
        originals=originals,
    )
    return model, originals


def stream_adapted(planned: PlannedAdapter) -> StreamedModel | None:
    """Returns the adapter on its base, whose weights stay in its files, where their names and shapes are certain.

    That takes no import of transformers. Where anything but plain layers is adapted, or the names leave a doubt, the
    model has to be loaded: None.

    Raises:
        FolderError: The adapter's tensors are damaged.
        ModelError: They do not fit the base model.
    """
    folder, files = planned.folder, planned.files
    shapes = likely_layers(files.tensors)
    held = set(folder.layers)
    if not _plainly_named(planned) or not held <= shapes.keys() or peft_targets(folder.fields, list(shapes)) != held:
        return None
    layers = {
        path: LayerInfo(path, "linear", *shape, bias=f"{path}.bias" in files.tensors) for path, shape in shapes.items()
    }
    if rounds(planned.quantizer, list(layers.values())):
        return None
    weights = FileWeights(files, layers, getattr(torch, planned.dtype))
    targets = [path for path in layers if path in held]
    model = StreamedModel(
        torch.nn.Module(),
        files.reference,
        changed_config(files.config, None, planned.tokenizer),
        planned.tokenizer,
        planned.adapter,
        weights.adapted(planned.adapter, targets),
        generation_config=generation_config(files, None, planned.tokenizer, stops_of(planned)),
        weights=weights,
        load=lambda: load_adapted(planned, targets, torch.device("cpu"))[0],
    )
    load_state(model, state_from_peft(read_state(folder), planned.adapter, targets), folder)
    return None if any(weight.replaced for weight in model.adapted.values()) else model


def _plainly_named(planned: PlannedAdapter) -> bool:
    """Tells whether a base's tensors are its model's, one by one, and the adapter is on nothing but linear layers."""
    folder, files = planned.folder, planned.files
    types = {info.dtype for info in files.tensors.values()}
    layers = likely_layers(files.tensors)
    matrices = [name for name, info in files.tensors.items() if len(info.shape) > 1 and name[:-7] not in layers]
    rounded = planned.dtype != "float32" and types != {_TYPES[planned.dtype]}
    return (
        planned.change is None
        and planned.head is None
        and not (folder.saved or folder.rows or folder.expert_layouts or folder.fields.get("fan_in_fan_out"))
        and not isinstance(planned.quantizer, AdoptingQuantizer)
        and types <= set(_TYPES.values())
        and not rounded
        and names_are_certain(files.tensors)
        and all(name.endswith((".weight", ".bias")) for name in files.tensors)
        and text_settings(files.config) is files.config
        and (len(matrices) == 1 or files.config.get("tie_word_embeddings") is False)
    )


_TYPES = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}


def stops_of(planned: PlannedAdapter) -> list[int]:
    """Returns the ids at which an answer ends: as in training where that is known, else as base and tokenizer say."""
    manifest = planned.folder.manifest
    if manifest or planned.head:
        return list(manifest.stop_tokens) if manifest else []
    return stop_tokens(planned.files, planned.change, planned.tokenizer, ())


def generation_of(planned: PlannedAdapter) -> Mapping[str, Any]:
    """Returns how answers are generated; nothing of a model with a head, which writes none."""
    if planned.head:
        return {}
    return generation_config(planned.files, planned.change, planned.tokenizer, stops_of(planned))
