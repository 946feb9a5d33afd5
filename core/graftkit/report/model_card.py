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
from graftkit.interfaces.architecture import OF_WHOLES
from graftkit.interfaces.export_card import ExportCard
from graftkit.redact import without_secret_values, without_secrets
from graftkit.report.card_facts import CardFacts
from graftkit.report.markdown import code, fenced, plain, yaml_text
from graftkit.report.run_manifest import BaseFacts, MergeFacts
from graftkit.report.summary import merge_rows, merge_text, proof_text, samples_answers

__all__ = ["CARD", "hub_id", "public_name", "render_card", "with_proof"]

CARD = "README.md"

_TASKS = {
    "language": "text-generation",
    "sequence": "text-classification",
    "token": "token-classification",
    "masked": "fill-mask",
    "embedding": "sentence-similarity",
}
"""The hub's names of what models are for, by their heads."""

_HUB_ID = re.compile(r"(?:hub:)?([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)", re.ASCII)
_HEADING = "## How it was proved"
_PROOF = re.compile(rf"^{re.escape(_HEADING)}\n\n.*$", re.MULTILINE)
_LICENSE = re.compile(r"[a-z0-9][a-z0-9.+-]{0,39}")

_LONGEST_SYSTEM = 1_000
"""Characters of a system message that a card shows."""


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
    facts: CardFacts,
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
        facts: How the export came about.
        proof: What proving the export gave.
        card: What the exporter says of its format; None where it says nothing.
        merge: What the export's adapter was merged onto; None where it is not merged, or its format can't tell.
        base_license: The base model's license, as the hub names it; None where its files don't say.
        must_be_passed: What other programs have to be told when they load it.
    """
    sections = [
        _front_matter(facts, card, base_license),
        f"# {plain(_title(facts, name))}",
        _base(facts.base),
        _adapter_from(facts),
        _data(facts),
        _training(facts),
        _figures(facts.figures),
        _merge(merge),
        _proof(proof),
        _loading(card, must_be_passed, facts),
        _recipe(facts.recipe),
        f"Made with graftkit {__version__}; `graftkit.json` lists every file with its hash.",
    ]
    return without_secrets("\n\n".join(filter(None, sections)) + "\n")


def _title(facts: CardFacts, name: str) -> str:
    reference = facts.base.reference if facts.base else ""
    return f"{PurePath(reference).name or 'a model'}, adapted ({name})"


def _front_matter(facts: CardFacts, card: ExportCard | None, base_license: str | None) -> str:
    base = hub_id(facts.base.reference) if facts.base else None
    found: dict[str, str | Sequence[str] | None] = {
        "base_model": base,
        "base_model_relation": card.relation if card and base else None,
        "library_name": card.library if card else None,
        "license": base_license if base_license and _LICENSE.fullmatch(base_license) else None,
        "pipeline_tag": _TASKS[facts.head.kind if facts.head else "language"],
        "datasets": facts.hub_data_sets,
        "tags": list(dict.fromkeys(["graftkit", *facts.methods, *(card.tags if card else ())])),
    }
    return "\n".join(["---", *_yaml(found), "---"])


def _yaml(data: Mapping[str, str | Sequence[str] | None]) -> Iterator[str]:
    for key, value in data.items():
        if isinstance(value, str):
            yield f"{key}: {yaml_text(value)}"
        elif value:
            yield f"{key}:"
            yield from (f"- {yaml_text(item)}" for item in value)


def _base(base: BaseFacts | None) -> str:
    return _files("Base model", public_name(base.reference), base.files) if base else ""


def _files(heading: str, name: str, files: Mapping[str, str]) -> str:
    lines = (f"- {code(file)}: sha256 {code(sha256)}" for file, sha256 in files.items())
    return "\n".join([f"## {heading}", "", code(name), "", *lines])


def _adapter_from(facts: CardFacts) -> str:
    """Names the adapter that there was before: the one that was exported, or that training went on with."""
    if facts.adapter_from is None:
        return ""
    heading = "The adapter that training went on with" if facts.training else "The adapter"
    found = _files(heading, PurePath(facts.adapter_from.path).name, facts.adapter_from.files)
    if facts.training:
        return found
    return f"{found}\n\n{_method(facts)}, {facts.layers:,} layers. It was exported as it is; its records are not known."


def _method(facts: CardFacts) -> str:
    quantized = facts.quantizer not in ("", "none")
    return plain(facts.adapter or "an adapter") + (f" on {plain(facts.quantizer)} weights" if quantized else "")


def _data(facts: CardFacts) -> str:
    lines = [f"- {code(_shown_path(path))}: {records:,} records" for path, records in facts.data_sets]
    what = "expected answers" if samples_answers(facts.recipe) else "in the loss"
    whole = facts.head is not None and facts.head.kind in OF_WHOLES
    counts = [
        f"- {count.part}: {count.examples:,} examples, {count.tokens:,} tokens"
        + ("" if whole else f", {count.loss_tokens:,} of them {what}")
        for count in facts.examples
    ]
    return "\n".join(["## Data", "", *lines, *counts]) if lines or counts else ""


def _shown_path(path: str) -> str:
    """Returns a file's name: its folder is the business of whoever trained; a data set of the hub is named in full."""
    return path if path.startswith(("hub:", "hf:")) else PurePath(path).name or path


def _training(facts: CardFacts) -> str:
    done = facts.training
    if done is None:
        return ""
    text = f"{_method(facts)}, {done.steps:,} steps of {done.tokens:,} tokens in all, {done.seconds:.0f} seconds"
    if facts.parameters:
        share = facts.parameters
        text += f"; {share.trainable:,} of {share.total:,} parameters ({share.trainable_share:.2%}) were trained"
    return f"## Training\n\n{text}.{f' The {facts.vocabulary}.' if facts.vocabulary else ''}"


def _figures(figures: Sequence[Sequence[str]]) -> str:
    if not figures:
        return ""
    lines = [f"| {' | '.join(row)} |" for row in figures]
    lines.insert(1, "|---|" + "---:|" * (len(figures[0]) - 1))
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


def with_proof(card: str, proof: Mapping[str, Any]) -> str | None:
    """Returns a card that says of another proof, as `render_card` would on the machine that the card was made on.

    Whoever proves an export later has not all that a card was made of, such as the base model with its license.

    Args:
        card: What `render_card` returned.
        proof: What proving the export gave.

    Returns:
        The card; None where it says nothing of a proof.
    """
    found = _PROOF.search(card)
    return None if found is None else card[: found.start()] + without_secrets(_proof(proof)) + card[found.end() :]


def _proof(proof: Mapping[str, Any]) -> str:
    if proof.get("status") == "failed":  # the reason may name folders, which are the business of whoever proved it
        return f"{_HEADING}\n\nIt was not proved: its proof failed. `graftkit.json` says why."
    how = "It was loaded again in a process of its own: " if proof.get("status") == "proved" else "It was "
    return f"{_HEADING}\n\n{how}{plain(proof_text(proof))}."


def _loading(card: ExportCard | None, must_be_passed: str | None, facts: CardFacts) -> str:
    notes = [plain(note) for note in (card.notes if card else ())]
    notes += [f"{plain(text[:1].upper() + text[1:])}." for text in facts.notices]
    if card and card.relation == "adapter" and facts.quantizer not in ("", "none"):
        stored = f"on the base model's weights as {plain(facts.quantizer)} stores them"
        done = f"trained {stored}, and proved on these" if facts.training else f"proved {stored}"
        notes.append(f"The adapter was {done}; on the original weights it computes something a little else.")
    if card and card.relation == "adapter" and facts.base and hub_id(facts.base.reference) is None:
        name = code(public_name(facts.base.reference))
        notes.append(f"Put the path of the base model in the place of {name}: the files above are its.")
    if must_be_passed:
        notes.append(plain(must_be_passed[0].upper() + must_be_passed[1:]) + ".")
    if facts.shared:
        what = " and ".join(facts.shared)
        held = "it" if len(facts.shared) == 1 else "them"
        notes.append(f"Every conversation of the training had {what}: `graftkit.json` holds {held}.")
    if 0 < len(facts.system) <= _LONGEST_SYSTEM and facts.head is None:
        first = json.dumps({"role": "system", "content": facts.system}, ensure_ascii=False)
        notes.append(f"To ask as in training, let `messages` begin with the system message:\n\n{fenced(first, 'json')}")
    examples = [
        f"### {plain(example.program)}\n\n{fenced(example.code, example.language)}"
        for example in (card.loading if card else ())
    ]
    return "\n\n".join(["## How to load it", *notes, *examples]) if notes or examples else ""


def _recipe(recipe: Mapping[str, Any] | None) -> str:
    if recipe is None:
        return ""
    text = json.dumps(_without_folders(without_secret_values(recipe)), indent=2, ensure_ascii=False)
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
