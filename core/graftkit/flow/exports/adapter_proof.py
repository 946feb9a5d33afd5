"""What an adapter without a run is proved with: texts of graftkit's own, and what other programs must load."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from graftkit.errors import named
from graftkit.flow.exports.assets import ExpectedAssets, expected_assets
from graftkit.flow.exports.export import sketches_for
from graftkit.flow.exports.kept_proof import TOKENIZER, KeptProof
from graftkit.flow.exports.merge import MergeSample
from graftkit.flow.exports.probes import PROBES_FILE, Probes, run_probes
from graftkit.flow.folders.export_manifest import ExportManifest
from graftkit.flow.folders.vocabulary_file import VOCABULARY
from graftkit.flow.preparation.adapter_model import stops_of
from graftkit.flow.preparation.base_model import LoadedModel
from graftkit.flow.preparation.plan_adapter import PlannedAdapter
from graftkit.flow.records.chat import options_of, template_hash
from graftkit.interfaces.exporter import Exporter
from graftkit.model.context import context_length
from graftkit.model.sampling import check_logits
from graftkit.model.skeleton import build_config
from graftkit.store.files import write_json
from graftkit.store.token_store import Example, TokenStore

__all__ = ["keep_proof", "manifest_of_adapter", "merge_sample"]

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


def keep_proof(planned: PlannedAdapter, loaded: LoadedModel, exporter: Exporter, made: Path, kept: KeptProof) -> Probes:
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


def _sequences(planned: PlannedAdapter) -> list[list[int]]:
    """Encodes what the adapter is tried with; every trained row of the embeddings is among it, some at a time."""
    tokenizer, rows = planned.tokenizer, planned.change.size if planned.change else None
    longest = min(_MOST_TOKENS, (context_length(planned.files.config) or 2 * _MOST_TOKENS) - 1)
    found = [ids[:longest] for ids in tokenizer.encode_batch(list(_TEXTS), "none")]
    if planned.change and planned.change.ids:
        found.append(list(planned.change.ids[: longest // 2]))
    kept = [[id for id in ids if rows is None or id < rows] for ids in found]
    return [ids for ids in kept if ids]


def merge_sample(probes: Probes) -> MergeSample:
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
        asked=manifest_of_adapter(planned, ()).asked,
        pairs=bool(manifest and manifest.head and manifest.head.pairs),
    )


def manifest_of_adapter(planned: PlannedAdapter, targets: Sequence[str]) -> ExportManifest:
    """Returns what the export's manifest says of what it was made of."""
    manifest, template = planned.folder.manifest, planned.tokenizer.chat_template
    trained: dict[str, Any] = {"chat": None, "prompts": "chat" if template else "plain", "system": None, "tools": []}
    trained["chat_template"] = template_hash(planned.tokenizer)
    trained["prompts"] = "plain" if planned.head else trained["prompts"]
    if manifest:
        trained = {key: getattr(manifest, key) for key in trained}
    return ExportManifest.model_validate(
        {
            **planned.facts,
            **trained,
            "targets": list(targets),
            "dtype": planned.dtype,
            **({"head": planned.head} if planned.head else {}),
            "stop_tokens": stops_of(planned),
            "adapter_from": {"path": str(planned.folder.path.absolute()), "files": dict(planned.folder.files)},
        }
    )
