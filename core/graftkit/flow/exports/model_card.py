"""Writes the model card of an export, once it is proved."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from graftkit.articles import with_article
from graftkit.errors import ExportError
from graftkit.flow.folders.export_manifest import ExportManifest
from graftkit.flow.records.chat import chat_options, must_be_passed
from graftkit.flow.state.context import RunContext
from graftkit.interfaces.architecture import with_head
from graftkit.interfaces.export_card import CardExporter, CardRequest, ExportCard
from graftkit.interfaces.exporter import Exporter
from graftkit.interfaces.model_source import BaseModelFiles, LicensedModel
from graftkit.report.card_facts import CardFacts, facts_of_run
from graftkit.report.model_card import CARD, hub_id, public_name, render_card
from graftkit.report.run_manifest import HeadFacts, MergeFacts
from graftkit.store.files import write_text

__all__ = ["write_card", "write_model_card"]


def write_model_card(
    run: RunContext,
    exporter: Exporter,
    name: str,
    folder: Path,
    proof: Mapping[str, Any],
    merge: MergeFacts | None = None,
) -> None:
    """Writes README.md for an export of a run; one that the user wrote or edited stays, and there is no card.

    Args:
        run: The run.
        exporter: What wrote the export.
        name: The export's name.
        folder: The export.
        proof: What proving it gave, as its manifest says already.
        merge: What its adapter was merged onto, as its manifest says.

    Raises:
        ExportError: The exporter says something else than a card's part.
    """
    if CARD in run.files.theirs(f"exports/{name}"):
        run.notice("export", f"exports/{name}/{CARD} is not as the run wrote it, and stays: no other is written")
        return
    data = run.manifest.data
    chat = (data is None or data.prompts == "chat") and run.vocabulary.tokenizer.chat_template is not None
    template = run.plan.encoder.template if run.plan.chats else None
    write_card(
        folder,
        facts_of_run(run.manifest, name),
        proof,
        exporter,
        run.plan.files,
        name=name,
        chat=chat,
        merge=merge,
        told=must_be_passed(chat_options(run.plan.bound), template),
    )


def write_card(
    folder: Path,
    facts: CardFacts,
    proof: Mapping[str, Any],
    exporter: Exporter,
    files: BaseModelFiles,
    *,
    name: str,
    chat: bool,
    merge: MergeFacts | None,
    told: str | None,
) -> None:
    """Writes README.md and lists it in the export's manifest.

    The manifest comes first: a file that it lists is the run's own, wherever a kill leaves the run.

    Args:
        folder: The export.
        facts: How it came about.
        proof: What proving it gave, as its manifest says already.
        exporter: What wrote it.
        files: The base model.
        name: The export's name.
        chat: Whether the model is asked in its chat template.
        merge: What its adapter was merged onto, as its manifest says.
        told: What other programs have to be told when they load it.

    Raises:
        ExportError: The exporter says something else than a card's part.
    """
    text = render_card(
        name,
        facts,
        proof,
        _of_the_format(exporter, folder, files, facts.head, chat=chat),
        merge=merge,
        base_license=files.license if isinstance(files, LicensedModel) else None,
        must_be_passed=told,
    )
    data = text.encode()
    card = {CARD: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}}
    manifest = ExportManifest.read(folder, ())
    listed = dict(sorted((manifest.files | card).items()))
    manifest.model_copy(update={"files": listed}).write(folder)
    write_text(folder / CARD, text)


def _of_the_format(
    exporter: Exporter, folder: Path, files: BaseModelFiles, head: HeadFacts | None, *, chat: bool
) -> ExportCard | None:
    if not isinstance(exporter, CardExporter):
        return None
    reference = files.reference
    base = hub_id(reference) or f"./{public_name(reference)}"  # a bare name would be looked for on the hub
    request = CardRequest(folder, base, chat)
    if head:
        own = with_head(files.config, head.kind, head.labels, head.pad).get("pad_token_id")
        pad = head.pad if own == head.pad else None  # RoBERTa's stays what it numbers positions from
        labels, prompts = tuple(head.labels), head.prompts or {}
        request = CardRequest(
            folder, base, chat, head.kind, labels, pad, head.several, head.pairs, head.pooled_by, prompts
        )
    found = exporter.card(request)
    if not isinstance(found, ExportCard):
        raise ExportError(
            f"the exporter '{type(exporter).__name__}' gives {with_article(type(found).__name__)} for its card"
        )
    return found
