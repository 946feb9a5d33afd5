"""What an adapter starts from that asks for the inputs of its layers on training tokens.

It is made once, before the adapter is attached, and kept in the run's folder: a run that goes on, and processes that
train together with this one, read it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from graftkit.errors import RecipeError, StorageError
from graftkit.flow.state.context import RunContext, StageScope
from graftkit.flow.state.start_key import start_key
from graftkit.interfaces.adapted_weight import AdaptedWeight
from graftkit.interfaces.adapter import Adapter
from graftkit.interfaces.forward import logits_at
from graftkit.interfaces.layer import LayerInfo
from graftkit.interfaces.observing import ObservedStart, ObservingAdapter
from graftkit.model.experts import ExpertStack
from graftkit.model.layers import output_layer
from graftkit.model.linear import FrozenLinear
from graftkit.model.observe import InputHooks
from graftkit.model.packing import Packing, forward_inputs
from graftkit.store.files import write_bytes
from graftkit.store.token_store import TokenStore
from graftkit.training.order import shuffled
from graftkit.training.step_loss import Passes

__all__ = ["START_FILE", "observed_start", "put_start", "with_options"]

START_FILE = "start.safetensors"


def observed_start(
    run: RunContext,
    adapter: Adapter,
    network: Any,
    store: TokenStore,
    packing: Packing,
    stage: StageScope,
    made_in: Path | None = None,
) -> ObservedStart | None:
    """Returns what an adapter makes of the inputs of its layers; None where it asks for none.

    Args:
        run: The run; its plan has the layers.
        adapter: The adapter.
        network: The base model, nothing attached to it yet.
        store: The examples to train on.
        packing: How sequences share a pass.
        stage: The stage, which is told.
        made_in: The folder of the run that has made it, of a process that follows another.

    Raises:
        RecipeError: The examples have too few tokens for it.
        StorageError: What another process has made can't be read.
    """
    if run.plan.origin or not isinstance(adapter, ObservingAdapter) or not adapter.observed_tokens:
        return None
    if made_in is not None:
        return _read(made_in / START_FILE)
    key, found = start_key(run), None
    if run.resumed:
        try:
            found = _read(run.folder / START_FILE, key)
        except StorageError:
            found = None
    if found is None:
        found = _made(run, adapter, network, store, packing)
        _write(run.folder / START_FILE, found, key)
    if found.left_out:
        first = min(found.left_out)
        stage.notice(f"{len(found.left_out)} of {len(run.plan.targets)} layers are not adapted, such as {first}")
    return found


def with_options(run: RunContext, start: ObservedStart) -> Adapter:
    """Makes the adapter anew with what its start says, and has the run's plan and manifest say the same."""
    bound = run.plan.bound
    fields = {**bound.adapter.config.model_dump(), **start.options}
    config = type(bound.adapter.config).model_validate(fields)
    run.plan = replace(run.plan, targets=[path for path in run.plan.targets if path not in start.left_out])
    facts = bound.adapter.registered.facts(config.model_dump(mode="json"))
    run.record(providers={**run.manifest.providers, "adapter": facts})
    made: Adapter = run.host.registry.create(bound.adapter.registered, config)
    return made


def put_start(start: ObservedStart, adapted: Mapping[str, AdaptedWeight]) -> None:
    """Gives adapted layers what they start from.

    Raises:
        ValueError: A tensor is none of an adapter's parameters, or of another shape.
    """
    for path, tensors in start.tensors.items():
        weight = adapted[path]
        weight.load_adapter_state({**weight.adapter_state(), **tensors})


@torch.no_grad()
def _made(
    run: RunContext, adapter: ObservingAdapter, network: Any, store: TokenStore, packing: Packing
) -> ObservedStart:
    """Runs examples through the base model until enough tokens were seen."""
    layers = _observed_layers(network, run.plan.targets)
    observer = adapter.observer(layers)
    hooks = InputHooks(network, [layer.path for layer in layers], observer)
    training, wanted = run.plan.bound.recipe.training, adapter.observed_tokens
    device = network.get_input_embeddings().weight.device
    passes = Passes(training.pass_tokens, packing.packed, device)
    for group in passes.groups(shuffled(len(store), training.seed, 0), store.lengths.tolist()):
        for batch in passes.batches([store[example] for example in group]):
            positions = batch.logit_positions[: max(0, wanted)]
            if len(positions):
                run.poll()
                wanted -= len(positions)
                inputs = forward_inputs(batch.sequences, packed=packing.packed)
                with hooks.watching(positions, batch.tokens):
                    logits_at(network, inputs, positions)
        if wanted <= 0:
            break
    try:
        return observer.start(hooks.shared)
    except ValueError as error:
        where = run.plan.bound.document.where(("adapter", "init"))
        raise RecipeError(str(error), where=where, hint="Give more records, or take a lower rank.") from None


def _observed_layers(network: Any, targets: Sequence[str]) -> list[LayerInfo]:
    """Returns those of the layers that are adapted whose inputs are vectors and that stand for themselves."""
    modules, output = {path: network.get_submodule(path) for path in targets}, output_layer(network)
    found = [module.info for module in modules.values() if isinstance(module, FrozenLinear)]
    found += [output] if output and output.path in modules else []
    assert not any(isinstance(module, ExpertStack) for module in modules.values())
    return found


def _write(path: Path, start: ObservedStart, key: str) -> None:
    tensors = {
        f"{layer}.{name}": t.cpu().contiguous() for layer, own in start.tensors.items() for name, t in own.items()
    }
    about = {"key": key, "options": dict(start.options), "left_out": sorted(start.left_out)}
    write_bytes(path, save(tensors, metadata={"start": json.dumps(about)}))


def _read(path: Path, key: str | None = None) -> ObservedStart:
    """Reads what was written.

    Raises:
        StorageError: It is not there, damaged, or of other tokens or another model.
    """
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {})["start"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dict
        if key is not None and about["key"] != key:
            raise StorageError("it was made of other tokens or another model", where=str(path))
        found: dict[str, dict[str, torch.Tensor]] = {}
        for name, tensor in tensors.items():
            layer, _, parameter = name.rpartition(".")
            found.setdefault(layer, {})[parameter] = tensor
        return ObservedStart(found, about["options"], frozenset(about["left_out"]))
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise StorageError(f"it is damaged: {error}", where=str(path)) from None
