"""Turns a run's facts into one HTML page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from graftkit.interfaces.architecture import OF_WHOLES
from graftkit.interfaces.report_section import ReportChart, ReportPart, ReportSection, ReportTable
from graftkit.report.compared_numbers import compared_in
from graftkit.report.figures import (
    bits_per_byte_bars,
    length_bars,
    loss_chart,
    plugin_chart,
    rate_chart,
    reward_chart,
    sampling_charts,
)
from graftkit.report.next_commands import next_commands
from graftkit.report.page import cut, render
from graftkit.report.run_data import LengthFigures, RunData
from graftkit.report.run_manifest import ExportFacts, RunManifest, required
from graftkit.report.summary import (
    exported_text,
    memory_rows,
    merge_rows,
    merge_text,
    metric_columns,
    metric_rows,
    objective_of,
    proof_text,
    samples_answers,
    training_seconds,
    vocabulary_text,
)

__all__ = ["loss_unit", "render_report"]

SHOWN_ANSWERS = 20


def render_report(run: RunData, sections: Sequence[tuple[str, ReportSection]] = ()) -> str:
    """Renders the page.

    Args:
        run: The run.
        sections: What plugins add, each with the plugin's name.

    Raises:
        FolderError: The manifest does not say what a finished run's says.
    """
    manifest = run.manifest
    rows, sampled = metric_rows(manifest), samples_answers(manifest.recipe)
    memory = memory_rows(manifest)
    return render(
        "report.html",
        title=run.name,
        summary=_summary(manifest),
        notices=[*manifest.notices, *run.damage],
        metrics=[("", *metric_columns(manifest)), *rows] if rows else [],
        vocabulary=vocabulary_text(manifest),
        bits=bits_per_byte_bars(manifest.metrics) if "base" in manifest.metrics else "",
        exported=exported_text(manifest),
        loss=reward_chart(run.steps, run.holdout)
        if sampled
        else loss_chart(run.steps, run.holdout, loss_unit(manifest)),
        sampling=sampling_charts(run.steps) if sampled else [],
        rate=rate_chart(run.steps) if run.steps else "",
        answers=sorted(run.answers, key=lambda answer: answer.right_after)[:SHOWN_ANSWERS],
        answered=len(run.answers),
        right=_right(run),
        worst=run.worst,
        examined=f"{run.examined:,}",
        sampled=sampled,
        lengths=_length_rows(run.lengths, _learnt(manifest, sampled=sampled)),
        length_charts=[(name, length_bars(figures)) for name, figures in run.lengths.items()],
        exports=[_export(name, facts) for name, facts in manifest.exports.items()],
        sections=[_section(plugin, section) for plugin, section in sections],
        memory=memory,
        memory_missing=_no_forecast(manifest) if memory else "",
        stages=[("stage", "seconds"), *((stage.name, f"{stage.seconds:.1f}") for stage in manifest.stages)],
        commands=next_commands(run.folder, manifest),
        versions=_versions(manifest),
        hashes=_hashes(manifest),
        recipe=json.dumps(manifest.recipe, indent=2, ensure_ascii=False),
    )


def _section(plugin: str, section: ReportSection) -> dict[str, Any]:
    """Returns a plugin's section as the template takes it: texts, which it escapes, and drawings that are made here."""
    return {"title": section.title, "plugin": plugin, "parts": [_part(part, section) for part in section.parts]}


def _part(part: ReportPart, section: ReportSection) -> dict[str, Any]:
    if isinstance(part, ReportTable):
        rows = [[cut(str(cell)) for cell in row] for row in (part.header, *part.rows)]
        return {"kind": "table", "rows": rows, "caption": part.caption or section.title}
    if isinstance(part, ReportChart):
        return {"kind": "chart", "drawing": plugin_chart(part, section.title)}
    return {"kind": "preformatted" if part.preformatted else "text", "text": part.text}


def loss_unit(manifest: RunManifest) -> str:
    """Returns what a run's loss is counted in."""
    objective = objective_of(manifest)
    return "nats a token" if objective in ("sft", "masked-lm") else objective


def _summary(manifest: RunManifest) -> str:
    parameters = required(manifest.parameters, "parameters")
    adapter, quantizer = (_said(manifest.providers, "providers", kind, "name") for kind in ("adapter", "quantizer"))
    parts = [
        _said(manifest.recipe, "recipe", "model", "path"),
        f"{adapter} on {quantizer}",
        f"{parameters.trainable:,} of {parameters.total:,} parameters trained ({parameters.trainable_share:.2%})",
        f"{training_seconds(manifest):,.0f} s of training",
    ]
    return " · ".join(parts)


def _said(facts: Any, part: str, *keys: str) -> str:
    """Returns a text that a part of a manifest says, which may have been edited.

    Raises:
        FolderError: It doesn't say it.
    """
    for key in keys:
        facts = facts.get(key) if isinstance(facts, Mapping) else None
    return required(facts if isinstance(facts, str) else None, ".".join((part, *keys)))


def _right(run: RunData) -> str:
    """Says how many answers were right before training and after it."""
    known = [answer for answer in run.answers if answer.before is not None and answer.after is not None]
    before, after = (sum(getattr(answer, f"right_{when}") for answer in known) for when in ("before", "after"))
    return f"right: {before} before training, {after} after it" if known else ""


def _learnt(manifest: RunManifest, *, sampled: bool) -> str:
    """Says which tokens are counted beside all; nothing where something is learnt of whole sequences."""
    if manifest.head is not None and manifest.head.kind in OF_WHOLES:
        return ""
    return "tokens of expected answers" if sampled else "tokens in the loss"


def _length_rows(lengths: Mapping[str, LengthFigures], learnt: str) -> list[tuple[str, ...]]:
    if not lengths:
        return []
    figures = lengths.values()
    rows = {
        "examples": [f"{each.examples:,}" for each in figures],
        "tokens": [f"{each.tokens:,}" for each in figures],
        **(
            {learnt: [f"{each.loss_tokens:,} ({each.loss_tokens / each.tokens:.0%})" for each in figures]}
            if learnt
            else {}
        ),
        "shortest": [f"{each.shortest:,}" for each in figures],
        "median": [f"{each.median:,}" for each in figures],
        "95 in 100 up to": [f"{each.long:,}" for each in figures],
        "longest": [f"{each.longest:,}" for each in figures],
    }
    return [("", *lengths), *((name, *values) for name, values in rows.items())]


def _export(name: str, facts: ExportFacts) -> dict[str, Any]:
    return {
        "name": name,
        "proof": proof_text(facts.proof),
        "proved": facts.proof.get("status") == "proved",
        "parity": _parity(facts.proof),
        "folder": facts.folder,
        "merge": merge_text(facts.merge) if facts.merge else "",
        "merges": merge_rows(facts.merge) if facts.merge else [],
        "measured_on": facts.merge.measured_on if facts.merge else "",
    }


def _parity(proof: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Returns the headings, and what was compared of an export's logits; nothing where nothing was."""
    if proof.get("status") != "proved":
        return []
    numbers = compared_in(proof)
    rows = [(f"largest difference of {numbers.one}", f"{proof['max_abs_diff']:.1e}", f"{proof['tolerance']:.1e}")]
    if "mean_abs_diff" in proof:
        rows.append(("mean difference", f"{proof['mean_abs_diff']:.1e}", ""))
    if "top1_agreement" in proof:
        rows.append((f"the same likeliest {numbers.likeliest}", f"{proof['top1_agreement']:.2%}", ""))
    rounding = proof.get("rounding")
    if rounding:
        rows.append(
            (f"{numbers.divergence} by rounding", f"{rounding['divergence']:.1e}", f"{rounding['allowed']:.1e}")
        )
    return [("", "measured", "allowed"), *rows]


def _no_forecast(manifest: RunManifest) -> str:
    forecast = manifest.memory.forecast if manifest.memory else None
    if forecast and forecast.unknown:
        return f"There is no forecast: {forecast.unknown}."
    return "" if forecast else "A run forecasts only where a key of its recipe says auto; toolkit plan always does."


def _versions(manifest: RunManifest) -> list[tuple[str, str]]:
    others = {
        f"{facts.get('distribution')} {facts.get('version')}"
        for facts in manifest.providers.values()
        if isinstance(facts, dict) and facts.get("distribution") not in (None, "graftkit")
    }
    plugins = [("plugins", ", ".join(sorted(others)))] if others else []
    return [("graftkit", manifest.graftkit), *manifest.environment.items(), *plugins, ("seed", str(manifest.seed))]


def _hashes(manifest: RunManifest) -> list[tuple[str, str]]:
    tokenizer, data = manifest.tokenizer, manifest.data
    found = list((manifest.model.files if manifest.model else {}).items())
    if tokenizer:
        found.append(("tokenizer", tokenizer.fingerprint))
        found += [("chat template", tokenizer.chat_template)] if tokenizer.chat_template else []
    found += [
        (f"{name} records", text) for name, text in (data.fingerprint if data else {}).items() if name != "layout"
    ]
    return found
