"""Loads what a model was trained from, to be asked as that is."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

from graftkit.errors import RequestError, named
from graftkit.flow.answering.reload import AdapterBase, export_around
from graftkit.flow.answering.reloaded_model import ReloadedModel
from graftkit.flow.answering.whole_model import opened_model, whole_model
from graftkit.flow.base_files.base_facts import base_facts, check_unchanged
from graftkit.flow.base_files.open_model import open_model
from graftkit.flow.folders.adapter_folder import is_adapter_folder, read_adapter_folder
from graftkit.flow.folders.export_manifest import EXPORT_MANIFEST, ExportManifest
from graftkit.flow.folders.run_adapter import adapter_facts, whole_of_run
from graftkit.flow.folders.vocabulary_file import VOCABULARY
from graftkit.flow.planning.head import with_facts
from graftkit.host.host import PluginHost
from graftkit.interfaces.offline import this_machine_alone
from graftkit.interfaces.peft_config import read_adapter_config
from graftkit.report.run_manifest import RunManifest, required

__all__ = ["reload_base"]


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
    folder = export_around(Path(source))
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
        base = opened_model(with_facts(files, None), model.reference, ExportManifest(), host)
    return _asked_as(tuned, base)


def _holds_whole(folder: Path, run: RunManifest | None) -> bool:
    """Tells whether there are whole parameters beside an adapter, so that the model without it is another one."""
    if run is not None:
        return bool(whole_of_run(adapter_facts(folder / "adapter" / "adapter.json"), folder).names)
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
        return _asked_as(tuned, whole_model(reference, ExportManifest(), host))


def _asked_as(tuned: ReloadedModel, base: ReloadedModel) -> ReloadedModel:
    """Returns a base model that is asked as the tuned one is."""
    template = tuned.tokenizer.chat_template
    tokenizer = base.tokenizer if template is None else base.tokenizer.with_chat_template(template)
    return replace(
        base, tokenizer=tokenizer, system=tuned.system, tools=tuned.tools, chat=tuned.chat, prompts=tuned.prompts
    )
