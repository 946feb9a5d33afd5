"""`toolkit plan`: what a recipe would do, without loading a weight."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import click

from graftkit.cli.options import disable_option, host_of, json_option, recipe_arguments
from graftkit.cli.streams import output_to_stderr
from graftkit.cli.terminal import json_line
from graftkit.flow.plan import RunPlan
from graftkit.flow.run import plan

__all__ = ["command"]


@click.command("plan")
@recipe_arguments
@click.option(
    "--quick", is_flag=True, help="Check recipe, files and records alone: not device, architecture and exports."
)
@disable_option
@json_option
def command(recipe: str, overrides: tuple[str, ...], quick: bool, disable: tuple[str, ...], as_json: bool) -> None:
    """Check a RECIPE as `run` does before it encodes a record, and say what it would do.

    Like `run` it imports torch, looks for the device, and makes a new vocabulary where the recipe asks for one.
    """
    with output_to_stderr():
        host = host_of(recipe, overrides, disable)
        facts = describe(plan(recipe, overrides=overrides, host=host, as_run=not quick))
    host.take_notices()  # they are among the plan's
    if as_json:
        click.echo(json_line(facts))
        return
    for key in ("model", "tokenizer", "quantizer", "adapter", "records", "exports", "checked"):
        click.echo(f"{key:12}{facts[key]['text']}")
    for notice in facts["notices"]:
        click.echo(f"note: {notice}")


def describe(plan: RunPlan) -> dict[str, Any]:
    """Returns what a plan amounts to, as JSON; under each key `text` says it in words."""
    bound, files = plan.bound, plan.files
    total = sum(prod(info.shape) for info in files.tensors.values())
    samples = {"train": plan.samples.train.counts(), "holdout": plan.samples.holdout.counts()}
    layers = f"{len(plan.targets)} layers"
    expected = plan.forecast
    fields = " ".join(f"{key}={value!r}" for key, value in bound.adapter.facts()["config"].items())
    return {
        "model": {
            "reference": files.reference,
            "parameters": total,
            "text": f"{files.reference}: {files.config['model_type']}, {total:,} parameters ({_label(plan.source)})",
        },
        "tokenizer": {
            "vocab_size": plan.tokenizer.vocab_size,
            "fingerprint": plan.tokenizer.fingerprint,
            "change": plan.vocabulary.describe() if plan.vocabulary else None,
            "text": f"{plan.tokenizer.vocab_size:,} ids ({_label(plan.backend)})"
            + (f", {plan.vocabulary.describe()}" if plan.vocabulary else ""),
        },
        "quantizer": {
            **bound.quantizer.facts(),
            "frozen_linear_bytes": expected["frozen_linear_bytes"],
            "text": _label(bound.quantizer.registered)
            + _about(expected["frozen_linear_bytes"], "bytes of frozen layers"),
        },
        "adapter": {
            **bound.adapter.facts(),
            "targets": plan.targets,
            "parameters": expected["adapter_parameters"],
            "text": f"{_label(bound.adapter.registered)} on {layers}: {fields}"
            + _about(expected["adapter_parameters"], "trainable parameters"),
        },
        "records": {
            **samples,
            "data_sets": plan.data_sets(),
            "text": "; ".join(
                [*(f"{side}: {_counts(found)}" for side, found in samples.items()), *_shares(plan.data_sets())]
            ),
        },
        "exports": {
            "names": [use.folder for use, _ in bound.exports],
            "text": ", ".join(f"{use.folder} ({_label(choice.registered)})" for use, choice in bound.exports) or "none",
        },
        "checked": {**(plan.checked or {}), "text": _checked(plan)},
        "recipe": bound.resolved(),
        "notices": plan.notices,
    }


def _checked(plan: RunPlan) -> str:
    if plan.checked is None:
        return "recipe, files and records; not device, architecture and exports"
    rows = f", {plan.checked['new_rows']:,} new rows" if plan.checked["new_rows"] else ""
    return f"all that run checks before it encodes records, on {plan.checked['device']}{rows}"


def _label(registered: Any) -> str:
    plugin = registered.plugin
    return f"{registered.provider.name} of {plugin.distribution or plugin.name} {plugin.version}".rstrip()


def _counts(found: dict[str, int]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in found.items()) or "none"


def _shares(data_sets: Sequence[dict[str, Any]]) -> list[str]:
    """Says how many training records of each data set an epoch sees; nothing where it is all of the only one."""
    if len(data_sets) == 1 and data_sets[0]["weight"] == 1:
        return []
    return [
        f"{found['path']}: an epoch sees {found['seen_an_epoch']:,.10g} of {found['records']:,}" for found in data_sets
    ]


def _about(count: int | None, what: str) -> str:
    return "" if count is None else f", about {count:,} {what}"
