"""Writes one export and its manifest, in the form that its exporter gives it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from graftkit._version import __version__
from graftkit.errors import ExportError
from graftkit.flow.base_files.towers import check_towers
from graftkit.flow.exports.left_alone import files_left_alone, model_left_alone
from graftkit.flow.folders.export_manifest import (
    EXPORT_MANIFEST,
    FORMAT,
    NOT_YET_PROVED,
    OF_THE_MANIFEST,
    ExportManifest,
    checked_tolerance,
)
from graftkit.flow.folders.refused_files import drop_foreign_code
from graftkit.flow.folders.vocabulary_file import VOCABULARY
from graftkit.host.records import BUILT_IN
from graftkit.interfaces.exporter import Exporter
from graftkit.model.adapt import AdaptedModel
from graftkit.recipe.bind import Choice
from graftkit.redact import without_secrets
from graftkit.report.model_card import CARD
from graftkit.store.file_hashes import file_facts
from graftkit.store.folders import atomic_folder

__all__ = ["write_export"]


def write_export(
    model: AdaptedModel,
    exporter: Exporter,
    choice: Choice,
    folder: Path,
    said: ExportManifest,
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
        said: What its manifest says besides: of base model, quantizer, adapter, tokenizer and chat.
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
            own = exporter.export(_with_own_settings(model, said.prompts), temporary)
        check_towers(model, temporary)
        if vocabulary:
            shutil.copyfile(vocabulary, temporary / VOCABULARY)
        manifest = {
            "graftkit": __version__,
            "manifest_format": FORMAT,
            "exporter": choice.facts(),
            **{key: getattr(said, key) for key in said.model_fields_set},
            "tokenizer_fingerprint": model.tokenizer.fingerprint,
            "tolerance": checked_tolerance(exporter.tolerance(), name),
            "proof": NOT_YET_PROVED,
            **_facts_beside(own, name),
        }
        drop_foreign_code(temporary)
        (temporary / CARD).unlink(missing_ok=True)  # core's own comes once it is proved, unless the user has edited one
        manifest["files"] = file_facts(temporary)
        ExportManifest.model_validate(manifest).write(temporary)


def _with_own_settings(model: AdaptedModel, prompts: Literal["chat", "plain"]) -> AdaptedModel:
    """Returns the model with settings that nobody else sees, so that what an exporter does to them stays its own."""
    return replace(
        model,
        config=deepcopy(model.config),
        generation_config=deepcopy(model.generation_config),
        processors=deepcopy(model.processors),
        prompts=prompts,
        adapted=dict(model.adapted),
    )


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
