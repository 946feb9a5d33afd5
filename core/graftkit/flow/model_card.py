"""Writes the model card of an export, once it is proved."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from graftkit.articles import with_article
from graftkit.errors import ExportError
from graftkit.flow.chat import chat_options, must_be_passed
from graftkit.flow.context import RunContext
from graftkit.flow.export_manifest import ExportManifest
from graftkit.interfaces.export_card import CardExporter, CardRequest, ExportCard
from graftkit.interfaces.exporter import Exporter
from graftkit.interfaces.model_source import LicensedModel
from graftkit.report.model_card import CARD, hub_id, public_name, render_card
from graftkit.report.run_manifest import MergeFacts
from graftkit.store.files import write_text

__all__ = ["write_model_card"]


def write_model_card(
    run: RunContext,
    exporter: Exporter,
    name: str,
    folder: Path,
    proof: Mapping[str, Any],
    merge: MergeFacts | None = None,
) -> None:
    """Writes README.md, in place of any that the exporter's library wrote, and lists it in the export's manifest.

    The manifest comes first: a file that it lists is the run's own, wherever a kill leaves the run. A README.md of the
    user's stays, and there is no card.

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
    if CARD in run.theirs(f"exports/{name}"):
        run.notice("export", f"exports/{name}/{CARD} is not the run's and stays: no model card is written")
        return
    files, chat = run.plan.files, run.plan.chats
    told = must_be_passed(chat_options(run.plan.bound), run.plan.encoder.template if chat else None)
    text = render_card(
        name,
        run.manifest,
        proof,
        _of_the_format(run, exporter, folder),
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


def _of_the_format(run: RunContext, exporter: Exporter, folder: Path) -> ExportCard | None:
    if not isinstance(exporter, CardExporter):
        return None
    reference = run.plan.files.reference
    base = hub_id(reference) or f"./{public_name(reference)}"  # a bare name would be looked for on the hub
    asked = run.manifest.data.prompts if run.manifest.data else "chat"
    chat = asked == "chat" and run.vocabulary.tokenizer.chat_template is not None
    head = run.plan.head
    about = (head.kind, tuple(head.labels), head.pad) if head else ()
    found = exporter.card(CardRequest(folder, base, chat, *about))
    if not isinstance(found, ExportCard):
        raise ExportError(
            f"the exporter '{type(exporter).__name__}' gives {with_article(type(found).__name__)} for its card"
        )
    return found
