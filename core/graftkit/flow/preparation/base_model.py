"""Loads the base model, and gives it the run's vocabulary and the adapter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from graftkit.errors import ModelError
from graftkit.flow.base_files.base_facts import check_unchanged, hashed_as_read
from graftkit.flow.base_files.generation_settings import generation_config, processors_of
from graftkit.flow.folders.adapter_folder import AdapterFolder, is_adapter_folder, keep_adapter_folder
from graftkit.flow.folders.own_files import ADAPTER_FROM
from graftkit.flow.planning.check_adapter import gives_output_own_rows
from graftkit.flow.preparation.check_model import PlannedBase, offloads
from graftkit.flow.preparation.new_rows import changed_config, grow_vocabulary
from graftkit.flow.preparation.observed_start import observed_start, put_start, with_options
from graftkit.flow.preparation.place_adapter import load_tensors
from graftkit.flow.preparation.shared_weights import sharing_of
from graftkit.flow.state.context import RunContext, StageScope
from graftkit.interfaces.adapter import Adapter
from graftkit.interfaces.quantizer import Quantizer
from graftkit.model.activation_checkpointing import checkpoint_blocks
from graftkit.model.adapt import AdaptedModel, adapt
from graftkit.model.adapter_checks import check_round_trip
from graftkit.model.head import head_parameters, start_head
from graftkit.model.linear import FrozenLinear
from graftkit.model.load import Loader
from graftkit.model.memory_back import give_freed_back
from graftkit.model.model_plan import plan_base_model
from graftkit.model.originals import FileOriginals
from graftkit.model.outer_layers import OuterLayer, untie, untied
from graftkit.model.packing import Packing, use_packing
from graftkit.model.sharded import SharedBlocks
from graftkit.model.whole import put_whole, whole_parameters
from graftkit.report.run_manifest import AdapterSource, ParameterFacts, required
from graftkit.store.token_store import TokenStore
from graftkit.visible import first_of

__all__ = ["LoadedBase", "LoadedModel", "load_base", "prepare_model"]


_SHOWN = 3
"""Names of whole parameters that a notice shows."""


@dataclass(frozen=True, slots=True)
class LoadedBase:
    """The base model as it is stored, before anything is trained on it, and how its weights were before that.

    Attributes:
        network: The model.
        device: Where it computes.
        packing: How sequences share a pass.
        originals: How its weights were.
        head: The modules that are its head, if it has one that gives scores.
        new: The parameters of these that the base model's files lack.
    """

    network: Any
    device: torch.device
    packing: Packing
    originals: FileOriginals
    head: Sequence[str] = ()
    new: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """The model, where it computes, how sequences share a pass, and how its weights were before they were stored."""

    model: AdaptedModel
    device: torch.device
    packing: Packing
    originals: FileOriginals


def load_base(run: RunContext, planned: PlannedBase) -> LoadedBase:
    """Streams the weights in, stored as the quantizer says."""
    bound, files = run.plan.bound, run.plan.files
    training = bound.recipe.training
    with run.stage("base model") as stage:
        quantizer: Quantizer = run.host.registry.create(bound.quantizer.registered, bound.quantizer.config)
        device, dtype = planned.device, getattr(torch, training.dtype)
        on_tensor = stage.progress("tensors")
        sharing = sharing_of(run)
        shared = SharedBlocks(sharing) if sharing else None
        with hashed_as_read(files, run.resumed.manifest.model if run.resumed else None) as model:
            base = plan_base_model(files, dtype)
            network: Any = Loader(base, quantizer, device).load(on_tensor, shared)
        give_freed_back()
        use_packing(network, planned.packing)
        run.record(model=model, head=run.plan.head)
        stage.facts |= {"device": str(device)}
        originals = FileOriginals(files, quantizer, device, dtype)
        return LoadedBase(network, device, planned.packing, originals, base.head, base.new)


def prepare_model(run: RunContext, base: LoadedBase, store: TokenStore, made_in: Path | None = None) -> LoadedModel:
    """Gives the model the run's vocabulary and attaches the adapter.

    Args:
        run: The run.
        base: The base model.
        store: The examples to train on, for adapters that start from what goes into their layers.
        made_in: As for `observed_start`.
    """
    bound, files, network = run.plan.bound, run.plan.files, base.network
    with run.stage("adapter") as stage:
        origin = run.plan.origin
        own_rows = origin is not None and gives_output_own_rows(origin, network)
        if own_rows:
            untie(network)
        grown = grow_vocabulary(run, network) if run.vocabulary.change else None
        unties = put_whole(network, run.plan.whole.shapes.keys(), tied=run.plan.whole.tied)
        adapter: Adapter = run.host.registry.create(bound.adapter.registered, bound.adapter.config)
        start = observed_start(run, adapter, network, store, base.packing, stage, made_in)
        if start:
            adapter = with_options(run, start)
        adapted = adapt(network, adapter, run.plan.targets, seed=bound.recipe.training.seed, originals=base.originals)
        path, first = next(iter(adapted.items()), ("", None))
        if first is not None:
            check_round_trip(adapter, first, path)
        if start:
            put_start(start, adapted)
        if bound.recipe.memory.checkpoint == "blocks":
            checkpoint_blocks(network, offload=offloads(bound.recipe, base.device))
            if bound.recipe.memory.offload and base.device.type == "cpu":
                stage.notice("memory.offload changes nothing on a CPU, in whose memory the inputs of blocks are anyway")
        tokenizer = run.vocabulary.tokenizer
        config = changed_config(files.config, run.vocabulary.change, tokenizer)
        config = untied(config) if unties or own_rows else config
        generation = generation_config(files, run.vocabulary.change, tokenizer, run.manifest.stop_tokens)
        start_head(network, base.new, bound.recipe.training.seed)
        for parameter in head_parameters(network, base.head).values():
            parameter.requires_grad_(True)
        system = run.manifest.data.system if run.manifest.data else None
        model = AdaptedModel(
            network,
            files.reference,
            config,
            tokenizer,
            adapter,
            adapted,
            grown,
            {} if run.plan.head else generation,
            system=system,
            saved_modules=list(run.plan.whole.shapes),
            unties=own_rows,
            head=base.head,
            processors=processors_of(files),
            pairs=bool(run.plan.head and run.plan.head.pairs),
        )
        if origin:
            _take_over(run, origin, model, keep=made_in is None)
        _tell_of_saved(stage, model)
        stage.facts |= _facts(model, base.device)
        run.record(parameters={key: stage.facts[key] for key in ParameterFacts.model_fields})
        return LoadedModel(model, base.device, base.packing, base.originals)


def _take_over(run: RunContext, origin: AdapterFolder, model: AdaptedModel, *, keep: bool) -> None:
    """Gives the adapter the tensors of the one that training goes on with, and keeps its files and their hashes.

    Args:
        run: The run.
        origin: The adapter that training goes on with.
        model: What gets its tensors.
        keep: Whether its files are copied into the run's folder.

    Raises:
        ModelError: It was trained on another base model, does not fit this one, or is not what the run began with.
    """
    before = run.resumed.manifest.adapter_from if run.resumed else None
    if before and before.files != origin.files:
        raise ModelError(
            "the adapter that the run began with has changed",
            where=str(origin.path),
            hint="Put its files back; the run's manifest has their sha256.",
        )
    if origin.manifest:
        check_unchanged(origin.manifest.model, required(run.manifest.model, "model"))
    run.record(adapter_from=before or AdapterSource(path=str(origin.path), files=dict(origin.files)))
    load_tensors(origin, model, run.plan.targets)
    if keep and not is_adapter_folder(run.folder / ADAPTER_FROM):
        keep_adapter_folder(origin, run.folder / ADAPTER_FROM, run.vocabulary.tokenizer)


def _tell_of_saved(stage: StageScope, model: AdaptedModel) -> None:
    """Says what is trained as a whole beside the adapter."""
    whole = whole_parameters(model.network, model.saved_modules)
    if whole:
        shown = first_of(whole, _SHOWN)
        numbers = sum(parameter.numel() for parameter in whole.values())
        stage.notice(f"whole modules ('modules_to_save') are trained beside the adapter: {shown}, {numbers:,} numbers")


def _facts(model: AdaptedModel, device: torch.device) -> Mapping[str, Any]:
    trainable = sum(parameter.numel() for parameter in model.trainable_parameters().values())
    layers = [m for m in model.network.modules() if isinstance(m, FrozenLinear)]
    frozen = [m for m in layers if not isinstance(m, OuterLayer)]
    weights = sum(m.frozen.out_features * m.frozen.in_features for m in frozen)
    held = {id(p) for m in layers if isinstance(m, OuterLayer) for p in m.frozen.parameters()}
    inside = {id(p) for m in layers for p in m.core.parameters()} - held
    dense = sum(p.numel() for p in model.network.parameters() if id(p) not in inside)
    frozen_bytes = sum(m.frozen.nbytes for m in frozen)
    return {
        "device": str(device),
        "total": weights + dense,
        "trainable": trainable,
        "trainable_share": trainable / (weights + dense),
        "new_row_parameters": sum(rows.numel() for rows in model.row_parameters().values()),
        "adapted_layers": len(model.adapted),
        "frozen_linear_bytes": frozen_bytes,
        "bits_per_frozen_weight": round(8 * frozen_bytes / weights, 3),
    }
