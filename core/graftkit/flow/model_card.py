"""Writes the model card of an export, once it is proved."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from graftkit.errors import ExportError
from graftkit.flow.chat import chat_options, must_be_passed
from graftkit.flow.context import RunContext
from graftkit.interfaces.export_card import CardExporter, CardRequest, ExportCard
from graftkit.interfaces.exporter import Exporter
from graftkit.interfaces.model_source import LicensedModel
from graftkit.interfaces.references import local_path
from graftkit.report.model_card import CARD, hub_id, render_card
from graftkit.store.files import sha256_of, write_text

__all__ = ["write_card"]


def write_card(
    run: RunContext, exporter: Exporter, name: str, folder: Path, proof: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """Writes README.md, in place of any that the exporter's library wrote.

    Args:
        run: The run.
        exporter: What wrote the export.
        name: The export's name.
        folder: The export.
        proof: What proving it gave.

    Returns:
        The card's size and hash, by its path in the export, for the export's manifest.

    Raises:
        ExportError: The exporter says something else than a card's part.
    """
    files = run.plan.files
    text = render_card(
        name,
        run.manifest,
        proof,
        _of_the_format(run, exporter, folder),
        base_license=files.license if isinstance(files, LicensedModel) else None,
        must_be_passed=must_be_passed(chat_options(run.plan.bound)),
    )
    path = folder / CARD
    write_text(path, text)
    return {CARD: {"bytes": path.stat().st_size, "sha256": sha256_of(path)}}


def _of_the_format(run: RunContext, exporter: Exporter, folder: Path) -> ExportCard | None:
    if not isinstance(exporter, CardExporter):
        return None
    reference = run.plan.files.reference
    base = hub_id(reference) or str(local_path(reference))
    asked = run.manifest.data.prompts if run.manifest.data else "chat"
    chat = asked == "chat" and run.vocabulary.tokenizer.chat_template is not None
    found = exporter.card(CardRequest(folder, base, chat))
    if not isinstance(found, ExportCard):
        raise ExportError(f"the exporter '{type(exporter).__name__}' gives a {type(found).__name__} for its card")
    return found
