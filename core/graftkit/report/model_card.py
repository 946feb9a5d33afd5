"""The model card of an export: README.md with the front matter that the hub reads.

Source: the hub's documentation of model cards (`base_model`, `base_model_relation`, `library_name`, `pipeline_tag`).
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from glob import has_magic
from itertools import takewhile
from pathlib import Path, PurePath
from typing import Any

from graftkit._version import __version__
from graftkit.interfaces.export_card import ExportCard
from graftkit.redact import without_secret_values, without_secrets
from graftkit.report.markdown import code, fenced, plain, yaml_text
from graftkit.report.run_manifest import MergeFacts, RunManifest
from graftkit.report.summary import (
    merge_rows,
    merge_text,
    metric_columns,
    metric_rows,
    proof_text,
    training_seconds,
    vocabulary_text,
)

__all__ = ["CARD", "hub_id", "public_name", "render_card"]

CARD = "README.md"

_TASKS = {"language": "text-generation", "sequence": "text-classification", "masked": "fill-mask"}
"""The hub's names of what models are for, by their heads."""

_HUB_ID = re.compile(r"(?:hub:)?([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)", re.ASCII)
_DATA_SET = re.compile(r"hub:([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)@.*", re.ASCII)
_LICENSE = re.compile(r"[a-z0-9][a-z0-9.+-]{0,39}")


def hub_id(reference: str) -> str | None:
    """Returns the hub's id of a base model, or None where it lies on this machine."""
    found = _HUB_ID.fullmatch(reference)
    return found[1] if found else None


def public_name(reference: str) -> str:
    """Returns what a base model is called in what is published: its id on the hub, or the name of its file or folder.

    Where that lies on a disk, and who works there, is nobody else's business.
    """
    return hub_id(reference) or PurePath(reference).name or "base-model"


def render_card(
    name: str,
    run: RunManifest,
    proof: Mapping[str, Any],
    card: ExportCard | None,
    *,
    merge: MergeFacts | None = None,
    base_license: str | None = None,
    must_be_passed: str | None = None,
) -> str:
    """Returns the text of README.md.

    Args:
        name: The export's name.
        run: What the run says of itself.
        proof: What proving the export gave.
        card: What the exporter says of its format; None where it says nothing.
        merge: What the export's adapter was merged onto; None where it is not merged, or its format can't tell.
        base_license: The base model's license, as the hub names it; None where its files don't say.
        must_be_passed: What other programs have to be told when they load it.
    """
    sections = [
        _front_matter(run, card, base_license),
        f"# {plain(_title(run, name))}",
        _base(run),
        _data(run),
        _training(run),
        _figures(run),
        _merge(merge),
        _proof(proof),
        _loading(card, must_be_passed, run, name),
        _recipe(run),
        f"Made with graftkit {__version__}; `graftkit.json` lists every file with its hash.",
    ]
    return without_secrets("\n\n".join(filter(None, sections)) + "\n")


def _title(run: RunManifest, name: str) -> str:
    reference = run.model.reference if run.model else ""
    return f"{PurePath(reference).name or 'a model'}, adapted ({name})"


def _front_matter(run: RunManifest, card: ExportCard | None, base_license: str | None) -> str:
    base = hub_id(run.model.reference) if run.model else None
    found: dict[str, str | Sequence[str] | None] = {
        "base_model": base,
        "base_model_relation": card.relation if card and base else None,
        "library_name": card.library if card else None,
        "license": base_license if base_license and _LICENSE.fullmatch(base_license) else None,
        "pipeline_tag": _TASKS[run.head.kind if run.head else "language"],
        "datasets": _hub_data_sets(run),
        "tags": list(dict.fromkeys(["graftkit", *_methods(run), *(card.tags if card else ())])),
    }
    return "\n".join(["---", *_yaml(found), "---"])


def _yaml(data: Mapping[str, str | Sequence[str] | None]) -> Iterator[str]:
    for key, value in data.items():
        if isinstance(value, str):
            yield f"{key}: {yaml_text(value)}"
        elif value:
            yield f"{key}:"
            yield from (f"- {yaml_text(item)}" for item in value)


def _hub_data_sets(run: RunManifest) -> list[str]:
    names = (_DATA_SET.fullmatch(key) for key in (run.data.revisions if run.data else ()))
    return list(dict.fromkeys(found[1] for found in names if found))


def _methods(run: RunManifest) -> list[str]:
    found = (run.providers.get(kind, {}).get("name", "") for kind in ("adapter", "quantizer"))
    return [str(name) for name in found if name and name != "none"]


def _base(run: RunManifest) -> str:
    if run.model is None:
        return ""
    files = (f"- {code(name)}: sha256 {code(sha256)}" for name, sha256 in run.model.files.items())
    return "\n".join(["## Base model", "", code(public_name(run.model.reference)), "", *files])


def _data(run: RunManifest) -> str:
    facts = (run.data.model_extra or {}) if run.data else {}
    sets: Sequence[Mapping[str, Any]] = facts.get("data_sets") or ()
    lines = [f"- {code(_shown_path(str(found['path'])))}: {found['records']:,} records" for found in sets]
    counts = [
        f"- {name}: {facts[f'{part}_examples']:,} examples, {facts[f'{part}_tokens']:,} tokens, "
        f"{facts[f'{part}_loss_tokens']:,} of them in the loss"
        for part, name in (("train", "trained on"), ("holdout", "held out"))
        if f"{part}_examples" in facts
    ]
    return "\n".join(["## Data", "", *lines, *counts])


def _shown_path(path: str) -> str:
    """Returns a file's name: its folder is the business of whoever trained; a data set of the hub is named in full."""
    return path if path.startswith(("hub:", "hf:")) else PurePath(path).name or path


def _training(run: RunManifest) -> str:
    stage = next((stage for stage in run.stages if stage.name == "training"), None)
    facts = (stage.model_extra or {}) if stage else {}
    method, *quantizer = _methods(run) or ["an adapter"]
    text = f"{plain(method)}{f' on {plain(quantizer[0])} weights' if quantizer else ''}"
    if "steps" in facts:
        text += f", {facts['steps']:,} steps of {facts['tokens']:,} tokens in all, {training_seconds(run):.0f} seconds"
    if run.parameters:
        share = run.parameters
        text += f"; {share.trainable:,} of {share.total:,} parameters ({share.trainable_share:.2%}) were trained"
    vocabulary = vocabulary_text(run)
    return f"## Training\n\n{text}.{f' The {vocabulary}.' if vocabulary else ''}"


def _figures(run: RunManifest) -> str:
    rows = metric_rows(run)
    if not rows:
        return ""
    columns = metric_columns(run)
    lines = [f"| | {' | '.join(columns)} |", "|---|" + "---:|" * len(columns)]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join(["## Figures", "", "On the records that were held out:", "", *lines])


def _merge(merge: MergeFacts | None) -> str:
    """Says what the adapter was merged onto, where that was measured or is not what was trained."""
    if merge is None or not merge_text(merge):
        return ""
    lines = ["## What the adapter was merged onto", "", f"{plain(merge_text(merge))}."]
    rows = merge_rows(merge)
    if rows:
        heading, *scores = rows
        lines += ["", f"Measured on {plain(merge.measured_on)}:", "", f"| {' | '.join(heading)} |"]
        lines += ["|---|" + "---:|" * (len(heading) - 1), *(f"| {' | '.join(row)} |" for row in scores)]
    return "\n".join(lines)


def _proof(proof: Mapping[str, Any]) -> str:
    how = "It was loaded again in a process of its own: " if proof.get("status") == "proved" else "It was "
    return f"## How it was proved\n\n{how}{plain(proof_text(proof))}."


def _loading(card: ExportCard | None, must_be_passed: str | None, run: RunManifest, name: str) -> str:
    notes = [plain(note) for note in (card.notes if card else ())]
    written = [stage for stage in run.stages if stage.name == f"export {name}"]
    told = (written[-1].model_extra or {}).get("notices", ()) if written else ()
    notes += [f"{plain(text[:1].upper() + text[1:])}." for text in told]
    quantizer = str(run.providers.get("quantizer", {}).get("name", "none"))
    if card and card.relation == "adapter" and quantizer != "none":
        notes.append(
            f"The adapter was trained on the base model's weights as {plain(quantizer)} stores them, and proved on "
            "these; on the original weights it computes something a little else."
        )
    if card and card.relation == "adapter" and run.model and hub_id(run.model.reference) is None:
        name = code(public_name(run.model.reference))
        notes.append(f"Put the path of the base model in the place of {name}: the files above are its.")
    if must_be_passed:
        notes.append(plain(must_be_passed[0].upper() + must_be_passed[1:]) + ".")
    if run.data and (run.data.system or run.data.tools):
        what = " and ".join(
            filter(None, ["the same system message" * bool(run.data.system), "the same tools" * bool(run.data.tools)])
        )
        notes.append(f"Every conversation of the training had {what}: `graftkit.json` holds them.")
    examples = [
        f"### {plain(example.program)}\n\n{fenced(example.code, example.language)}"
        for example in (card.loading if card else ())
    ]
    return "\n\n".join(["## How to load it", *notes, *examples]) if notes or examples else ""


def _recipe(run: RunManifest) -> str:
    text = json.dumps(_without_folders(without_secret_values(run.recipe)), indent=2, ensure_ascii=False)
    return f"<details>\n<summary>The recipe, every default filled in</summary>\n\n{fenced(text, 'json')}\n\n</details>"


def _without_folders(value: Any) -> Any:
    """Returns a recipe in which the paths of this machine are names of files and folders."""
    if isinstance(value, Mapping):
        return {key: _without_folders(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_without_folders(inner) for inner in value]
    return PurePath(value).name if isinstance(value, str) and _is_place(value) else value


def _is_place(text: str) -> bool:
    """Tells whether a text is an absolute path, or pattern, of something in a folder that is there."""
    path = Path(text)
    folder = Path(*takewhile(lambda part: not has_magic(part), path.parent.parts))
    return path.is_absolute() and len(folder.parts) > 1 and "\n" not in text and os.path.lexists(folder)
