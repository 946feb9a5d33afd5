"""Loads the base model of an adapter's folder, and puts the adapter on it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from graftkit.flow.base_model import LoadedModel
from graftkit.flow.check_model import pick_device
from graftkit.flow.generation_settings import generation_config, stop_tokens
from graftkit.flow.new_rows import changed_config
from graftkit.flow.place_adapter import place_adapter
from graftkit.flow.plan_adapter import PlannedAdapter
from graftkit.interfaces.counts import count_weights
from graftkit.model.adapt import AdaptedModel
from graftkit.model.load import check_stored_weights, load_base_model
from graftkit.model.originals import FileOriginals
from graftkit.model.packing import choose_packing, use_packing

__all__ = ["load_adapted", "load_packed", "stops_of"]


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
    model, originals = load_adapted(planned, targets, place)
    use_packing(model.network, packing)
    return LoadedModel(model, place, packing, originals)


def load_adapted(
    planned: PlannedAdapter, targets: Sequence[str], device: torch.device
) -> tuple[AdaptedModel, FileOriginals]:
    """Loads the base model and puts the adapter on it, with the model's own attention.

    Arguments and errors as for `load_packed`.

    Returns:
        The model, and what reads the original weights of its layers.
    """
    files, dtype = planned.files, getattr(torch, planned.dtype)
    check_stored_weights(files, planned.quantizer)
    network: Any = load_base_model(files, planned.quantizer, device=device, dtype=dtype)
    originals = FileOriginals(files, planned.quantizer, device, dtype)
    model = place_adapter(
        planned.folder,
        network,
        planned.adapter,
        targets,
        reference=files.reference,
        config=changed_config(files.config, planned.change, planned.tokenizer),
        tokenizer=planned.tokenizer,
        generation=generation_config(files, planned.change, planned.tokenizer, stops_of(planned)),
        change=planned.change,
        originals=originals,
    )
    return model, originals


def stops_of(planned: PlannedAdapter) -> list[int]:
    """Returns the ids at which an answer ends: as in training where that is known, else as base and tokenizer say."""
    manifest = planned.folder.manifest
    if manifest:
        return list(manifest.stop_tokens)
    return stop_tokens(planned.files, planned.change, planned.tokenizer, ())
