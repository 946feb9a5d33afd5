"""Builds the model of a run or of an export anew: its base model, and the trained adapter on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from graftkit.errors import FolderError, ModelError
from graftkit.flow.answering.reloaded_head import HeadModel
from graftkit.flow.answering.reloaded_model import ReloadedModel
from graftkit.flow.answering.whole_model import model_of_export, plain_quantizer, type_in_use
from graftkit.flow.base_files.base_facts import base_facts, check_unchanged
from graftkit.flow.base_files.generation_settings import generation_config
from graftkit.flow.base_files.open_model import open_model, open_named_base
from graftkit.flow.base_files.own_head import does
from graftkit.flow.base_files.recreate import MakeProvider
from graftkit.flow.folders.adapter_state import saved_names, state_from_peft
from graftkit.flow.folders.export_manifest import ExportManifest
from graftkit.flow.folders.run_adapter import WholeParameters, read_adapter, read_tensors, whole_of_run
from graftkit.flow.folders.vocabulary_file import read_change
from graftkit.flow.planning.head import with_facts
from graftkit.flow.preparation.check_model import pick_device
from graftkit.flow.preparation.new_rows import changed_config
from graftkit.flow.records.chat import options_of
from graftkit.host.host import PluginHost
from graftkit.interfaces.tokenizer import Tokenizer
from graftkit.interfaces.vocabulary import VocabularyChange
from graftkit.model.adapt import AdaptedModel, adapt
from graftkit.model.grow import MakeRows, grow
from graftkit.model.head import is_of_head
from graftkit.model.load import Loader, load_base_model
from graftkit.model.model_plan import plan_base_model
from graftkit.model.originals import FileOriginals
from graftkit.model.outer_layers import ties_output, untie
from graftkit.model.whole import outer_names, put_whole
from graftkit.report.run_manifest import BaseFacts, HeadFacts, RunManifest, required

__all__ = ["rebuild_extended_base", "rebuild_peft", "rebuild_run", "refuse_head_in"]

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
"""What a manifest may name: never any other attribute of torch."""


@dataclass(frozen=True, slots=True)
class _Trained:
    """What a folder says of a model that was trained, and holds of it.

    Attributes:
        providers: What its parts are made by, by kind.
        base: Its base model.
        targets: The layers that are adapted.
        tokenizer: The tokenizer.
        state: The adapter's tensors by name.
        dtype: What it was trained in.
        change: What became of the base's vocabulary; None for nothing.
        whole: The parameters that were trained as a whole.
        head: What was put on the base model besides; None for nothing.
        seed: That of the run.
    """

    providers: Mapping[str, Any]
    base: BaseFacts
    targets: Sequence[str]
    tokenizer: Tokenizer
    state: Mapping[str, torch.Tensor]
    dtype: torch.dtype
    change: VocabularyChange | None
    whole: WholeParameters
    head: HeadFacts | None
    seed: int = 0


def rebuild_run(
    folder: Path, manifest: RunManifest, make: MakeProvider, device: str, *, heads: bool
) -> ReloadedModel | HeadModel:
    """Loads the base model of a run and the adapter that it has trained.

    Args:
        folder: The run.
        manifest: What it says of itself.
        make: Makes the providers that the manifest names.
        device: Where it computes, by a recipe's name for it.
        heads: Whether a model with a head may be loaded.

    Raises:
        FolderError: The run has no adapter yet, its files are damaged, or it has a head that may not be loaded.
        ModelError: The base model or the tokenizer is another one.
    """
    if not (folder / "adapter").is_dir():
        raise FolderError(
            f"the run has no adapter yet (it is {manifest.status})",
            where=str(folder),
            hint="Wait for it, or go on with it: toolkit run RECIPE --out FOLDER --resume.",
        )
    facts, state = read_adapter(folder)
    if not heads:
        refuse_head_in(manifest.head, folder)
    providers, where = manifest.providers, str(folder)
    model, data = required(manifest.model, "model", where), required(manifest.data, "data", where)
    tokenizer = make("tokenizer", providers["tokenizer"]).load(folder / "tokenizer")
    _check_tokenizer(tokenizer, facts["tokenizer_fingerprint"], folder / "tokenizer")
    training = manifest.recipe["training"]
    trained = _Trained(
        providers=providers,
        base=model,
        targets=facts["targets"],
        tokenizer=tokenizer,
        state=state,
        dtype=_DTYPES[training["dtype"]],
        change=read_change(folder),
        whole=whole_of_run(facts, folder),
        head=manifest.head,
        seed=training["seed"],
    )
    network, settings = _adapted(trained, make, device)
    chat = options_of(data.chat)
    if manifest.head:
        return HeadModel(network, tokenizer, chat, manifest.head.pairs)
    stop = manifest.stop_tokens
    return ReloadedModel(network, tokenizer, stop, data.system, data.tools, chat, data.prompts, settings)


def rebuild_peft(
    folder: Path, manifest: ExportManifest, make: MakeProvider, device: str, *, heads: bool
) -> ReloadedModel | HeadModel:
    """Loads an export in PEFT's format on the base that it was trained on."""
    if not heads:
        refuse_head_in(manifest.head, folder)
    tensors, layouts = read_tensors(folder / "adapter_model.safetensors"), manifest.expert_layouts()
    saved = saved_names(tensors, manifest.targets, layouts)
    state = state_from_peft(tensors, make("adapter", manifest.adapter), manifest.targets, layouts, saved)
    tokenizer = make("tokenizer", manifest.tokenizer).load(folder)
    _check_tokenizer(tokenizer, manifest.tokenizer_fingerprint, folder)
    trained = _Trained(
        providers={
            "model_source": manifest.model_source,
            "quantizer": manifest.quantizer,
            "adapter": manifest.adapter,
        },
        base=manifest.model,
        targets=manifest.targets,
        tokenizer=tokenizer,
        state=state,
        dtype=_DTYPES[manifest.dtype],
        change=read_change(folder),
        whole=WholeParameters(saved),
        head=manifest.head,
    )
    network, settings = _adapted(trained, make, device)
    if manifest.head:
        return HeadModel(network, tokenizer, options_of(manifest.chat), manifest.head.pairs)
    return model_of_export(network, tokenizer, manifest.stop_tokens, manifest, settings)


def rebuild_extended_base(
    folder: Path, manifest: ExportManifest, host: PluginHost, make: MakeProvider, device: str
) -> ReloadedModel:
    """Loads a base that has the new vocabulary, and the plain adapter beside it."""
    _, files = open_model(host, str(folder / "base"))
    tokenizer = make("tokenizer", manifest.tokenizer).load(folder / "base")
    _check_tokenizer(tokenizer, manifest.tokenizer_fingerprint, folder / "base")
    place, quantizer = pick_device(device), plain_quantizer(host)
    network = load_base_model(files, quantizer, device=place, dtype=type_in_use(files, place))
    adapter = make("adapter", manifest.adapter)
    tensors = read_tensors(folder / "adapter" / "adapter_model.safetensors")
    state = state_from_peft(tensors, adapter, manifest.targets, manifest.expert_layouts())
    originals = FileOriginals(files, quantizer, place, torch.float32)
    adapted = adapt(network, adapter, manifest.targets, seed=0, originals=originals)
    AdaptedModel(network, files.reference, files.config, tokenizer, adapter, adapted).load_adapter_state(state)
    return model_of_export(
        network, tokenizer, manifest.stop_tokens, manifest, generation_config(files, None, tokenizer, ())
    )


def _adapted(trained: _Trained, make: MakeProvider, device: str) -> tuple[Any, Mapping[str, Any]]:
    """Returns the model, and the generation settings of its base."""
    providers, change, tokenizer = trained.providers, trained.change, trained.tokenizer
    files = with_facts(open_named_base(make, providers["model_source"], trained.base.reference), trained.head)
    check_unchanged(trained.base, base_facts(files))
    quantizer = make("quantizer", providers["quantizer"])
    place = pick_device(device)
    planned = plan_base_model(files, trained.dtype)
    network: Any = Loader(planned, quantizer, place).load()
    adapter = make("adapter", providers["adapter"])
    outer = outer_names(network) if change and ties_output(network) else None
    if outer and f"{outer[1].removesuffix('.weight')}.new_rows" in trained.state:
        untie(network)
    grown = grow(network, change, _empty_rows(change), files.reference) if change else None
    names = [name for name in trained.whole.names if not is_of_head(name, planned.head)]
    _put_whole(network, replace(trained.whole, names=names))
    originals = FileOriginals(files, quantizer, place, trained.dtype)
    adapted = adapt(network, adapter, trained.targets, seed=trained.seed, originals=originals)
    config = changed_config(files.config, change, tokenizer)
    model = AdaptedModel(
        network, files.reference, config, tokenizer, adapter, adapted, grown, head=planned.head, saved_modules=names
    )
    model.load_adapter_state(trained.state)
    return network, generation_config(files, change, tokenizer, ())


def _put_whole(network: Any, whole: WholeParameters) -> None:
    """Makes room for whole parameters that are read afterwards.

    Raises:
        FolderError: The model has none of that name: the manifest, or the adapter's file, is damaged.
    """
    try:
        put_whole(network, frozenset(whole.names), tied=whole.tied)
    except AttributeError as error:
        raise FolderError(f"it is damaged: it has a whole parameter that the model lacks: {error}") from None


def _empty_rows(change: VocabularyChange) -> MakeRows:
    """Makes room for rows that are read afterwards."""
    return lambda weight, role: torch.zeros(len(change.ids), weight.shape[1])


def _check_tokenizer(tokenizer: Tokenizer, trained_with: str, where: Path) -> None:
    """Refuses a tokenizer that an adapter was not trained with: its ids would mean other rows.

    Raises:
        ModelError: It is another one.
    """
    if tokenizer.fingerprint != trained_with:
        raise ModelError(
            f"the adapter was trained with the tokenizer {trained_with[:12]}, this one is {tokenizer.fingerprint[:12]}",
            where=str(where),
            hint="Put the tokenizer's own files back: with other ids the adapter means nothing.",
        )


def refuse_head_in(head: HeadFacts | None, folder: Path) -> None:
    """Refuses what has another head than a language model's.

    Raises:
        FolderError: It has.
    """
    if head is not None:
        raise FolderError(
            f"it {does(head.kind)}, and writes no answers",
            where=str(folder),
            hint="`toolkit generate`, or graftkit.judge, says what it says of a text.",
        )
