"""Loads what a run left, to try it."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from graftkit.errors import FolderError, GraftkitError, ModelError, RequestError, named
from graftkit.flow.answering.adapter_model import load_adapted, stops_of
from graftkit.flow.answering.plan_adapter import TokenizerOf, plan_adapter
from graftkit.flow.answering.plugins_of_run import plugins_of_run
from graftkit.flow.answering.reloaded_head import HeadModel
from graftkit.flow.answering.reloaded_model import ReloadedModel, Reply
from graftkit.flow.base_files.base_facts import base_facts, check_unchanged
from graftkit.flow.base_files.generation_settings import generation_config, stop_tokens
from graftkit.flow.base_files.open_model import load_tokenizer, open_model, open_named_base
from graftkit.flow.base_files.recreate import InstalledProviders, MakeProvider
from graftkit.flow.folders.adapter_folder import is_adapter_folder, read_adapter_folder
from graftkit.flow.folders.export_manifest import (
    EXPORT_MANIFEST,
    TO_LOAD,
    TO_REBUILD,
    ExportManifest,
    check_all_listed,
    check_listed,
    check_none_beside,
    check_tensor_header,
    listed_by_the_run,
    refuse_bad_files,
    refuse_foreign_code,
)
from graftkit.flow.folders.vocabulary_file import VOCABULARY, read_change
from graftkit.flow.planning.head import refuse_head, with_facts
from graftkit.flow.planning.place_adapter import check_layers, saved_names, state_from_peft
from graftkit.flow.preparation.check_model import pick_device
from graftkit.flow.preparation.new_rows import changed_config
from graftkit.flow.records.chat import options_of
from graftkit.host.host import PluginHost
from graftkit.interfaces.architecture import head_of
from graftkit.interfaces.bounded_json import parse_json
from graftkit.interfaces.model_source import BaseModelFiles
from graftkit.interfaces.offline import this_machine_alone
from graftkit.interfaces.peft_config import read_adapter_config
from graftkit.interfaces.quantizer import Quantizer
from graftkit.interfaces.regular_file import read_regular
from graftkit.interfaces.tokenizer import Tokenizer
from graftkit.interfaces.vocabulary import VocabularyChange
from graftkit.model.adapt import AdaptedModel, adapt
from graftkit.model.grow import MakeRows, grow
from graftkit.model.head import is_of_head
from graftkit.model.load import load_base_model, plan_base_model
from graftkit.model.originals import FileOriginals
from graftkit.model.outer_layers import ties_output, untie
from graftkit.model.whole import outer_names, put_whole
from graftkit.model.whole_transformers import import_transformers
from graftkit.report.run_manifest import BaseFacts, HeadFacts, RunManifest, required

__all__ = [
    "AdapterBase",
    "ReloadedModel",
    "Reply",
    "read_adapter",
    "reload",
    "reload_any",
    "reload_base",
    "unfinished",
]

_LOADED_OF_A_RUN = ("adapter/", "tokenizer/", VOCABULARY)
"""What the paths of those of a run's files start with that are loaded."""

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
"""What a manifest may name: never any other attribute of torch."""

_ADAPTER_AGAIN = "Put the file back; a run that has not finished writes it again with --resume."


@dataclass(frozen=True, slots=True)
class _Whole:
    """Whole parameters that were trained beside an adapter, by name, and whether two of them are one tied matrix."""

    names: Sequence[str] = ()
    tied: bool = False


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
    found = _loaded(source, host, on, heads=False)
    assert isinstance(found, ReloadedModel)
    return found


def reload_any(
    source: str | os.PathLike[str], host: PluginHost | None = None, on: AdapterBase | None = None
) -> ReloadedModel | HeadModel:
    """Loads what `reload` does, and models with a head: classifiers, reward models, encoders that fill in tokens.

    Args:
        source: As for `reload`.
        host: As for `reload`.
        on: As for `reload`; an adapter of a model with a head is loaded with its run or export alone.

    Raises:
        RequestError: As for `reload`.
    """
    return _loaded(source, host, on, heads=True)


def _loaded(
    source: str | os.PathLike[str], host: PluginHost | None, on: AdapterBase | None, *, heads: bool
) -> ReloadedModel | HeadModel:
    """Loads what a source names; what has a head is refused unless `heads` says otherwise."""
    import_transformers()
    source, host = os.fspath(source), host or plugins_of_run(source)
    try:
        with named(source):
            if on is not None:
                return _adapter_on(source, host, on, heads=heads)
            return _reload(source, host, InstalledProviders(host).make, heads=heads)
    except GraftkitError:
        raise
    except (OSError, LookupError, TypeError, ValueError, AttributeError, RuntimeError, SafetensorError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise FolderError(f"its files are incomplete or damaged: {reason}", where=source) from error


_NO_ANSWERS = "only language models write answers"


def _refuse_head(head: HeadFacts | None, folder: Path) -> None:
    """Refuses what has another head than a language model's.

    Raises:
        FolderError: It has.
    """
    if head is not None:
        does = "fills in masked tokens" if head.kind == "masked" else "scores whole sequences"
        raise FolderError(
            f"it {does}, and writes no answers",
            where=str(folder),
            hint="`toolkit generate` says what it says of a text.",
        )


def _export_around(path: Path) -> Path:
    """Returns the export that a file is all the weights of, such as a GGUF export's; the path itself where none is."""
    return path.parent if path.is_file() and (path.parent / EXPORT_MANIFEST).is_file() else path


def unfinished(source: Path) -> list[str]:
    """Returns what nothing vouches for in what a model is loaded from: a run that has not ended, an unproved export.

    Raises:
        FolderError: A manifest is damaged.
    """
    folder = _export_around(source)
    run = RunManifest.read(folder)
    if run is not None:
        return [] if run.status == "finished" else [f"{folder}: the run has not finished (it is {run.status})"]
    told = ExportManifest.read(folder, ()).unproved if (folder / EXPORT_MANIFEST).is_file() else ""
    return [f"{folder}: {told}. `toolkit verify {shlex.quote(str(folder))}` proves it"] if told else []


def _reload(source: str, host: PluginHost, make: MakeProvider, *, heads: bool) -> ReloadedModel | HeadModel:
    folder = _export_around(Path(source))
    manifest = RunManifest.read(folder)
    if manifest is not None:
        check_listed(folder, manifest.artifacts, _LOADED_OF_A_RUN)
        if manifest.artifacts:  # which are listed once the run has finished
            _check_nothing_was_added(folder, manifest.artifacts)
        with this_machine_alone():
            return _run(folder, manifest, make, heads=heads)
    export = ExportManifest.read(folder, ("files",)) if (folder / EXPORT_MANIFEST).is_file() else None
    if export is not None:
        refuse_foreign_code(folder)
        refuse_bad_files(folder)
        check_all_listed(folder, export)
    check_listed(folder, listed_by_the_run(folder))
    if (folder / "adapter_config.json").is_file() and export is None:
        return _adapter_on(source, host, AdapterBase(), heads=heads)
    if (folder / "adapter_config.json").is_file():
        with this_machine_alone():
            return _peft(folder, _ours(folder, export, (*TO_LOAD, *TO_REBUILD)), make, heads=heads)
    if (folder / "adapter" / "adapter_config.json").is_file() and (folder / "base").is_dir():
        return _extended_base(folder, _ours(folder, export, TO_LOAD), host, make)
    if export is not None and not (folder / "config.json").is_file() and not _file_in(folder):
        raise FolderError(
            f"an export of '{export.exporter.get('name')}' can't be tried by graftkit itself",
            where=source,
            hint="Try the run that it is of, or load it with the program that it is for.",
        )
    _, files = open_model(host, _file_in(folder) or (str(folder) if export else source))
    if heads and head_of(files.config) != "language":
        return _opened_head(files, export or ExportManifest(), host)
    return _opened(files, str(folder) if export else source, export or ExportManifest(), host)


def _opened_head(files: BaseModelFiles, manifest: ExportManifest, host: PluginHost) -> HeadModel:
    """Loads a model with a head whose headers have been read.

    Raises:
        ModelError: Its files lack the head, as those of a base model do.
    """
    new = plan_base_model(files).new
    if new:
        raise ModelError(f"its files lack the head ({new[0]}), which must be trained first", where=files.reference)
    backend = host.registry.create(host.registry.resolve("tokenizer", files.tokenizer_backend))
    tokenizer = load_tokenizer(files, backend)
    network = load_base_model(files, _dense(host), device=pick_device("auto"))
    return HeadModel(network, tokenizer, options_of(manifest.chat))


def _adapter_on(source: str, host: PluginHost, on: AdapterBase, *, heads: bool) -> ReloadedModel | HeadModel:
    """Loads an adapter in PEFT's format on a base model, as `toolkit export` does."""
    planned = plan_adapter(Path(source), host, base=on.base, quantizer=on.quantizer, tokenizer=on.tokenizer)
    if not heads:
        _refuse_head(planned.head, Path(source))
    targets = check_layers(planned.folder, plan_base_model(planned.files))
    model, _ = load_adapted(planned, targets, pick_device("auto"))
    if planned.head:
        known = planned.folder.manifest
        return HeadModel(model.network, planned.tokenizer, options_of(known.chat if known else None))
    manifest = planned.folder.manifest or ExportManifest(prompts="chat" if planned.tokenizer.chat_template else "plain")
    found = _of_export(model.network, planned.tokenizer, stops_of(planned), manifest, model.generation_config)
    return found if planned.folder.manifest else replace(found, stop=_ends(found, source, found.stop))


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


def _adapter_facts(path: Path) -> dict[str, Any]:
    """Reads what a run says of its adapter.

    Raises:
        FolderError: It is missing or damaged.
    """
    try:
        data = parse_json(read_regular(path))
    except FileNotFoundError:
        raise FolderError("it is missing", where=str(path), hint=_ADAPTER_AGAIN) from None
    except (OSError, ValueError) as error:
        raise FolderError(f"it is damaged: it is no JSON: {error}", where=str(path), hint=_ADAPTER_AGAIN) from None
    facts = data if isinstance(data, dict) else {}
    for key, kind in (("targets", list), ("tokenizer_fingerprint", str)):
        if not isinstance(facts.get(key), kind):
            raise FolderError(f"it is damaged: it does not say '{key}'", where=str(path), hint=_ADAPTER_AGAIN)
    return facts


def _whole_of_run(facts: Mapping[str, Any], folder: Path) -> _Whole:
    """Returns what a run's adapter.json says of whole parameters."""
    names = facts.get("saved_modules", [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        where = str(folder / "adapter" / "adapter.json")
        raise FolderError("it is damaged: 'saved_modules' is no list of names", where=where, hint=_ADAPTER_AGAIN)
    return _Whole(names, facts.get("ties_saved") is True)


def _tensors(path: Path) -> dict[str, torch.Tensor]:
    """Reads an adapter's tensors.

    Raises:
        FolderError: They are missing or damaged.
    """
    from safetensors.torch import load_file

    if not path.is_file():
        what = "this is no regular file" if path.exists() else "it is missing"
        raise FolderError(what, where=str(path), hint=_ADAPTER_AGAIN)
    try:
        check_tensor_header(path)
        state: dict[str, torch.Tensor] = load_file(path)
    except (OSError, ValueError, SafetensorError) as error:
        raise FolderError(f"it is damaged: {error}", where=str(path), hint=_ADAPTER_AGAIN) from None
    return state


def read_adapter(folder: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Returns what a run says of its adapter, and the adapter's tensors.

    Raises:
        FolderError: They are missing or damaged.
    """
    return _adapter_facts(folder / "adapter" / "adapter.json"), _tensors(folder / "adapter" / "adapter.safetensors")


def _run(folder: Path, manifest: RunManifest, make: MakeProvider, *, heads: bool) -> ReloadedModel | HeadModel:
    if not (folder / "adapter").is_dir():
        raise FolderError(
            f"the run has no adapter yet (it is {manifest.status})",
            where=str(folder),
            hint="Run it again.",
        )
    facts, state = read_adapter(folder)
    if not heads:
        _refuse_head(manifest.head, folder)
    providers, where = manifest.providers, str(folder)
    model, data = required(manifest.model, "model", where), required(manifest.data, "data", where)
    tokenizer = make("tokenizer", providers["tokenizer"]).load(folder / "tokenizer")
    _check_tokenizer(tokenizer, facts["tokenizer_fingerprint"], folder / "tokenizer")
    dtype = _DTYPES[manifest.recipe["training"]["dtype"]]
    change = read_change(folder)
    seed = manifest.recipe["training"]["seed"]
    whole = _whole_of_run(facts, folder)
    network, settings = _adapted(
        providers, model, facts["targets"], tokenizer, state, dtype, make, change, whole, seed, manifest.head
    )
    chat = options_of(data.chat)
    if manifest.head:
        return HeadModel(network, tokenizer, chat)
    stop = manifest.stop_tokens
    return ReloadedModel(network, tokenizer, stop, data.system, data.tools, chat, data.prompts, settings)


def _peft(folder: Path, manifest: ExportManifest, make: MakeProvider, *, heads: bool) -> ReloadedModel | HeadModel:
    """Loads an export in PEFT's format on the base that it was trained on."""
    if not heads:
        _refuse_head(manifest.head, folder)
    tensors, layouts = _tensors(folder / "adapter_model.safetensors"), manifest.expert_layouts()
    saved = saved_names(tensors, manifest.targets, layouts)
    state = state_from_peft(tensors, make("adapter", manifest.adapter), manifest.targets, layouts, saved)
    tokenizer = make("tokenizer", manifest.tokenizer).load(folder)
    _check_tokenizer(tokenizer, manifest.tokenizer_fingerprint, folder)
    dtype = _DTYPES[manifest.dtype]
    change = read_change(folder)
    providers = {"model_source": manifest.model_source, "quantizer": manifest.quantizer, "adapter": manifest.adapter}
    whole = _Whole(saved)
    network, settings = _adapted(
        providers, manifest.model, manifest.targets, tokenizer, state, dtype, make, change, whole, head=manifest.head
    )
    if manifest.head:
        return HeadModel(network, tokenizer, options_of(manifest.chat))
    return _of_export(network, tokenizer, manifest.stop_tokens, manifest, settings)


def _extended_base(folder: Path, manifest: ExportManifest, host: PluginHost, make: MakeProvider) -> ReloadedModel:
    """Loads a base that has the new vocabulary, and the plain adapter beside it."""
    _, files = open_model(host, str(folder / "base"))
    tokenizer = make("tokenizer", manifest.tokenizer).load(folder / "base")
    _check_tokenizer(tokenizer, manifest.tokenizer_fingerprint, folder / "base")
    device, quantizer = pick_device("auto"), _dense(host)
    network = load_base_model(files, quantizer, device=device)
    adapter = make("adapter", manifest.adapter)
    tensors = _tensors(folder / "adapter" / "adapter_model.safetensors")
    state = state_from_peft(tensors, adapter, manifest.targets, manifest.expert_layouts())
    originals = FileOriginals(files, quantizer, device, torch.float32)
    adapted = adapt(network, adapter, manifest.targets, seed=0, originals=originals)
    AdaptedModel(network, files.reference, files.config, tokenizer, adapter, adapted).load_adapter_state(state)
    return _of_export(network, tokenizer, manifest.stop_tokens, manifest, generation_config(files, None, tokenizer, ()))


def _of_export(
    network: Any, tokenizer: Tokenizer, stop: Sequence[int], manifest: ExportManifest, settings: Mapping[str, Any]
) -> ReloadedModel:
    chat = options_of(manifest.chat)
    return ReloadedModel(network, tokenizer, stop, manifest.system, manifest.tools, chat, manifest.prompts, settings)


def _dense(host: PluginHost) -> Quantizer:
    found: Quantizer = host.registry.create(host.registry.resolve("quantizer", "none"))
    return found


def _adapted(
    providers: Mapping[str, Any],
    base: BaseFacts,
    targets: Sequence[str],
    tokenizer: Tokenizer,
    state: Mapping[str, torch.Tensor],
    dtype: torch.dtype,
    make: MakeProvider,
    change: VocabularyChange | None,
    whole: _Whole,
    seed: int = 0,
    head: HeadFacts | None = None,
) -> tuple[Any, Mapping[str, Any]]:
    """Returns the model, and the generation settings of its base."""
    files = with_facts(open_named_base(make, providers["model_source"], base.reference), head)
    check_unchanged(base, base_facts(files))
    quantizer = make("quantizer", providers["quantizer"])
    device = pick_device("auto")
    network = load_base_model(files, quantizer, device=device, dtype=dtype)
    adapter = make("adapter", providers["adapter"])
    outer = outer_names(network) if change and ties_output(network) else None
    if outer and f"{outer[1].removesuffix('.weight')}.new_rows" in state:
        untie(network)
    grown = grow(network, change, _empty_rows(change), files.reference) if change else None
    of_head = plan_base_model(files).head if head else ()
    whole = replace(whole, names=[name for name in whole.names if not is_of_head(name, of_head)])
    _put_whole(network, whole)
    originals = FileOriginals(files, quantizer, device, dtype)
    adapted = adapt(network, adapter, targets, seed=seed, originals=originals)
    config = changed_config(files.config, change, tokenizer)
    model = AdaptedModel(
        network,
        files.reference,
        config,
        tokenizer,
        adapter,
        adapted,
        grown,
        head=of_head,
        saved_modules=whole.names,
    )
    model.load_adapter_state(state)
    return network, generation_config(files, change, tokenizer, ())


def _put_whole(network: Any, whole: _Whole) -> None:
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


def _model(source: str, manifest: ExportManifest, host: PluginHost) -> ReloadedModel:
    """Loads a base model or an export of a whole model, unquantized."""
    _, files = open_model(host, _file_in(Path(source)) or source)
    return _opened(files, source, manifest, host)


def _opened(files: BaseModelFiles, source: str, manifest: ExportManifest, host: PluginHost) -> ReloadedModel:
    """Loads a model whose headers have been read, as `_model` does."""
    refuse_head(files.config, files.reference, _NO_ANSWERS)
    backend = host.registry.create(host.registry.resolve("tokenizer", files.tokenizer_backend))
    tokenizer = load_tokenizer(files, backend)
    network = load_base_model(files, _dense(host), device=pick_device("auto"))
    settings = generation_config(files, None, tokenizer, ())
    found = _of_export(network, tokenizer, manifest.stop_tokens, manifest, settings)
    return found if found.stop else replace(found, stop=_ends(found, source, stop_tokens(files, None, tokenizer, ())))


def _ends(found: ReloadedModel, source: str, known: Sequence[int]) -> list[int]:
    """Returns the tokens at which an answer ends: those that are known, and the one that ends a turn.

    Raises:
        ModelError: There is none.
    """
    stop = sorted({*known, *found.turn_stops})
    if not stop:
        raise ModelError("nothing says at which token an answer ends", where=source)
    return stop


def _file_in(folder: Path) -> str | None:
    """Returns the one GGUF file that a folder without a config.json holds, as exports are that are one file.

    That of an adapter, adapter.gguf, is none that can be loaded alone.
    """
    there = [] if (folder / "config.json").exists() else sorted(folder.glob("*.gguf"))
    found = [path for path in there if path.name != "adapter.gguf"]
    return str(found[0]) if len(found) == 1 else None


def reload_base(source: str, tuned: ReloadedModel, host: PluginHost, on: AdapterBase | None = None) -> ReloadedModel:
    """Returns the base model of a run, of an export, or of an adapter, to be asked as the tuned one is.

    Where the vocabulary is the base model's and the adapter stands beside its weights, it is the same model without the
    adapter: no weight is loaded twice. Else it is loaded as its files have it.

    Args:
        source: What `tuned` was loaded from.
        tuned: The model that `reload` gave.
        host: The plugins.
        on: What an adapter was loaded on.

    Raises:
        RequestError: Nothing says what the base model was, or it is not there any more, or is another one.
    """
    folder = _export_around(Path(source))
    if on is not None or (is_adapter_folder(folder) and not (folder / EXPORT_MANIFEST).is_file()):
        return _base_of_adapter(folder, tuned, host, (on or AdapterBase()).base)
    run = RunManifest.read(folder)
    export = ExportManifest.read(folder, ("model",)) if not run and (folder / EXPORT_MANIFEST).is_file() else None
    if run is None and export is None:
        raise RequestError(
            "nothing says what it was trained from", where=source, hint="Compare a run, or an export of a run."
        )
    beside = run is not None or (folder / "adapter_config.json").is_file()
    if beside and not (folder / VOCABULARY).is_file() and not _holds_whole(folder, run):
        return replace(tuned, adapted=False)
    model = required(run.model, "model", source) if run else export.model  # type: ignore[union-attr]
    with this_machine_alone(), named(model.reference):
        _, files = open_model(host, model.reference)
        check_unchanged(model, base_facts(files))
        base = _opened(files, model.reference, ExportManifest(), host)
    return _asked_as(tuned, base)


def _holds_whole(folder: Path, run: RunManifest | None) -> bool:
    """Tells whether there are whole parameters beside an adapter, so that the model without it is another one."""
    if run is not None:
        return bool(_whole_of_run(_adapter_facts(folder / "adapter" / "adapter.json"), folder).names)
    return bool(read_adapter_config(folder).get("modules_to_save"))


def _base_of_adapter(folder: Path, tuned: ReloadedModel, host: PluginHost, base: str | None) -> ReloadedModel:
    """Returns the base model of an adapter: without it the same model, unless it has rows or whole modules, too."""
    adapter = read_adapter_folder(folder, host)
    if not adapter.rows and not adapter.saved:
        return replace(tuned, adapted=False)
    reference = base or adapter.base
    if reference is None:
        raise RequestError("nothing says what it was trained from", where=str(folder), hint="Name it: --base FOLDER.")
    with this_machine_alone() if base is None else nullcontext(), named(reference):
        return _asked_as(tuned, _model(reference, ExportManifest(), host))


def _asked_as(tuned: ReloadedModel, base: ReloadedModel) -> ReloadedModel:
    """Returns a base model that is asked as the tuned one is."""
    template = tuned.tokenizer.chat_template
    tokenizer = base.tokenizer if template is None else base.tokenizer.with_chat_template(template)
    return replace(
        base, tokenizer=tokenizer, system=tuned.system, tools=tuned.tools, chat=tuned.chat, prompts=tuned.prompts
    )
