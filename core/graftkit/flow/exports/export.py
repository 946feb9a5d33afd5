"""Writes the exports, then has each proved: loaded by the program it is meant for, in a process of its own."""

from __future__ import annotations

import glob
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch

from graftkit._version import __version__
from graftkit.errors import ExportError, FolderError, GraftkitError, RecipeError
from graftkit.flow.base_files.base_facts import check_as_opened
from graftkit.flow.base_files.generation_settings import generation_config, stop_tokens
from graftkit.flow.base_files.recreate import plugin_of
from graftkit.flow.base_files.towers import check_towers
from graftkit.flow.exports.assets import ExpectedAssets, expected_assets
from graftkit.flow.exports.left_alone import files_left_alone, model_left_alone
from graftkit.flow.exports.merge import MergeRequest, holdout_sample, merge_refusal, settle_merge
from graftkit.flow.exports.model_card import write_model_card
from graftkit.flow.exports.probes import PROBES_FILE, Probes, make_probes
from graftkit.flow.exports.proof_forks import FORKS, ProofForks
from graftkit.flow.exports.prove import TRUSTED, prefix_of_proof
from graftkit.flow.exports.rounding import quantizes
from graftkit.flow.exports.weight_sketch import sketches_of
from graftkit.flow.folders.export_manifest import (
    EXPORT_MANIFEST,
    FORMAT,
    NOT_YET_PROVED,
    OF_THE_MANIFEST,
    PUT_OFF,
    ExportManifest,
    checked_tolerance,
    drop_foreign_code,
)
from graftkit.flow.folders.vocabulary_file import VOCABULARY
from graftkit.flow.memory.free_memory import free_memory, memory_of
from graftkit.flow.memory.memory_back import give_memory_back
from graftkit.flow.planning.run_plan import RunPlan
from graftkit.flow.planning.vocabulary import Vocabulary, sample_texts
from graftkit.flow.preparation.base_model import LoadedModel
from graftkit.flow.preparation.corpus import Corpus
from graftkit.flow.preparation.new_rows import changed_config
from graftkit.flow.records.chat import chat_options
from graftkit.flow.state.context import RunContext, StageScope
from graftkit.host.discovery import disabled_by_environment
from graftkit.host.guard import note_once
from graftkit.host.host import PluginHost
from graftkit.host.lifecycle import ExportInfo
from graftkit.host.records import BUILT_IN, MOST_NOTICES, shortened
from graftkit.interfaces.adapter import Adapter
from graftkit.interfaces.architecture import Head
from graftkit.interfaces.exporter import Exporter, MergingExporter, NoticesExporter, PlannedModel
from graftkit.interfaces.file_state import FileState
from graftkit.interfaces.quantizer import Quantizer
from graftkit.interfaces.tokenizer import Tokenizer
from graftkit.interfaces.vocabulary import VocabularyChange
from graftkit.model.adapt import AdaptedModel
from graftkit.model.skeleton import build_config
from graftkit.recipe.bind import Choice
from graftkit.recipe.schema import ExportSection
from graftkit.redact import without_secrets
from graftkit.report.model_card import CARD
from graftkit.report.run_manifest import RunManifest
from graftkit.store.file_states import changed_files, file_states
from graftkit.store.files import (
    TEMPORARY,
    atomic_folder,
    file_facts,
    guarded,
    is_temporary,
    make_folder,
    replace_folder,
    sha256_of,
    sweep_of,
)

__all__ = [
    "Planned",
    "export_all",
    "forks_for",
    "make_exporters",
    "notices_of",
    "prove",
    "prove_and_tell",
    "prove_exports",
    "put_off",
    "refuse_early",
    "refuse_merges",
    "sketches_for",
    "write_export",
]

_SECONDS, _BYTES_A_SECOND = 1800, 2_000_000
"""How long a proof may take: half an hour, and a second for each two megabytes to load."""

_SHARE_OF_FREE = 0.9
"""How much of the memory that is free may be taken by the proof of an export that this run has not written."""


def export_all(run: RunContext, loaded: LoadedModel, corpus: Corpus, exporters: Mapping[str, Exporter]) -> None:
    """Writes `exports/NAME/` for each entry of the recipe, and before that what they are going to be proved with.

    Raises:
        ExportError: An export failed.
        ModelError: The base model's files are not those that were opened.
    """
    if not run.plan.bound.exports:
        return
    check_as_opened(run.plan.files)
    trained: int = run.manifest.training["tokens"]
    probes = make_probes(loaded, corpus, trained)
    probes = replace(probes, assets=_assets(run, loaded), sketches=sketches_for(exporters.values(), loaded.model))
    probes.save(run.folder / PROBES_FILE)
    with guarded(run.folder / "exports"):
        make_folder(run.folder / "exports")
    for use, choice in _to_write(run):
        with run.stage(f"export {use.folder}") as stage:
            exporter = exporters[use.folder]
            told = notices_of(exporter, loaded.model)
            for text in told:
                stage.notice(f"the export {use.folder}: {text}")
            request = _merge_request(run, corpus, probes, stage)
            _write(run, loaded, exporter, choice, _place(run, use.folder), use.folder, request)
            stage.facts |= {"folder": str(run.folder / "exports" / use.folder), **({"notices": told} if told else {})}


def sketches_for(exporters: Iterable[Exporter], model: AdaptedModel) -> dict[str, torch.Tensor]:
    """Returns sketches of the trained weights where an export is quantized, which is compared with them."""
    if not any(map(quantizes, exporters)):
        return {}
    found = sketches_of(model.merged_tensors())
    # A format that ties no output layer to the embedding holds the matrix twice.
    network: Any = model.network
    names = {id(module): f"{path}.weight" for path, module in network.named_modules()}
    outer = (network.get_input_embeddings(), network.get_output_embeddings())
    embedding, output = (names.get(id(module), "") for module in outer)
    twice = embedding in found and output not in found
    return found | ({output: found[embedding].clone()} if twice and output else {})


def _to_write(run: RunContext) -> list[tuple[ExportSection, Choice]]:
    """Returns the recipe's exports but those that a finished run has, proved, where nothing was trained since."""
    before = run.resumed.manifest if run.resumed else None
    if not before or before.recipe.get("training") != run.manifest.recipe.get("training"):
        return list(run.plan.bound.exports)
    asked = run.manifest.recipe["export"]
    there = [entry for entry in before.recipe.get("export") or [] if before.status == "finished"]
    later = run.plan.bound.recipe.proof == "later"
    unproved = set(before.unproved) - (set(before.put_off) if later else set())
    return [
        pair
        for pair, entry in zip(run.plan.bound.exports, asked, strict=True)
        if entry not in there or pair[0].folder not in before.exports or pair[0].folder in unproved
    ]


def _place(run: RunContext, name: str) -> Path:
    """Returns where an export is written: beside one that was proved before, until it is itself."""
    folder = run.folder / "exports" / name
    proved = run.resumed is not None and bool(run.manifest.continued) and name in run.resumed.manifest.exports
    return folder.with_name(f".{name}.replaced.partial") if proved and folder.exists() else folder


def prove_exports(run: RunContext) -> None:
    """Has each export of the recipe proved, once nothing holds the trained model any more, or says that it isn't.

    Raises:
        ExportError: An export computes something else than what was trained, or loads something else beside it.
    """
    if not run.plan.bound.exports:
        return
    give_memory_back()
    if not run.manifest.continued:
        run.record(exports={})
    proved: dict[str, dict[str, Any]] = {}
    later = run.plan.bound.recipe.proof == "later"
    exporters = {
        use.folder: run.host.registry.create(choice.registered, choice.config) for use, choice in _to_write(run)
    }
    with forks_for([] if later else list(exporters.values()), run.host.disabled) as forks:
        for use, _ in _to_write(run):
            place, exporter = _place(run, use.folder), exporters[use.folder]
            if later:
                proved[use.folder] = _finish_export(run, exporter, use.folder, place, put_off(place))
            else:
                with run.stage(f"proof of {use.folder}") as stage:
                    found = _finish_export(run, exporter, use.folder, place, _proved(run, stage, place, forks))
                    stage.facts |= found
                    proved[use.folder] = found
            if not run.manifest.continued:
                _tell_of_export(run, use)
    if run.manifest.continued:
        _put_in_place(run, proved)
        for use, _ in _to_write(run):
            _tell_of_export(run, use)


def put_off(folder: Path) -> dict[str, Any]:
    """Says in an export's manifest that it is going to be proved later, and returns that as its proof."""
    _keep_proof(folder, PUT_OFF)
    return dict(PUT_OFF)


def _finish_export(
    run: RunContext, exporter: Exporter, name: str, place: Path, proof: Mapping[str, Any]
) -> dict[str, Any]:
    """Writes the card of an export, and returns what the run's manifest says of the export, which it does by then."""
    merge = ExportManifest.read(place, ()).merge
    facts = {"folder": str(run.folder / "exports" / name), "proof": dict(proof)}
    facts |= {"merge": merge.model_dump(mode="json", exclude_unset=True)} if merge else {}
    write_model_card(run, exporter, name, place, proof, merge)
    if not run.manifest.continued:
        run.record(exports={**run.manifest.exports, name: facts})
    return facts


def _tell_of_export(run: RunContext, use: ExportSection) -> None:
    facts = run.manifest.exports[use.folder]
    told = ExportInfo(use.folder, use.use, run.folder / "exports" / use.folder, facts.proof)
    run.broadcast("graftkit_export_finished", export=told)


def _put_in_place(run: RunContext, proved: Mapping[str, Mapping[str, Any]]) -> None:
    """Replaces the exports of the run that had finished by the new ones, all of which are proved."""
    for name in proved:
        folder, new = run.folder / "exports" / name, _place(run, name)
        if new != folder:
            replace_folder(folder, new, keep=run.theirs(f"exports/{name}"))
    asked = [use.folder for use, _ in run.plan.bound.exports]
    old = sorted(run.manifest.exports.keys() - set(asked))
    if old:
        run.notice(
            "export", f"exports/{', exports/'.join(old)}: not among the recipe's exports any more, left as before"
        )
    found = {**run.manifest.exports, **proved}
    run.record(exports={name: found[name] for name in asked})


def _assets(run: RunContext, loaded: LoadedModel) -> ExpectedAssets:
    """Asks the run's own tokenizer and settings for what every export must load besides its weights."""
    return expected_assets(
        run.vocabulary.tokenizer,
        sample_texts(run.plan.samples.train),
        today=run.plan.today,
        options=chat_options(run.plan.bound),
        generation=loaded.model.generation_config,
        stop_tokens=run.manifest.stop_tokens,
        saved=run.folder / "tokenizer",
        config=build_config(loaded.model.config),
        asked=ExportManifest(**_asked(run.manifest)).asked,
    )


def _asked(said: RunManifest) -> dict[str, Any]:
    """Returns what exports' manifests say of how the model is asked."""
    if said.data is None:
        return {"chat": None, "prompts": "chat", "system": None, "tools": []}
    return {"chat": said.data.chat, "prompts": said.data.prompts, "system": said.data.system, "tools": said.data.tools}


def make_exporters(plan: RunPlan, host: PluginHost) -> dict[str, Exporter]:
    """Makes every exporter that the recipe names, by its folder."""
    return {use.folder: host.registry.create(choice.registered, choice.config) for use, choice in plan.bound.exports}


@dataclass(frozen=True, slots=True)
class Planned:
    """What exporters are asked about, before there is a model: see `graftkit.PlannedModel`."""

    config: Mapping[str, Any]
    reference: str
    tokenizer: Tokenizer
    change: VocabularyChange | None
    adapter: Adapter
    targets: Sequence[str]
    expert_targets: Sequence[str] = ()
    unties: bool = False
    saved_modules: Sequence[str] = ()
    generation_config: Mapping[str, Any] = field(default_factory=dict)


def refuse_early(
    plan: RunPlan,
    vocabulary: Vocabulary,
    host: PluginHost,
    exporters: Mapping[str, Exporter],
    notice: Callable[[str], object],
) -> None:
    """Asks each exporter whether it can write what the run is going to train, before a weight is loaded.

    Args:
        plan: The run's plan.
        vocabulary: Its vocabulary.
        host: What makes the adapter.
        exporters: The exporters by their folders.
        notice: Called with what they tell of the form that they have.

    Raises:
        RecipeError: One can't.
    """
    bound, files = plan.bound, plan.files
    _refuse_nameless(plan)
    adapter: Adapter = host.registry.create(bound.adapter.registered, bound.adapter.config)
    config = changed_config(files.config, vocabulary.change, vocabulary.tokenizer)
    targets, experts, quantizer = plan.targets, plan.expert_targets, _quantizer(plan, host)
    reference, tokenizer, change = files.reference, vocabulary.tokenizer, vocabulary.change
    stop = stop_tokens(files, change, tokenizer, ())
    generation = {} if plan.head else generation_config(files, change, tokenizer, stop)
    for place, (name, exporter) in enumerate(exporters.items()):
        planned = Planned(
            deepcopy(config),
            reference,
            tokenizer,
            change,
            adapter,
            list(targets),
            list(experts),
            plan.unties,
            list(plan.origin.saved) if plan.origin else (),
            generation_config=deepcopy(generation),
        )
        what = f"the objective {bound.objective.use} trains a model with another head"
        reason = head_refusal(exporter, bound.objective_config.head, what) or exporter.refusal(planned)
        _refuse(plan, place, name, reason or merge_refusal(exporter, files, quantizer))
        for text in notices_of(exporter, planned):
            notice(f"the export {name}: {text}")


def _refuse_nameless(plan: RunPlan) -> None:
    """Refuses to put off the proof of what only this run may name: whoever verifies it makes what is installed.

    Raises:
        RecipeError: A class is named that no plugin offers.
    """
    if plan.bound.recipe.proof == "now":
        return
    exporters = [choice.registered for _, choice in plan.bound.exports]
    for registered in (*exporters, plan.bound.quantizer.registered, plan.source):
        if not registered.plugin.distribution:
            target = registered.provider.target
            raise RecipeError(
                f"proof: later: '{target}' is a class that no plugin offers, and toolkit verify makes none such",
                where=plan.bound.document.where(("proof",)),
                hint="Say proof: now, or have a plugin offer it.",
            )


def head_refusal(exporter: Exporter, head: Head, what: str) -> str | None:
    """Says why an exporter that knows of no heads can't write a model with one, or None.

    Args:
        exporter: The exporter.
        head: The model's.
        what: What has such a model, as the message begins.
    """
    if head in getattr(exporter, "heads", ("language",)):
        auto = head != "language" and isinstance(exporter, MergingExporter) and exporter.merge_onto == "auto"
        return "onto: auto measures the likelihood of tokens, and a head gives none: say which" if auto else None
    return f"{what}, and its format holds causal language models: export peft or merged"


def notices_of(exporter: Exporter, model: PlannedModel) -> list[str]:
    """Returns what an exporter tells of the form that a model takes."""
    return list(map(str, exporter.notices(model))) if isinstance(exporter, NoticesExporter) else []


def refuse_merges(run: RunContext, loaded: LoadedModel, exporters: Mapping[str, Exporter]) -> None:
    """Refuses what can't be merged onto what its exporter asks for, now that the adapter is on the model.

    Raises:
        RecipeError: There is such an export.
    """
    quantizer = _quantizer(run.plan, run.host)
    for place, (name, exporter) in enumerate(exporters.items()):
        _refuse(run.plan, place, name, merge_refusal(exporter, run.plan.files, quantizer, loaded.model))


def _refuse(plan: RunPlan, place: int, name: str, reason: str | None) -> None:
    if reason:
        message = f"the export '{name}' can't be written: {reason}"
        where = plan.bound.document.where(("export", place))
        raise RecipeError(message, where=where, hint="Take it out: nothing was trained.")


def _quantizer(plan: RunPlan, host: PluginHost) -> Quantizer:
    made: Quantizer = host.registry.create(plan.bound.quantizer.registered, plan.bound.quantizer.config)
    return made


def _merge_request(run: RunContext, corpus: Corpus, probes: Probes, stage: StageScope) -> MergeRequest:
    options = run.plan.bound.recipe
    return MergeRequest(
        run.plan.files,
        _quantizer(run.plan, run.host),
        probes,
        run.folder / PROBES_FILE,
        lambda: holdout_sample(
            corpus, options.training.pass_tokens, likelihood=run.plan.bound.objective_config.likelihood
        ),
        stage.progress("passes"),
    )


def _write(
    run: RunContext,
    loaded: LoadedModel,
    exporter: Exporter,
    choice: Choice,
    folder: Path,
    name: str,
    request: MergeRequest,
) -> None:
    said = run.manifest
    facts = {
        "model": said.model,
        **({"head": said.head} if said.head else {}),
        "model_source": said.providers["model_source"],
        "quantizer": said.providers["quantizer"],
        "chat_template": said.tokenizer.chat_template if said.tokenizer else None,
        **_asked(said),
        "adapter": said.providers["adapter"],
        **({"adapter_from": said.adapter_from} if said.adapter_from else {}),
        "targets": run.plan.targets,
        "tokenizer": said.providers["tokenizer"],
        "dtype": run.plan.bound.recipe.training.dtype,
        "stop_tokens": said.stop_tokens,
    }
    changed = run.folder / VOCABULARY if run.vocabulary.change else None
    keep = run.theirs(f"exports/{name}")
    with settle_merge(loaded, exporter, request) as merge:
        write_export(loaded.model, exporter, choice, folder, {**facts, **merge}, changed, keep=keep, run=run.folder)


def write_export(
    model: AdaptedModel,
    exporter: Exporter,
    choice: Choice,
    folder: Path,
    facts: Mapping[str, Any],
    vocabulary: Path | None = None,
    *,
    keep: Iterable[str] = (),
    run: Path | None = None,
) -> None:
    """Writes an export and its manifest, as a whole.

    Args:
        model: What is exported.
        exporter: Writes it.
        choice: What says which exporter that is.
        folder: The export's folder.
        facts: What its manifest says besides: of base model, quantizer, adapter, tokenizer and chat.
        vocabulary: The file that says what became of the vocabulary, where something did.
        keep: Files of an older folder that are somebody else's, relative to it.
        run: The run's folder, where it is one's; the exporter must leave its other files alone.

    Raises:
        ExportError: It can't be written, or the exporter's own word is refused.
        PluginCallError: The exporter gave something else than facts, or changed what it was not to.
    """
    name = choice.registered.qualified_name
    third_party = choice.registered.plugin.distribution != BUILT_IN
    network = getattr(model, "network", None) if third_party else None
    with atomic_folder(folder, keep=keep) as temporary:
        with files_left_alone(exporter, run, temporary), model_left_alone(exporter, network):
            own = exporter.export(_with_own_settings(model, facts["prompts"]), temporary)
        check_towers(model, temporary)
        if vocabulary:
            shutil.copyfile(vocabulary, temporary / VOCABULARY)
        manifest = {
            "graftkit": __version__,
            "manifest_format": FORMAT,
            "exporter": choice.facts(),
            **facts,
            "tokenizer_fingerprint": model.tokenizer.fingerprint,
            "tolerance": checked_tolerance(exporter.tolerance(), name),
            "proof": NOT_YET_PROVED,
            **_facts_beside(own, name),
        }
        drop_foreign_code(temporary)
        manifest["files"] = file_facts(temporary)
        ExportManifest.model_validate(manifest).write(temporary)


def _with_own_settings(model: AdaptedModel, prompts: Literal["chat", "plain"]) -> AdaptedModel:
    """Returns the model with settings that nobody else sees, so that what an exporter does to them stays its own."""
    config, generation = deepcopy(model.config), deepcopy(model.generation_config)
    return replace(model, config=config, generation_config=generation, prompts=prompts, adapted=dict(model.adapted))


def _facts_beside(facts: Mapping[str, Any], exporter: str) -> dict[str, Any]:
    """Returns an exporter's facts, none of which hides one of core's.

    Raises:
        ExportError: One does, or they are no JSON.
    """
    hidden = sorted(OF_THE_MANIFEST & facts.keys())
    if hidden:
        raise ExportError(
            f"the exporter '{exporter}' returns {', '.join(hidden)} as a fact of its own, which {EXPORT_MANIFEST} says",
            hint="The exporter must name it otherwise.",
        )
    try:
        found: dict[str, Any] = json.loads(without_secrets(json.dumps(dict(facts), allow_nan=False)))
    except (TypeError, ValueError) as error:
        raise ExportError(f"the exporter '{exporter}' returns facts that are no JSON: {error}") from None
    return found


def _proved(run: RunContext, stage: StageScope, folder: Path, forks: ProofForks | None) -> dict[str, Any]:
    poll, disabled = run.poll, run.host.disabled
    return prove_and_tell(folder, run.folder / PROBES_FILE, poll, disable=disabled, notice=stage.notice, forks=forks)


def prove_and_tell(
    folder: Path,
    probes: Path,
    poll: Any,
    *,
    disable: Iterable[str],
    notice: Callable[[str], object],
    keep: Callable[[dict[str, Any]], object] | None = None,
    forks: ProofForks | None = None,
) -> dict[str, Any]:
    """Proves an export, tells what its proof does not cover, and writes it into its manifest.

    A proof that fails is written there, too: whoever finds the export later knows. None is written, nor told, where by
    then another export lies there.

    Args:
        folder: The export.
        probes: The probes' file.
        poll: Called while waiting; raises to stop.
        disable: Plugins to leave out.
        notice: Called with what the user is told.
        keep: Called with the proof, instead of writing it into the manifest of an export that this run has just written
            and may therefore trust; others may only name what is installed.
        forks: As for `prove`.

    Raises:
        ExportError: As for `prove`.
    """
    trusted, keep = keep is None, keep or partial(_keep_proof, folder)
    proved, before = ExportManifest.read(folder, ()), file_states(folder)
    try:
        proof = prove(folder, probes, poll, trusted=trusted, disable=disable, report=notice, forks=forks)
        _refuse_changed(folder, proved, before)
    except ExportError as error:
        _refuse_replaced(folder, proved)
        exporter = plugin_of(proved.exporter)
        if exporter.distribution != BUILT_IN:
            note_once(error, f"{exporter.label} wrote this export, and loads it to prove it")
        with suppress(GraftkitError):
            keep({"status": "failed", "reason": without_secrets(error.message)})
        raise
    _refuse_replaced(folder, proved)
    if proof["status"] == "not possible":
        notice(f"the export {folder.name} could not be proved: {proof['reason']}")
    if proof.get("not_covered_because"):
        notice(f"the proof of the export {folder.name} covers logits alone: {proof['not_covered_because']}")
    keep(proof)
    return proof


def _refuse_changed(folder: Path, proved: ExportManifest, before: Mapping[str, FileState]) -> None:
    """Makes sure that an export holds what it held before it was proved: whoever loads it gets what was proved.

    Raises:
        ExportError: It doesn't.
    """
    now = file_states(folder)
    new = [name for name in now if name not in before and name != EXPORT_MANIFEST and not is_temporary(name)]
    changed = [
        name
        for name in changed_files(before, now)
        if name in proved.files.keys() - {CARD}
        and not (name in now and sha256_of(folder / name) == proved.files[name]["sha256"])
    ]
    if new or changed:
        _refuse_replaced(folder, proved)
        raise ExportError(
            f"while it was proved, {plugin_of(proved.exporter).label} changed {', '.join([*changed, *new][:3])}",
            where=str(folder),
            hint="logits() and assets() may only read the export, and write into request.workspace: mend the exporter.",
        )


def _refuse_replaced(folder: Path, proved: ExportManifest) -> None:
    """Makes sure that an export lists the files that it listed before it was proved.

    Raises:
        ExportError: It doesn't, or there is none any more.
    """
    with suppress(FolderError):
        if ExportManifest.read(folder, ()).lists_what(proved):
            return
    raise ExportError(
        "while it was proved, something else put other files in its place; the proof is of none of these",
        where=str(folder),
        hint="Export it again, into a folder that nothing else writes into.",
    )


def _keep_proof(folder: Path, proof: Mapping[str, Any]) -> None:
    ExportManifest.read(folder, ()).model_copy(update={"proof": dict(proof)}).write(folder)


def prove(
    folder: Path,
    probes: Path,
    poll: Any = lambda: None,
    *,
    trusted: bool = False,
    disable: Iterable[str] = (),
    report: Callable[[str], object] = lambda notice: None,
    forks: ProofForks | None = None,
) -> dict[str, Any]:
    """Loads an export in a fresh process and compares its logits, and what else is loaded, with the trained model's.

    Args:
        folder: The export.
        probes: The probes' file.
        poll: Called while waiting; raises to stop.
        trusted: Whether this run has just written the export; otherwise it may only name what is installed.
        disable: Plugins to leave out, besides `GRAFTKIT_DISABLE_PLUGINS`.
        report: Called with each warning of a plugin's in that process.
        forks: What starts that process, where several exports are proved with the same plugins left out.

    Returns:
        `status` ("proved" or "not possible"), and `max_abs_diff`, `tolerance`, `covers`, `loaded_with` or `reason`.

    Raises:
        ExportError: The logits differ by more than the format's precision explains, tokens, template or settings are
            others, loading failed, or it took too long; or, unless trusted, most of the memory that was free, where the
            system tells.
    """
    _sweep_proofs(folder)
    free = None if trusted else free_memory()
    with _started(folder, probes, poll, trusted=trusted, disable=disable, forks=forks) as process:
        try:
            output, errors = _wait(process, poll, folder, None if free is None else int(free * _SHARE_OF_FREE))
        finally:
            _end(process)
            for left in folder.absolute().parent.glob(f"{glob.escape(prefix_of_proof(folder, process.pid))}*.partial"):
                shutil.rmtree(left, ignore_errors=True)
    for warning in _warnings(output):
        report(warning)
    assert process.returncode is not None
    return _checked(folder, process.returncode, output, errors)


def forks_for(exporters: Sequence[Exporter], disable: Iterable[str]) -> AbstractContextManager[ProofForks | None]:
    """Gives what starts the processes that prove several exports; None where each starts by itself.

    That is so for one export alone, and for systems other than Linux, whose libraries may not bear to be forked.

    Args:
        exporters: What wrote the exports.
        disable: Plugins to leave out.
    """
    if len(exporters) < 2 or sys.platform != "linux":
        return nullcontext()
    packages = {name for exporter in exporters for name in getattr(exporter, "proved_with", ())}
    return ProofForks([*_PROVE, FORKS, str(os.getpid()), *sorted(packages)], _environment(disable))


_PROVE = (sys.executable, "-P", "-m", "graftkit.flow.exports.prove")


def _started(
    folder: Path, probes: Path, poll: Any, *, trusted: bool, disable: Iterable[str], forks: ProofForks | None
) -> Any:
    """Starts the process of a proof: a fork, or a new one; what is given is as `subprocess.Popen`."""
    arguments, trust = [str(folder), str(probes)], [TRUSTED] if trusted else []
    forked = forks.start([*arguments, *trust], poll) if forks else None
    if forked:
        return forked
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [*_PROVE, *arguments, str(os.getpid()), *trust],
        stdin=subprocess.DEVNULL,
        stdout=pipe,
        stderr=pipe,
        text=True,
        encoding="utf-8",
        env=_environment(disable),
        start_new_session=True,
    )


def _environment(disable: Iterable[str]) -> dict[str, str]:
    """Returns the variables of a proof's process."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    # What an export or its manifest names is opened where it lies on this machine, or not at all.
    environment |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    environment |= {"GGML_NO_BACKTRACE": "1"}  # llama.cpp starts a debugger where it aborts
    return environment | {"GRAFTKIT_DISABLE_PLUGINS": ",".join({*disable, *disabled_by_environment()})}


def _warnings(output: str) -> list[str]:
    """Returns what plugins warned of in a proof's process, which is the first line that it prints."""
    with suppress(ValueError, RecursionError, LookupError, TypeError):
        found = json.loads(output.partition("\n")[0])["warnings"]
        return [shortened(without_secrets(str(warning))) for warning in found[: 2 * MOST_NOTICES]]
    return []


def _sweep_proofs(folder: Path) -> None:
    """Removes the folders that proofs of an export have left which were killed: a base model may lie in them."""
    parent, own = folder.absolute().parent, re.compile(rf"{re.escape(folder.name)}\.\d+")
    for left in sorted(parent.glob(".*.partial")):
        found = TEMPORARY.fullmatch(left.name)
        if found and own.fullmatch(found[1]):
            sweep_of(parent / found[1])


def _end(process: subprocess.Popen[str]) -> None:
    """Kills a proof's process and whatever it started, where that still runs."""
    if os.name == "posix":  # the process leads a session, and with it a group, of its own
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    if process.poll() is None:
        process.kill()


def _wait(process: subprocess.Popen[str], poll: Any, folder: Path, most_memory: int | None) -> tuple[str, str]:
    limit = _time_limit(folder)
    end = time.monotonic() + limit
    while True:
        poll()
        try:
            return process.communicate(timeout=0.2)
        except subprocess.TimeoutExpired as waited:
            if process.poll() is not None:  # something that it has started holds its output open
                _end(process)
                with suppress(subprocess.TimeoutExpired):
                    return process.communicate(timeout=1)
                return _text(waited.stdout), _text(waited.stderr)
            if most_memory is not None and (memory_of(process.pid) or 0) > most_memory:
                raise ExportError(
                    f"its proof took more than {most_memory / 1e9:.1f} GB of memory, most of what was free, and was "
                    "stopped",
                    where=str(folder),
                    hint="Its configuration claims more than its files hold, or this machine is too small for it.",
                ) from None
            if time.monotonic() > end:
                raise ExportError(
                    f"its proof took longer than {limit / 60:.0f} minutes and was stopped",
                    where=str(folder),
                    hint="The program that loads it hangs, or this machine is too small for it.",
                ) from None


def _text(output: str | bytes | None) -> str:
    """Returns what was read of a process's output by then, which is bytes whatever the stream's mode."""
    return output.decode("utf-8", "replace") if isinstance(output, bytes) else output or ""


def _time_limit(folder: Path) -> float:
    """Returns how many seconds a proof may take: an adapter's loads its base model too, which half an hour is for."""
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return _SECONDS + size / _BYTES_A_SECOND


def _checked(folder: Path, code: int, output: str, errors: str) -> dict[str, Any]:
    lines = output.strip().splitlines()
    if code != 0 or not lines:
        reason = errors.strip().splitlines()[-1:] or [f"the process ended with {code}"]
        raise ExportError(f"it can't be loaded again: {reason[0]}", where=str(folder))
    proof: dict[str, Any] = json.loads(lines[-1])
    if proof["status"] == "failed":
        raise ExportError(proof["message"], where=proof["where"] or str(folder), hint=proof["hint"])
    if proof.get("differences"):
        raise ExportError(
            f"what is loaded is not what was trained with; {'; '.join(proof['differences'])}",
            where=str(folder),
            hint="Do not use it as it is: load the run's own tokenizer/ and settings beside it. It is kept for a look.",
        )
    rounding = proof.get("rounding")
    weights = rounding and rounding["weights"]
    if weights and weights["excess"] > 1:
        raise ExportError(
            f"it computes something else than what was trained: the weight '{weights['name']}' differs by "
            f"{weights['excess']:.2g} times what rounding explains",
            where=str(folder),
            hint="Do not use it. It is kept for a look.",
        )
    if rounding and rounding["divergence"] > rounding["allowed"]:
        raise ExportError(
            "it computes something else than what was trained: the divergence of its next tokens is "
            f"{rounding['divergence']:.2g} nats, where the rounding of its weights explains {rounding['allowed']:.2g}",
            where=str(folder),
            hint="Do not use it. Rounding takes back changes of less than half a step: export it with a finer type. "
            "It is kept for a look.",
        )
    if proof["status"] == "different":
        raise ExportError(
            f"it computes something else than what was trained: logits differ by {proof['max_abs_diff']:.2g}, "
            f"where the format explains {proof['tolerance']:.2g}",
            where=str(folder),
            hint="Do not use it. It is kept for a look.",
        )
    return proof
