"""Turns a run's facts into one HTML page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

from jinja2 import Environment
from markupsafe import Markup

from graftkit.report.closed_page import with_policy
from graftkit.report.figures import bits_per_byte_bars, loss_curve
from graftkit.report.run_manifest import RunManifest, required
from graftkit.report.summary import (
    exported_text,
    memory_rows,
    merge_rows,
    merge_text,
    metric_columns,
    metric_rows,
    proof_text,
    training_seconds,
    vocabulary_text,
)
from graftkit.visible import visible

__all__ = ["render_report"]

SHOWN_ANSWERS = 20


def render_report(
    title: str,
    manifest: RunManifest,
    steps: Sequence[Mapping[str, Any]],
    answers: Sequence[Mapping[str, Any]],
    holdout: Mapping[int, float],
) -> str:
    """Renders the page.

    Args:
        title: The run's name.
        manifest: What manifest.json says.
        steps: The lines of metrics.jsonl, a line a step.
        answers: What the trained model answered to holdout rows.
        holdout: The holdout loss after each step that was evaluated while the model was trained.
    """
    template = Environment(autoescape=True, finalize=_shown).from_string(
        files("graftkit.report").joinpath("template.html").read_text(encoding="utf-8")
    )
    parameters = required(manifest.parameters, "parameters")
    page = template.render(
        title=title,
        model=manifest.recipe["model"]["path"],
        adapter=manifest.providers["adapter"]["name"],
        quantizer=manifest.providers["quantizer"]["name"],
        trainable=f"{parameters.trainable:,}",
        total=f"{parameters.total:,}",
        share=f"{parameters.trainable_share:.2%}",
        seconds=round(training_seconds(manifest)),
        notices=manifest.notices,
        columns=metric_columns(manifest),
        metrics=metric_rows(manifest),
        vocabulary=vocabulary_text(manifest),
        tokenizer=manifest.tokenizer.fingerprint if manifest.tokenizer else "",
        bits=bits_per_byte_bars(manifest.metrics) if "base" in manifest.metrics else "",
        exported=exported_text(manifest),
        curve=loss_curve(steps, holdout),
        answers=answers[:SHOWN_ANSWERS],
        exports=[
            {
                "name": name,
                "proof": proof_text(facts.proof),
                "folder": facts.folder,
                "merge": merge_text(facts.merge) if facts.merge else "",
                "merges": merge_rows(facts.merge) if facts.merge else [],
                "measured_on": facts.merge.measured_on if facts.merge else "",
            }
            for name, facts in manifest.exports.items()
        ],
        memory=memory_rows(manifest),
        stages=manifest.stages,
        recipe=json.dumps(manifest.recipe, indent=2, ensure_ascii=False),
    )
    return with_policy(page)


def _shown(value: Any) -> Any:
    """Writes out what a page would obey in a text, but in what is a part of the page."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value
