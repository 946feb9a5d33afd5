"""Writes and proves an export of an adapter that lies in a folder of PEFT's format, without a run."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from graftkit.corpus.encode import chat_template_of
from graftkit.errors import RecipeError, named
from graftkit.flow.events import Notice, OnEvent, StageFinished, StageStarted
from graftkit.flow.exports.assets import ExpectedAssets, expected_assets
from graftkit.flow.exports.export import sketches_for
from graftkit.flow.exports.kept_proof import TOKENIZER, KeptProof, folder_of_exports
from graftkit.flow.exports.merge import MergeRequest, MergeSample, merge_refusal, settle_merge
from graftkit.flow.exports.model_card import write_card
from graftkit.flow.exports.probes import PROBES_FILE, Probes, run_probes
from graftkit.flow.exports.proof import prove_and_tell, put_off
from graftkit.flow.exports.refusals import Planned, head_refusal, notices_of
from graftkit.flow.exports.write_export import write_export
from graftkit.flow.folders.export_manifest import ExportManifest
from graftkit.flow.folders.folder import default_folder, locked_folder
from graftkit.flow.folders.vocabulary_file import VOCABULARY
from graftkit.flow.memory.memory_back import give_memory_back
from graftkit.flow.planning.check_adapter import check_layers, unties_output
from graftkit.flow.preparation.adapter_model import generation_of, load_packed, stops_of, stream_adapted
from graftkit.flow.preparation.base_model import LoadedModel
from graftkit.flow.preparation.new_rows import changed_config
from graftkit.flow.preparation.plan_adapter import PlannedAdapter
from graftkit.flow.records.chat import must_be_passed, options_of, template_hash
from graftkit.flow.state.cancel import CancelToken
from graftkit.host.host import PluginHost
from graftkit.interfaces.exporter import Exporter, MergingExporter
from graftkit.interfaces.temporary import temporary_folder
from graftkit.model.context import context_length
from graftkit.model.load import plan_base_model
from graftkit.model.sampling import check_logits
from graftkit.model.skeleton import build_config
from graftkit.model.whole_transformers import import_transformers
from graftkit.recipe.bind import Choice
from graftkit.recipe.options import bind_options
from graftkit.recipe.schema import ExportSection
from graftkit.report.card_facts import CardFacts, shared_by_all
from graftkit.report.run_manifest import AdapterSource, BaseFacts, MergeFacts
from graftkit.store.files import guarded, make_folder, remove_tree, write_json
from graftkit.store.token_store import Example, TokenStore

__all__ = ["AdapterExport", "export_adapter"]

_TEXTS = (
    "The quick brown fox jumps over the lazy dog.",
    "def area(radius):\n    return 3.14159 * radius ** 2\n\nprint(area(2.5))\n",
    "Der Zug fährt um 7:45 Uhr ab. Il pleut à Paris. 你好，世界。Привет, мир.",
    "When the rain had stopped she opened the window and looked at the street, where two children were building a boat "
    "of paper. They had a bottle for a mast and a red handkerchief for a sail; the smaller one gave orders, and the "
    "taller one did as he was told. Nobody else was about. " * 4,
)
"""What an adapter is tried with whose training records are not here: prose, code, other languages, and a long text."""

_MOST_TOKENS = 512
"""Tokens of such a text at most."""


@dataclass(frozen=True, slots=True)
class AdapterExport:
    """An export of an adapter's folder.

    Attributes:
        folder: Where it is.
        proof: What proving it gave.
        merge: What its adapter was merged onto; None where it is not merged.
    """

    folder: Path
    proof: dict[str, Any]
    merge: MergeFacts | None = None


def export_adapter(
    planned: PlannedAdapter,
    use: str,
    options: Sequence[str] = (),
    *,
    out: Path | None = None,
    later: bool = False,
    host: PluginHost,
    on_event: OnEvent,
    cancel: CancelToken,
) -> AdapterExport:
    """Writes an export of an adapter in PEFT's format, graftkit's, peft's or others', and proves it unless put off.

    It is written to `out/exports/NAME`, beside what it was proved with, so that `toolkit verify` proves it again.

    Args:
        planned: The adapter and its base model.
        use: The exporter.
        options: The exporter's fields, each "key=value".
        out: Where to write; `runs/NAME` of the adapter's folder when left out, or the first of NAME-2, NAME-3 and so on
            where something else lies.
        later: Whether its proof is put off, until `toolkit verify`; what it is proved with is made all the same.
        host: The plugins.
        on_event: As for `run`.
        cancel: As for `run`.

    Raises:
        FolderError: Another command writes into `out`, or something lies there that would be replaced.
        RequestError: The adapter does not fit its base model, or there is no such export, or none of this model.
        ExportError: The export failed, or computes something else than the adapter on its base does.
    """
    section, choice = _choice(host, use, options)
    out = out or folder_of_exports(default_folder(planned.folder.path.resolve().name), planned)
    target, name = out / "exports" / section.folder, section.folder
    with locked_folder(out), temporary_folder() as made:
        kept = KeptProof(made, target)
        (made / TOKENIZER).mkdir()
        planned.tokenizer.save(made / TOKENIZER)
        kept.check()
        exporter: Exporter = host.registry.create(choice.registered, choice.config)
        for notice in [*planned.notices, *_of_chat(planned)]:
            on_event(Notice("plan", notice))
        with _stage("adapter", on_event, cancel):
            early = _takes_what_was_trained(exporter) and kept.may_come_last
            streamed = stream_adapted(planned) if early else None
            loaded = None
            if streamed:
                targets: Sequence[str] = streamed.targets
                _refuse(exporter, planned, targets, False, name)
            else:
                import_transformers()
                base = plan_base_model(planned.files)
                targets = check_layers(planned.folder, base)
                _refuse(exporter, planned, targets, unties_output(planned.folder, base), name)
                loaded = load_packed(planned, targets)
        with _stage(f"export {name}", on_event, cancel), guarded(target):
            facts = _facts(planned, targets)
            model = loaded.model if loaded else streamed
            told = notices_of(exporter, model) if model else []
            for text in told:
                on_event(Notice(f"export {name}", text))
            merge = None
            if loaded:
                probes = _keep_proof(planned, loaded, exporter, made, kept)
                make_folder(target.parent)
                merge = _write_loaded(planned, loaded, probes, exporter, choice, target, facts, kept, cancel)
            elif streamed:
                if isinstance(exporter, MergingExporter):
                    merge = MergeFacts(onto="dequantized", asked="dequantized")
                make_folder(target.parent)
                write_export(streamed, exporter, choice, target, {**facts, **({"merge": merge} if merge else {})})
        del streamed, model
        with _stage(f"proof of {name}", on_event, cancel):
            if loaded is None:  # the model as training computes it is only needed now
                with _removed_on_failure(target):
                    import_transformers()
                    loaded = load_packed(planned, check_layers(planned.folder, plan_base_model(planned.files)))
                    _keep_proof(planned, loaded, exporter, made, kept)
            del loaded
            give_memory_back()
            proof = (
                put_off(target)
                if later
                else prove_and_tell(
                    target,
                    kept.probes,
                    cancel.poll,
                    disable=host.disabled,
                    notice=lambda text: on_event(Notice(f"proof of {name}", text)),
                )
            )
            _write_card(planned, exporter, target, name, proof, _card_facts(planned, facts, told), merge)
    return AdapterExport(target, proof, merge)


def _write_card(
    planned: PlannedAdapter,
    exporter: Exporter,
    target: Path,
    name: str,
    proof: Mapping[str, Any],
    facts: CardFacts,
    merge: MergeFacts | None,
) -> None:
    manifest, template = planned.folder.manifest, planned.tokenizer.chat_template
    chat = planned.head is None and template is not None and (manifest is None or manifest.prompts == "chat")
    told = next(_of_chat(planned), None)
    write_card(target, facts, proof, exporter, planned.files, name=name, chat=chat, merge=merge, told=told)


def _card_facts(planned: PlannedAdapter, facts: Mapping[str, Any], notices: Sequence[str]) -> CardFacts:
    """Returns what the export's card shows of how it came about.

    Args:
        planned: The adapter and its base model.
        facts: What the export's manifest says of them.
        notices: What the exporter told of the form that it has.
    """
    return CardFacts(
        base=BaseFacts.model_validate(facts["model"]),
        head=planned.head,
        adapter=str(facts["adapter"]["name"]),
        quantizer=str(facts["quantizer"]["name"]),
        layers=len(facts["targets"]),
        adapter_from=AdapterSource.model_validate(facts["adapter_from"]),
        notices=notices,
        shared=shared_by_all(facts["system"], facts["tools"]),
    )


@contextmanager
def _removed_on_failure(export: Path) -> Iterator[None]:
    """Removes an export that can't be proved, since there is nothing to prove it with."""
    try:
        yield
    except BaseException:
        remove_tree(export)
        with suppress(OSError):
            export.parent.rmdir()
        raise


def _of_chat(planned: PlannedAdapter) -> Iterator[str]:
    """Yields what other programs have to be told of conversations."""
    manifest = planned.folder.manifest
    if planned.head is None and (manifest is None or manifest.prompts == "chat"):
        options = options_of(manifest.chat if manifest else None)
        told = must_be_passed(options, chat_template_of(planned.tokenizer, options=options))
        yield from [told] if told else []


def _takes_what_was_trained(exporter: Exporter) -> bool:
    """Tells whether an export is of the base as it was trained on, without a look at others."""
    return not isinstance(exporter, MergingExporter) or exporter.merge_onto == "dequantized"


def _keep_proof(
    planned: PlannedAdapter, loaded: LoadedModel, exporter: Exporter, made: Path, kept: KeptProof
) -> Probes:
    """Computes what the export is proved with, and keeps it in the folder around it.

    Args:
        planned: The adapter and its base model.
        loaded: The model with the adapter on it.
        exporter: The exporter.
        made: The folder that files are made in; the tokenizer is in it.
        kept: What puts them there.
    """
    found = run_probes(loaded, _sequences(planned), 0)
    with named(str(planned.folder.path)):
        for logits in found.logits:
            check_logits(logits)
    probes = replace(
        found,
        assets=_assets(planned, loaded, made / TOKENIZER, kept.day),
        sketches=sketches_for([exporter], loaded.model),
    )
    probes.save(made / PROBES_FILE)
    if planned.change:
        write_json(made / VOCABULARY, planned.change.to_json())
    kept.put()
    return probes


def _write_loaded(
    planned: PlannedAdapter,
    loaded: LoadedModel,
    probes: Probes,
    exporter: Exporter,
    choice: Choice,
    target: Path,
    facts: Mapping[str, Any],
    kept: KeptProof,
    cancel: CancelToken,
) -> MergeFacts | None:
    """Writes an export of a model that is loaded, and returns what its adapter was merged onto."""
    request = MergeRequest(
        planned.files,
        planned.quantizer,
        probes,
        kept.probes,
        lambda: _sample(probes),
        lambda *_: cancel.poll(),
    )
    vocabulary = kept.out / VOCABULARY if planned.change else None
    with settle_merge(loaded, exporter, request) as merge:
        write_export(loaded.model, exporter, choice, target, {**facts, **merge}, vocabulary)
    return merge.get("merge")


def _choice(host: PluginHost, use: str, options: Sequence[str]) -> tuple[ExportSection, Choice]:
    """Finds the exporter and judges its fields; `name` is the folder's."""
    registered = host.registry.resolve("exporter", use, where="--to")
    names = [text.partition("=")[2] for text in options if text.partition("=")[0].strip() == "name"]
    own = [text for text in options if text.partition("=")[0].strip() != "name"]
    config = bind_options(host.registry.config_class(registered), own, "--set")
    try:
        section = ExportSection.model_validate({"use": use, **({"name": names[-1]} if names else {})})
    except ValueError as error:
        raise RecipeError(f"name: no folder can be called so: {names[-1]!r:.60}", where="--set name") from error
    return section, Choice(use, registered, config)


def _refuse(exporter: Exporter, planned: PlannedAdapter, targets: Sequence[str], unties: bool, name: str) -> None:
    """Asks the exporter whether it can write this model, before a weight is loaded.

    Raises:
        RecipeError: It can't.
    """
    layouts = planned.folder.expert_layouts
    experts = [target for target in targets if target in layouts]
    config = changed_config(planned.files.config, planned.change, planned.tokenizer)
    asked = Planned(
        dict(config),
        planned.files.reference,
        planned.tokenizer,
        planned.change,
        planned.adapter,
        targets,
        experts,
        unties,
        list(planned.folder.saved),
        generation_of(planned),
    )
    head = planned.head.kind if planned.head else "language"
    reason = (
        head_refusal(exporter, head, "the adapter is of a model with another head")
        or exporter.refusal(asked)
        or merge_refusal(exporter, planned.files, planned.quantizer)
    )
    if reason:
        raise RecipeError(f"the export '{name}' can't be written: {reason}", where="--to")


def _sequences(planned: PlannedAdapter) -> list[list[int]]:
    """Encodes what the adapter is tried with; every trained row of the embeddings is among it, some at a time."""
    tokenizer, rows = planned.tokenizer, planned.change.size if planned.change else None
    longest = min(_MOST_TOKENS, (context_length(planned.files.config) or 2 * _MOST_TOKENS) - 1)
    found = [ids[:longest] for ids in tokenizer.encode_batch(list(_TEXTS), "none")]
    if planned.change and planned.change.ids:
        found.append(list(planned.change.ids[: longest // 2]))
    kept = [[id for id in ids if rows is None or id < rows] for ids in found]
    return [ids for ids in kept if ids]


def _sample(probes: Probes) -> MergeSample:
    """Returns what merges are measured on without the adapter's records: the texts that it is tried with."""
    examples = [Example(np.array(ids), np.ones(len(ids), np.float32), 0) for ids in probes.ids]
    what = "texts of graftkit's own, since the adapter's records are not known"
    return MergeSample(TokenStore.of(examples), held_out=False, what=what)


def _assets(planned: PlannedAdapter, loaded: LoadedModel, saved: Path, today: date) -> ExpectedAssets:
    """Says what the export must load besides its weights; the tokenizer lies saved in a folder."""
    manifest = planned.folder.manifest
    return expected_assets(
        planned.tokenizer,
        _TEXTS,
        today=today,
        options=options_of(manifest.chat) if manifest else None,
        generation=loaded.model.generation_config,
        stop_tokens=stops_of(planned),
        saved=saved,
        config=build_config(loaded.model.config),
        asked=ExportManifest.model_validate(_facts(planned, ())).asked,
    )


def _facts(planned: PlannedAdapter, targets: Sequence[str]) -> dict[str, Any]:
    """Returns what the export's manifest says of what it was made of."""
    manifest, template = planned.folder.manifest, planned.tokenizer.chat_template
    trained: dict[str, Any] = {"chat": None, "prompts": "chat" if template else "plain", "system": None, "tools": []}
    trained["chat_template"] = template_hash(planned.tokenizer)
    trained["prompts"] = "plain" if planned.head else trained["prompts"]
    if manifest:
        trained = {key: getattr(manifest, key) for key in trained}
    return {
        **planned.facts,
        **trained,
        "targets": list(targets),
        "dtype": planned.dtype,
        **({"head": planned.head} if planned.head else {}),
        "stop_tokens": stops_of(planned),
        "adapter_from": {"path": str(planned.folder.path.absolute()), "files": dict(planned.folder.files)},
    }


@contextmanager
def _stage(name: str, on_event: OnEvent, cancel: CancelToken) -> Iterator[None]:
    """Tells that a stage begins and, unless it fails, that it is over."""
    cancel.poll()
    on_event(StageStarted(name))
    start = time.perf_counter()
    yield
    on_event(StageFinished(name, round(time.perf_counter() - start, 3), {}))
