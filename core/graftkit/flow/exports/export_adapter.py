"""Writes and proves an export of an adapter that lies in a folder of PEFT's format, without a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graftkit.corpus.tokenizer_template import chat_template_of
from graftkit.errors import RecipeError
from graftkit.flow.events import Notice, OnEvent
from graftkit.flow.exports.adapter_proof import keep_proof, manifest_of_adapter, merge_sample
from graftkit.flow.exports.asked_export import asked_export
from graftkit.flow.exports.kept_proof import TOKENIZER, KeptProof, folder_of_exports
from graftkit.flow.exports.merge import MergeRequest, merge_refusal, settle_merge
from graftkit.flow.exports.model_card import write_card
from graftkit.flow.exports.proof import prove_and_tell, put_off
from graftkit.flow.exports.refusals import Planned, head_refusal, notices_of
from graftkit.flow.exports.write_export import write_export
from graftkit.flow.folders.export_manifest import ExportManifest
from graftkit.flow.folders.folder import default_folder, locked_folder
from graftkit.flow.folders.vocabulary_file import VOCABULARY
from graftkit.flow.planning.check_adapter import check_layers, unties_output
from graftkit.flow.planning.saved_tokenizer import check_saved_files
from graftkit.flow.preparation.adapter_model import generation_of, load_packed, stream_adapted
from graftkit.flow.preparation.base_model import LoadedModel
from graftkit.flow.preparation.new_rows import changed_config
from graftkit.flow.preparation.plan_adapter import PlannedAdapter
from graftkit.flow.records.chat import must_be_passed, options_of
from graftkit.flow.state.cancel import CancelToken
from graftkit.flow.state.told_stage import told_stage
from graftkit.host.host import PluginHost
from graftkit.interfaces.exporter import Exporter, MergingExporter
from graftkit.interfaces.temporary import temporary_folder
from graftkit.model.adapt import AdaptedModel
from graftkit.model.memory_back import give_memory_back
from graftkit.model.model_plan import plan_base_model
from graftkit.model.whole_transformers import import_transformers
from graftkit.recipe.bind import Choice
from graftkit.report.card_facts import CardFacts, shared_by_all
from graftkit.report.run_manifest import MergeFacts
from graftkit.store.system import guarded, make_folder, remove_tree

__all__ = ["AdapterExport", "export_adapter"]


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
    section, choice = asked_export(host, use, options)
    out = out or folder_of_exports(default_folder(planned.folder.path.resolve().name), planned)
    target, name = out / "exports" / section.folder, section.folder
    with locked_folder(out), temporary_folder() as made:
        kept = KeptProof(made, target)
        (made / TOKENIZER).mkdir()
        planned.tokenizer.save(made / TOKENIZER)
        check_saved_files(planned.tokenizer, made / TOKENIZER)
        kept.check()
        exporter: Exporter = host.registry.create(choice.registered, choice.config)
        work = _AdapterExporting(planned, exporter, choice, target, made, kept, cancel)
        for notice in [*planned.notices, *_of_chat(planned)]:
            on_event(Notice("plan", notice))
        with told_stage("adapter", on_event, cancel):
            model, targets = work.load()
        with told_stage(f"export {name}", on_event, cancel), guarded(target):
            written = work.write(model, targets, lambda text: on_event(Notice(f"export {name}", text)))
        streamed = not isinstance(model, LoadedModel)
        del model
        with told_stage(f"proof of {name}", on_event, cancel):
            if streamed:  # the model as training computes it is only needed now
                work.keep_proof()
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
            work.write_card(proof, written)
    return AdapterExport(target, proof, written.said.merge)


@dataclass(frozen=True, slots=True)
class _Written:
    """An export that was written.

    Attributes:
        said: What its manifest says of what it was made of.
        notices: What its exporter told of the form that it has.
    """

    said: ExportManifest
    notices: Sequence[str]


@dataclass(frozen=True, slots=True)
class _AdapterExporting:
    """The export of an adapter, a step a method.

    Attributes:
        planned: The adapter and its base model.
        exporter: Writes the export.
        choice: What says which exporter that is.
        target: The export's folder.
        made: The folder that files are made in; the tokenizer is in it.
        kept: What puts those around the export.
        cancel: As for `run`.
    """

    planned: PlannedAdapter
    exporter: Exporter
    choice: Choice
    target: Path
    made: Path
    kept: KeptProof
    cancel: CancelToken

    def load(self) -> tuple[AdaptedModel | LoadedModel, Sequence[str]]:
        """Returns what is exported: the files' own tensors where that will do, which take no memory, or the model.

        Returns:
            The model, and the dotted paths of the layers and stacks of experts that are adapted.

        Raises:
            RecipeError: The exporter can't write it.
        """
        early = _takes_what_was_trained(self.exporter) and self.kept.may_come_last
        streamed = stream_adapted(self.planned) if early else None
        if streamed:
            self._refuse(streamed.targets, unties=False)
            return streamed, streamed.targets
        import_transformers()
        base = plan_base_model(self.planned.files)
        targets = check_layers(self.planned.folder, base)
        self._refuse(targets, unties=unties_output(self.planned.folder, base))
        return load_packed(self.planned, targets), targets

    def write(
        self, model: AdaptedModel | LoadedModel, targets: Sequence[str], notice: Callable[[str], object]
    ) -> _Written:
        """Writes the export; of a loaded model, what it is proved with as well.

        Args:
            model: What `load` gave.
            targets: Likewise.
            notice: Called with what the exporter tells of the form that it has.
        """
        adapted = model.model if isinstance(model, LoadedModel) else model
        said = manifest_of_adapter(self.planned, targets)
        told = notices_of(self.exporter, adapted)
        for text in told:
            notice(text)
        if isinstance(model, LoadedModel):
            return _Written(self._write_loaded(model, said), told)
        if isinstance(self.exporter, MergingExporter):
            said = said.with_parts(merge=MergeFacts(onto="dequantized", asked="dequantized"))
        make_folder(self.target.parent)
        write_export(adapted, self.exporter, self.choice, self.target, said)
        return _Written(said, told)

    def _write_loaded(self, loaded: LoadedModel, said: ExportManifest) -> ExportManifest:
        """Writes an export of a model that is loaded; returns what is said of it, with what it was merged onto."""
        planned, kept = self.planned, self.kept
        probes = keep_proof(planned, loaded, self.exporter, self.made, kept)
        make_folder(self.target.parent)
        request = MergeRequest(
            planned.files,
            planned.quantizer,
            probes,
            kept.probes,
            lambda: merge_sample(probes),
            lambda *_: self.cancel.poll(),
        )
        vocabulary = kept.out / VOCABULARY if planned.change else None
        with settle_merge(loaded, self.exporter, request) as merge:
            said = said.with_parts(merge=merge)
            write_export(loaded.model, self.exporter, self.choice, self.target, said, vocabulary)
        return said

    def keep_proof(self) -> None:
        """Loads the model, and keeps what the export is proved with; where that fails, the export is removed."""
        with _removed_on_failure(self.target):
            import_transformers()
            targets = check_layers(self.planned.folder, plan_base_model(self.planned.files))
            keep_proof(self.planned, load_packed(self.planned, targets), self.exporter, self.made, self.kept)

    def write_card(self, proof: Mapping[str, Any], written: _Written) -> None:
        """Writes the export's README.md, which shows what proving it gave."""
        planned, template = self.planned, self.planned.tokenizer.chat_template
        manifest = planned.folder.manifest
        chat = planned.head is None and template is not None and (manifest is None or manifest.prompts == "chat")
        write_card(
            self.target,
            _card_facts(planned, written.said, written.notices),
            proof,
            self.exporter,
            planned.files,
            name=self.target.name,
            chat=chat,
            merge=written.said.merge,
            told=next(_of_chat(planned), None),
        )

    def _refuse(self, targets: Sequence[str], *, unties: bool) -> None:
        """Asks the exporter whether it can write this model, before a weight is loaded.

        Raises:
            RecipeError: It can't.
        """
        planned, exporter = self.planned, self.exporter
        layouts = planned.folder.expert_layouts
        config = changed_config(planned.files.config, planned.change, planned.tokenizer)
        asked = Planned(
            dict(config),
            planned.files.reference,
            planned.tokenizer,
            planned.change,
            planned.adapter,
            targets,
            [target for target in targets if target in layouts],
            unties,
            list(planned.folder.saved),
            generation_of(planned),
            bool(planned.head and planned.head.pairs),
        )
        head = planned.head.kind if planned.head else "language"
        reason = (
            head_refusal(exporter, head, "the adapter is of a model with another head")
            or exporter.refusal(asked)
            or merge_refusal(exporter, planned.files, planned.quantizer)
        )
        if reason:
            raise RecipeError(f"the export '{self.target.name}' can't be written: {reason}", where="--to")


def _card_facts(planned: PlannedAdapter, said: ExportManifest, notices: Sequence[str]) -> CardFacts:
    """Returns what the export's card shows of how it came about.

    Args:
        planned: The adapter and its base model.
        said: What the export's manifest says of them.
        notices: What the exporter told of the form that it has.
    """
    return CardFacts(
        base=said.model,
        head=planned.head,
        adapter=str(said.adapter["name"]),
        quantizer=str(said.quantizer["name"]),
        layers=len(said.targets),
        adapter_from=said.adapter_from,
        notices=notices,
        shared=shared_by_all(said.system, said.tools),
        system=said.system or "",
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
