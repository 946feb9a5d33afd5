"""Loads what a run left, to try it."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from graftkit.errors import FolderError, GraftkitError, named
from graftkit.flow.answering.plugins_of_run import plugins_of_run
from graftkit.flow.answering.rebuilt_model import rebuild_extended_base, rebuild_peft, rebuild_run, refuse_head_in
from graftkit.flow.answering.reloaded_head import HeadModel
from graftkit.flow.answering.reloaded_model import ReloadedModel, Reply
from graftkit.flow.answering.whole_model import ends_of_answers, gguf_in, model_of_export, opened_head, opened_model
from graftkit.flow.base_files.open_model import open_model
from graftkit.flow.base_files.recreate import InstalledProviders, MakeProvider
from graftkit.flow.folders.export_manifest import (
    EXPORT_MANIFEST,
    TO_LOAD,
    TO_REBUILD,
    ExportManifest,
    check_all_listed,
    check_as_the_run_lists,
)
from graftkit.flow.folders.listed_files import check_listed, check_none_beside
from graftkit.flow.folders.refused_files import refuse_bad_export
from graftkit.flow.folders.vocabulary_file import VOCABULARY
from graftkit.flow.planning.check_adapter import check_layers
from graftkit.flow.planning.head import scored_of, with_own_vectors
from graftkit.flow.preparation.adapter_model import load_adapted, stops_of
from graftkit.flow.preparation.check_model import pick_device
from graftkit.flow.preparation.plan_adapter import TokenizerOf, plan_adapter
from graftkit.flow.records.chat import options_of
from graftkit.host.host import PluginHost
from graftkit.interfaces.architecture import head_of
from graftkit.interfaces.offline import this_machine_alone
from graftkit.model.model_plan import plan_base_model
from graftkit.model.whole_transformers import import_transformers
from graftkit.report.run_manifest import HeadFacts, RunManifest

__all__ = [
    "AdapterBase",
    "ReloadedModel",
    "Reply",
    "check_source",
    "export_around",
    "reload",
    "reload_any",
    "unfinished",
]

_LOADED_OF_A_RUN = ("adapter/", "tokenizer/", VOCABULARY)
"""What the paths of those of a run's files start with that are loaded."""


@dataclass(frozen=True, slots=True)
class AdapterBase:
    """What an adapter is loaded on, where its folder alone does not say that, or somebody wants it otherwise.

    Attributes:
        base: The base model; the one that the folder names when None.
        quantizer: How the base's weights are stored; as they are when None.
        tokenizer: Whose tokenizer is taken where the adapter's and the base model's differ.
    """

    base: str | None = None
    quantizer: str | None = None
    tokenizer: TokenizerOf | None = None


def reload(
    source: str | os.PathLike[str], host: PluginHost | None = None, on: AdapterBase | None = None
) -> ReloadedModel:
    """Loads a run's folder, an export, an adapter in PEFT's format from anywhere, or a base model.

    Args:
        source: Its folder, or what names a base model.
        host: The plugins; those that are installed, without those that the run's recipe leaves out, when left out.
        on: What an adapter is loaded on.

    Raises:
        RequestError: It is none of them, or its files do not belong together, or `on` is given and it is no adapter;
            or it is no language model.
    """
    found = _loaded(source, host, on, "auto", heads=False)
    assert isinstance(found, ReloadedModel)
    return found


def reload_any(
    source: str | os.PathLike[str],
    host: PluginHost | None = None,
    on: AdapterBase | None = None,
    device: str = "auto",
    *,
    headless: bool = False,
) -> ReloadedModel | HeadModel:
    """Loads what `reload` does, and models with a head: classifiers, reward models, encoders that fill in tokens.

    Args:
        source: As for `reload`.
        host: As for `reload`.
        on: As for `reload`; an adapter of a model with a head is loaded with its run or export alone.
        device: Where it computes, as a recipe's `training.device` names it.
        headless: Whether a base model with the head of a language model, or one that fills in masked tokens, is asked
            for vectors: what an objective begins with that learns those.

    Raises:
        RequestError: As for `reload`.
        RecipeError: There is no such device here.
    """
    return _loaded(source, host, on, device, heads=True, headless=headless)


def check_source(source: str, host: PluginHost, *, headless: bool = False) -> HeadFacts | None:
    """Makes sure that something lies where a source leads that a model may be loaded from, by names and headers alone.

    Args:
        source: As for `reload`.
        host: The plugins.
        headless: As for `reload_any`.

    Returns:
        The model's head; None of an adapter that another program wrote, which its base model decides on.

    Raises:
        RequestError: Nothing does, or its manifest is damaged.
    """
    folder = export_around(Path(source))
    run = RunManifest.read(folder)
    if run is not None:
        return run.head or HeadFacts(kind="language")
    export = ExportManifest.read(folder, ()) if (folder / EXPORT_MANIFEST).is_file() else None
    if export is not None and (export.head or not (folder / "config.json").is_file()):
        return export.head or HeadFacts(kind="language")
    if (folder / "adapter_config.json").is_file():
        return None
    with named(source):
        _, files = open_model(host, gguf_in(folder) or (str(folder) if export else source))
    return scored_of(with_own_vectors(files, headless=headless).config)


def _loaded(
    source: str | os.PathLike[str],
    host: PluginHost | None,
    on: AdapterBase | None,
    device: str,
    *,
    heads: bool,
    headless: bool = False,
) -> ReloadedModel | HeadModel:
    """Loads what a source names; what has a head is refused unless `heads` says otherwise."""
    import_transformers()
    source, host = os.fspath(source), host or plugins_of_run(source)
    try:
        with named(source):
            if on is not None:
                return _adapter_on(source, host, on, device, heads=heads)
            return _reload(source, host, InstalledProviders(host).make, device, heads=heads, headless=headless)
    except GraftkitError:
        raise
    except (OSError, LookupError, TypeError, ValueError, AttributeError, RuntimeError, SafetensorError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise FolderError(f"its files are incomplete or damaged: {reason}", where=source) from error


def _reload(
    source: str, host: PluginHost, make: MakeProvider, device: str, *, heads: bool, headless: bool
) -> ReloadedModel | HeadModel:
    folder = export_around(Path(source))
    manifest = RunManifest.read(folder)
    if manifest is not None:
        check_listed(folder, manifest.artifacts, _LOADED_OF_A_RUN)
        if manifest.artifacts:  # which are listed once the run has finished
            _check_nothing_was_added(folder, manifest.artifacts)
        with this_machine_alone():
            return rebuild_run(folder, manifest, make, device, heads=heads)
    export = ExportManifest.read(folder, ("files",)) if (folder / EXPORT_MANIFEST).is_file() else None
    if export is not None:
        refuse_bad_export(folder)
        check_all_listed(folder, export)
    check_as_the_run_lists(folder)
    if (folder / "adapter_config.json").is_file() and export is None:
        return _adapter_on(source, host, AdapterBase(), device, heads=heads)
    if export is not None and (folder / "adapter_model.safetensors").is_file():
        with this_machine_alone():
            return rebuild_peft(folder, _ours(folder, export, (*TO_LOAD, *TO_REBUILD)), make, device, heads=heads)
    if (folder / "adapter" / "adapter_config.json").is_file() and (folder / "base").is_dir():
        return rebuild_extended_base(folder, _ours(folder, export, TO_LOAD), host, make, device)
    if export is not None and not (folder / "config.json").is_file() and not gguf_in(folder):
        raise FolderError(
            f"an export of '{export.exporter.get('name')}' can't be tried by graftkit itself",
            where=source,
            hint="Try the run that it is of, or load it with the program that it is for.",
        )
    _, files = open_model(host, gguf_in(folder) or (str(folder) if export else source))
    files = with_own_vectors(files, headless=headless)
    if heads and head_of(files.config) != "language":
        return opened_head(files, export or ExportManifest(), host, device)
    return opened_model(files, str(folder) if export else source, export or ExportManifest(), host, device)


def _adapter_on(
    source: str, host: PluginHost, on: AdapterBase, device: str, *, heads: bool
) -> ReloadedModel | HeadModel:
    """Loads an adapter in PEFT's format on a base model, as `toolkit export` does."""
    planned = plan_adapter(Path(source), host, base=on.base, quantizer=on.quantizer, tokenizer=on.tokenizer)
    if not heads:
        refuse_head_in(planned.head, Path(source))
    targets = check_layers(planned.folder, plan_base_model(planned.files))
    model, _ = load_adapted(planned, targets, pick_device(device))
    if planned.head:
        known = planned.folder.manifest
        pairs = known.head.pairs if known and known.head else None
        return HeadModel(model.network, planned.tokenizer, options_of(known.chat if known else None), pairs)
    manifest = planned.folder.manifest or ExportManifest(prompts="chat" if planned.tokenizer.chat_template else "plain")
    found = model_of_export(model.network, planned.tokenizer, stops_of(planned), manifest, model.generation_config)
    return found if planned.folder.manifest else replace(found, stop=ends_of_answers(found, source, found.stop))


def _check_nothing_was_added(folder: Path, listed: Mapping[str, Any]) -> None:
    """Refuses what would be loaded of a run, and is not what its training left.

    Raises:
        FolderError: There is such a file.
    """
    check_none_beside(folder, listed.keys(), "tokenizer")
    if VOCABULARY not in listed and (folder / VOCABULARY).exists():
        raise FolderError(
            f"the file {VOCABULARY} is none of the run's: its manifest does not list it",
            where=str(folder),
            hint="Take it out: it would change what is loaded.",
        )


def _ours(folder: Path, export: ExportManifest | None, needed: tuple[str, ...]) -> ExportManifest:
    """Refuses an export that graftkit did not write, or whose manifest lacks something."""
    if export is None:
        hint = "Give its adapter/ with --base, and its base/."
        raise FolderError("graftkit did not write this base with an adapter beside it", where=str(folder), hint=hint)
    export.require(folder, needed)
    if len(set(export.targets)) < len(export.targets):
        raise FolderError("it is damaged: 'targets' names a layer twice", where=str(folder / EXPORT_MANIFEST))
    return export


def export_around(path: Path) -> Path:
    """Returns the export that a file is all the weights of, such as a GGUF export's; the path itself where none is."""
    return path.parent if path.is_file() and (path.parent / EXPORT_MANIFEST).is_file() else path


def unfinished(source: Path) -> list[str]:
    """Returns what nothing vouches for in what a model is loaded from: a run that has not ended, an unproved export.

    Raises:
        FolderError: A manifest is damaged.
    """
    folder = export_around(source)
    run = RunManifest.read(folder)
    if run is not None:
        return [] if run.status == "finished" else [f"{folder}: the run has not finished (it is {run.status})"]
    told = ExportManifest.read(folder, ()).unproved if (folder / EXPORT_MANIFEST).is_file() else ""
    return [f"{folder}: {told}. `toolkit verify {shlex.quote(str(folder))}` proves it"] if told else []
