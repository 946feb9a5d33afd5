"""Writes the exports of a run, then has each proved."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from graftkit.errors import FolderError
from graftkit.flow.base_files.base_facts import check_as_opened
from graftkit.flow.exports.assets import ExpectedAssets, expected_assets
from graftkit.flow.exports.merge import MergeRequest, holdout_sample, settle_merge
from graftkit.flow.exports.model_card import write_model_card
from graftkit.flow.exports.probes import PROBES_FILE, Probes, make_probes
from graftkit.flow.exports.proof import prove_and_tell, put_off
from graftkit.flow.exports.proof_forks import ProofForks
from graftkit.flow.exports.proof_process import forks_for
from graftkit.flow.exports.refusals import notices_of, quantizer_of
from graftkit.flow.exports.rounding import quantizes
from graftkit.flow.exports.weight_sketch import sketches_of
from graftkit.flow.exports.write_export import write_export
from graftkit.flow.folders.export_manifest import ExportManifest
from graftkit.flow.folders.own_files import listed_in
from graftkit.flow.folders.vocabulary_file import VOCABULARY
from graftkit.flow.planning.run_plan import RunPlan
from graftkit.flow.planning.vocabulary import sample_texts
from graftkit.flow.preparation.base_model import LoadedModel
from graftkit.flow.preparation.corpus import Corpus
from graftkit.flow.records.chat import chat_options
from graftkit.flow.state.context import RunContext, StageScope
from graftkit.host.host import PluginHost
from graftkit.host.lifecycle import ExportInfo
from graftkit.interfaces.exporter import Exporter
from graftkit.model.adapt import AdaptedModel
from graftkit.model.memory_back import give_memory_back
from graftkit.model.skeleton import build_config
from graftkit.recipe.bind import Choice
from graftkit.recipe.schema.providers import ExportSection
from graftkit.report.model_card import CARD
from graftkit.report.run_manifest import required
from graftkit.store.folders import replace_folder
from graftkit.store.system import guarded, make_folder
from graftkit.store.temporaries import temporary_prefix

__all__ = ["check_exports_replaceable", "export_all", "make_exporters", "prove_exports", "sketches_for"]


def export_all(run: RunContext, loaded: LoadedModel, corpus: Corpus, exporters: Mapping[str, Exporter]) -> None:
    """Writes `exports/NAME/` for each entry of the recipe, and before that what they are going to be proved with.

    Raises:
        ExportError: An export failed.
        ModelError: The base model's files are not those that were opened.
    """
    if not run.plan.bound.recipe.export:
        return
    check_as_opened(run.plan.files)
    trained: int = run.manifest.training["tokens"]
    probes = make_probes(loaded, corpus, trained)
    probes = replace(probes, assets=_assets(run, loaded), sketches=_sketches(run, loaded, exporters))
    probes.save(run.folder / PROBES_FILE)
    with guarded(run.folder / "exports"):
        make_folder(run.folder / "exports")
    if run.resumed and run.resumed.damaged:
        run.notice(
            "export", f"exports/{run.resumed.damaged}: its files are not those that were written: it is made anew"
        )
    for use, choice in _to_write(run):
        with run.stage(f"export {use.folder}") as stage:
            exporter = exporters[use.folder]
            told = notices_of(exporter, loaded.model)
            for text in told:
                stage.notice(f"the export {use.folder}: {text}")
            request = _merge_request(run, corpus, probes, stage)
            _write(run, loaded, exporter, choice, _place(run, use.folder), use.folder, request)
            stage.facts |= {"folder": str(run.folder / "exports" / use.folder), **({"notices": told} if told else {})}


def _sketches(run: RunContext, loaded: LoadedModel, exporters: Mapping[str, Exporter]) -> dict[str, torch.Tensor]:
    """Returns what quantized exports of the run are compared with; one that is absent may be such."""
    if run.plan.bound.absent_exports:
        return _all_sketches(loaded.model)
    return sketches_for(exporters.values(), loaded.model)


def sketches_for(exporters: Iterable[Exporter], model: AdaptedModel) -> dict[str, torch.Tensor]:
    """Returns sketches of the trained weights where an export is quantized, which is compared with them."""
    return _all_sketches(model) if any(map(quantizes, exporters)) else {}


def _all_sketches(model: AdaptedModel) -> dict[str, torch.Tensor]:
    """Returns sketches of the trained weights."""
    found = sketches_of(model.merged_tensors())
    # A format that ties no output layer to the embedding holds the matrix twice.
    network: Any = model.network
    names = {id(module): f"{path}.weight" for path, module in network.named_modules()}
    outer = (network.get_input_embeddings(), network.get_output_embeddings())
    embedding, output = (names.get(id(module), "") for module in outer)
    twice = embedding in found and output not in found
    return found | ({output: found[embedding].clone()} if twice and output else {})


def check_exports_replaceable(run: RunContext) -> None:
    """Makes sure that no export takes the place of what is the user's: a file that was edited, or a link.

    A model card that was edited is none: it stays, and the new export has it.

    Raises:
        FolderError: One would.
    """
    if run.resumed is None:
        return
    known = run.resumed.manifest
    listed = {*known.artifacts, *known.written, *known.kept}
    for use, _ in _to_write(run):
        folder = f"exports/{use.folder}"
        own = listed_in(run.folder / folder)
        wrote = (name for name in run.files.theirs(folder) if f"{folder}/{name}" in listed or name in own)
        edited = [f"{folder}/{name}" for name in wrote if name != CARD]
        link = [folder] if use.folder in run.files.theirs("exports") else []
        name = next(iter([*link, *edited]), None)
        if name is not None:
            raise FolderError(
                f"{name} is not as the run wrote it, and the export would take its place",
                where=str(run.folder),
                hint="Move it away, or call the new export something else: --set name=OTHER with toolkit export, name: "
                "OTHER in the recipe.",
            )


def _to_write(run: RunContext) -> list[tuple[ExportSection, Choice]]:
    """Returns the recipe's exports but those that a finished run has, proved, where nothing was trained since.

    One that is asked for by its name is among them where its files are damaged.

    Raises:
        GraftkitError: One of them is absent.
    """
    bound = run.plan.bound
    before = run.resumed.manifest if run.resumed else None
    if not before or before.recipe.get("training") != run.manifest.recipe.get("training"):
        return list(bound.exports)
    asked = run.manifest.recipe["export"]
    there = [entry for entry in before.recipe.get("export") or [] if before.status == "finished"]
    later = bound.recipe.proof == "later"
    again = set(before.unproved) - (set(before.put_off) if later else set())
    if run.resumed and run.resumed.damaged:
        again.add(run.resumed.damaged)
    wanted = {
        use.folder
        for use, entry in zip(bound.recipe.export, asked, strict=True)
        if entry not in there or use.folder not in before.exports or use.folder in again
    }
    for name, error in bound.absent_exports.items():
        if name in wanted:
            raise error
    return [pair for pair in bound.exports if pair[0].folder in wanted]


def _place(run: RunContext, name: str) -> Path:
    """Returns where an export is written: beside one that was proved before, until it is itself.

    The name beside it is one that `sweep` removes: a run that is killed there goes on without what it has left.
    """
    folder = run.folder / "exports" / name
    proved = run.resumed is not None and bool(run.manifest.continued) and name in run.resumed.manifest.exports
    return folder.with_name(f"{temporary_prefix(name)}replaced.partial") if proved else folder


def prove_exports(run: RunContext) -> None:
    """Has each export of the recipe proved, once nothing holds the trained model any more, or says that it isn't.

    Raises:
        ExportError: An export computes something else than what was trained, or loads something else beside it.
    """
    if not run.plan.bound.recipe.export:
        if run.manifest.continued:
            _put_in_place(run, {})
        return
    give_memory_back()
    if not run.manifest.continued:
        run.record(exports={})
    proved: dict[str, dict[str, Any]] = {}
    later, written = run.plan.bound.recipe.proof == "later", _to_write(run)
    exporters = {use.folder: run.host.registry.create(choice.registered, choice.config) for use, choice in written}
    with forks_for([] if later else list(exporters.values()), run.host.disabled) as forks:
        for use, _ in written:
            place, exporter = _place(run, use.folder), exporters[use.folder]
            if later:
                proved[use.folder] = _finish_export(run, exporter, use.folder, place, put_off(place))
            else:
                with run.stage(f"proof of {use.folder}") as stage:
                    found = _finish_export(run, exporter, use.folder, place, _proved(run, stage, use.folder, forks))
                    stage.facts |= found
                    proved[use.folder] = found
            if not run.manifest.continued:
                _tell_of_export(run, use)
    if run.manifest.continued:
        _put_in_place(run, proved)
        for use, _ in written:
            _tell_of_export(run, use)


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
            replace_folder(folder, new, keep=run.files.theirs(f"exports/{name}"))
    asked = [use.folder for use in run.plan.bound.recipe.export]
    old = sorted(run.manifest.exports.keys() - set(asked))
    if old:
        run.notice(
            "export",
            f"exports/{', exports/'.join(old)}: not among the recipe's exports, and left as before, with the weights "
            "of before these steps; toolkit export makes one of the new weights",
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
        asked=_said(run).asked,
        pairs=bool(run.manifest.head and run.manifest.head.pairs),
    )


def _said(run: RunContext) -> ExportManifest:
    """Returns what the manifest of each export says of the run: base model, quantizer, adapter, tokenizer and chat."""
    manifest, data = run.manifest, run.manifest.data
    found = ExportManifest.model_validate(
        {
            "model": required(manifest.model, "model"),
            "model_source": manifest.providers["model_source"],
            "quantizer": manifest.providers["quantizer"],
            "chat_template": manifest.tokenizer.chat_template if manifest.tokenizer else None,
            "chat": data.chat if data else None,
            "prompts": data.prompts if data else "chat",
            "system": data.system if data else None,
            "tools": data.tools if data else [],
            "adapter": manifest.providers["adapter"],
            "targets": list(run.plan.targets),
            "tokenizer": manifest.providers["tokenizer"],
            "dtype": run.plan.bound.recipe.training.dtype,
            "stop_tokens": manifest.stop_tokens,
        }
    )
    return found.with_parts(head=manifest.head, adapter_from=manifest.adapter_from)


def make_exporters(plan: RunPlan, host: PluginHost) -> dict[str, Exporter]:
    """Makes every exporter that the recipe names, by its folder."""
    return {use.folder: host.registry.create(choice.registered, choice.config) for use, choice in plan.bound.exports}


def _merge_request(run: RunContext, corpus: Corpus, probes: Probes, stage: StageScope) -> MergeRequest:
    options = run.plan.bound.recipe
    return MergeRequest(
        run.plan.files,
        quantizer_of(run.plan, run.host),
        probes,
        run.folder / PROBES_FILE,
        lambda: holdout_sample(
            corpus,
            options.training.pass_tokens,
            likelihood=run.plan.bound.objective_config.minimizes == "likelihood",
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
    changed = run.folder / VOCABULARY if run.vocabulary.change else None
    keep = run.files.theirs(f"exports/{name}")
    with settle_merge(loaded, exporter, request) as merge:
        said = _said(run).with_parts(merge=merge)
        write_export(loaded.model, exporter, choice, folder, said, changed, keep=keep, run=run.folder)


def _proved(run: RunContext, stage: StageScope, name: str, forks: ProofForks | None) -> dict[str, Any]:
    poll, disabled, told = run.poll, run.host.disabled, stage.notice
    folder, probes = _place(run, name), run.folder / PROBES_FILE
    return prove_and_tell(folder, probes, poll, disable=disabled, notice=told, forks=forks, name=name)
