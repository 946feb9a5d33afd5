"""`toolkit plan`: what a recipe would do, without loading a weight."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from graftkit.cli.options import disable_option, host_of, json_option, recipe_arguments
from graftkit.cli.plan_memory import (
    ConfigPlan,
    described_memory,
    fitted,
    foreseen_of,
    limits_of,
    with_memory_settled,
)
from graftkit.cli.plan_processes import described_processes, devices_of, room_of
from graftkit.cli.plan_time import described_time, timed
from graftkit.cli.streams import output_to_stderr
from graftkit.cli.terminal import json_line
from graftkit.errors import FolderError, RecipeError
from graftkit.flow.estimate import CorpusEstimate, describe_chosen, estimate_corpus, estimate_steps
from graftkit.flow.folder import default_folder
from graftkit.flow.plan import RunPlan
from graftkit.flow.plan_teacher import Teacher
from graftkit.flow.run import plan
from graftkit.host.host import PluginHost
from graftkit.interfaces.counts import count_weights
from graftkit.recipe.load import recipe_name
from graftkit.report.run_manifest import MemoryForecast, RunManifest
from graftkit.visible import further_lines_indented

if TYPE_CHECKING:
    from graftkit.flow.fit_memory import MemoryLimits
    from graftkit.flow.forecast_processes import Devices
    from graftkit.training.block_uses import BlockUses

__all__ = ["command"]


@click.command("plan")
@recipe_arguments
@click.option(
    "--quick", is_flag=True, help="Check recipe, files and records alone: not device, architecture and exports."
)
@click.option("--from-config", is_flag=True, help="Forecast memory alone, from the model's config.json and no files.")
@click.option("--memory", metavar="SIZE", help="Find what to change so that it fits in so much memory, such as 8GB.")
@click.option("--device-memory", metavar="SIZE", help="The same of a GPU's memory.")
@click.option("--time", "timing", is_flag=True, help="Time passes through some layers, and tell how long it will take.")
@click.option(
    "--devices",
    type=click.IntRange(1),
    help="Forecast so many processes, one a device: memory of each, bytes of a step.",
)
@click.option("--nodes", type=click.IntRange(1), help="On how many machines those devices are; 1 when left out.")
@click.option(
    "--bandwidth", metavar="SIZE", help="Bytes a second into a device from others of its machine; 25GB when left out."
)
@click.option("--network", metavar="SIZE", help="Bytes a second into a machine from others; 12.5GB when left out.")
@click.option("--out", type=click.Path(dir_okay=False), metavar="FILE", help="Write the recipe that fits to FILE.")
@disable_option
@json_option
def command(
    recipe: str,
    overrides: tuple[str, ...],
    quick: bool,
    from_config: bool,
    memory: str | None,
    device_memory: str | None,
    timing: bool,
    devices: int | None,
    nodes: int | None,
    bandwidth: str | None,
    network: str | None,
    out: str | None,
    disable: tuple[str, ...],
    as_json: bool,
) -> None:
    """Check a RECIPE as `run` does before it encodes a record, and say what it would do.

    Like `run` it imports torch, looks for the device, and makes a new vocabulary where the recipe asks for one.
    It forecasts the memory that the run takes, with --devices that of each of several processes, and what they send.
    """
    among = devices_of(devices, nodes, bandwidth, network)
    if out and not (memory or device_memory):
        raise RecipeError("--out writes the recipe that fits: say in how much, with --memory or --device-memory")
    if quick and (memory or device_memory or from_config):
        raise RecipeError("--quick forecasts no memory", hint="Leave it out.")
    if quick and devices:
        raise RecipeError("--quick forecasts nothing of several processes", hint="Leave it out.")
    if quick and timing:
        raise RecipeError("--quick loads no torch, which --time needs", hint="Leave one of them out.")
    if out and Path(out).exists():
        raise FolderError("there is such a file already", where=out, hint="Give another name.")
    with output_to_stderr():
        host, limits = host_of(recipe, overrides, disable), limits_of(memory, device_memory)
        if from_config:
            alone = ConfigPlan.read(recipe, overrides, host, limits)
            planned: RunPlan | ConfigPlan = alone
            time = alone.time() if timing else {}  # before the forecast, which computes without contents
            told = [settled.describe(key) for key, settled in alone.settled.items()]
            foreseen = foreseen_of(alone)
            facts: dict[str, Any] = {"memory": described_memory(foreseen[0]), "notices": told, **time}
        else:
            planned = whole = with_memory_settled(
                plan(recipe, overrides=overrides, host=host, as_run=not quick), limits
            )
            time = time_of_plan(whole, host) if timing else {}
            foreseen = foreseen_of(whole)
            facts = describe(whole, foreseen[0], _earlier(recipe)) | time
        if among:
            speed = time.get("time", {}).get("tokens_per_second")
            facts |= {"processes": processes_of(planned, foreseen, among, limits, speed)}
        if limits:
            facts |= {"fit": fitted(recipe, overrides, host, planned, limits, out, among)}
    host.take_notices()  # they are among the plan's
    if as_json:
        click.echo(json_line(facts))
        return
    for key in _SHOWN:
        if key in facts:
            click.echo(further_lines_indented(f"{key:12}{facts[key]['text']}"))
    for notice in facts.get("notices", ()):
        click.echo(further_lines_indented(f"note: {notice}"))


_SHOWN = (
    "model",
    "tokenizer",
    "quantizer",
    "adapter",
    "records",
    "objective",
    "teacher",
    "training",
    "time",
    "memory",
    "processes",
    "exports",
    "checked",
    "fit",
)
"""What is told, in this order."""


def _earlier(recipe: str) -> RunManifest | None:
    """Returns the manifest of the run that a recipe's runs go to when nothing else is said, if there is a whole one."""
    with suppress(FolderError):
        return RunManifest.read(default_folder(recipe_name(recipe)))
    return None


def processes_of(
    plan: RunPlan | ConfigPlan,
    foreseen: tuple[MemoryForecast | None, BlockUses | None],
    devices: Devices,
    limits: MemoryLimits | None,
    tokens_per_second: float | None,
) -> dict[str, Any]:
    """Returns what several processes take and exchange, as JSON."""
    memory, uses = foreseen
    if plan.ask_memory is None or memory is None:
        return {"ways": [], "text": "not forecast: it takes torch, and records that can be encoded"}
    asked = plan.ask_memory(plan.bound)
    room = room_of(limits, asked.device)
    return described_processes(asked, (memory, uses), plan.bound, devices, room, tokens_per_second)


def time_of_plan(plan: RunPlan, host: PluginHost) -> dict[str, Any]:
    """Times passes of a plan's training, and returns `time` as JSON."""
    if plan.ask_memory is None or plan.checked is None:
        return {"time": described_time("no record can be encoded", plan.bound, None)}
    import torch

    corpus = plan.corpus or estimate_corpus(plan.encoder, plan.samples.train, plan.seen_an_epoch)
    found = timed(plan.bound, host, plan.ask_memory, torch.device(str(plan.checked["device"])))
    return {"time": described_time(found, plan.bound, _training(plan, corpus))}


def describe(plan: RunPlan, memory: MemoryForecast | None, earlier: RunManifest | None = None) -> dict[str, Any]:
    """Returns what a plan amounts to, as JSON; under each key `text` says it in words.

    Args:
        plan: The plan.
        memory: What it takes of memory, where that was forecast.
        earlier: A run whose speed says how long the training will take, if it computed the same.
    """
    bound, files = plan.bound, plan.files
    total = count_weights(files.tensors)
    samples = {"train": plan.samples.train.counts(), "holdout": plan.samples.holdout.counts()}
    layers = f"{len(plan.targets)} layers"
    expected = plan.forecast
    corpus = plan.corpus or estimate_corpus(plan.encoder, plan.samples.train, plan.seen_an_epoch)
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
        "objective": {**bound.objective.facts(), "text": _label(bound.objective.registered)},
        **({"teacher": _teacher(plan.teacher)} if plan.teacher else {}),
        "training": (training := _training(plan, corpus)),
        "time": _time(plan, earlier, training),
        "memory": described_memory(memory),
        "exports": {
            "names": [use.folder for use, _ in bound.exports],
            "text": ", ".join(f"{use.folder} ({_label(choice.registered)})" for use, choice in bound.exports) or "none",
        },
        "checked": {**(plan.checked or {}), "text": _checked(plan)},
        "recipe": bound.resolved(),
        "notices": [*plan.notices, *_foreseen(plan, corpus)],
    }


def _teacher(teacher: Teacher) -> dict[str, Any]:
    """Returns what is learnt from, and how much of it is kept."""
    files, total = teacher.files, count_weights(teacher.files.tensors)
    return {
        "reference": files.reference,
        "parameters": total,
        "quantizer": teacher.quantizer.provider.name,
        "top_k": teacher.top_k,
        "bytes_per_token": 8 * teacher.top_k,
        "text": f"{files.reference}: {files.config['model_type']}, {total:,} parameters "
        f"({_label(teacher.quantizer)}); of each token {teacher.top_k:,} candidates are kept, in "
        f"{8 * teacher.top_k:,} bytes on the disk",
    }


def _foreseen(plan: RunPlan, corpus: CorpusEstimate) -> list[str]:
    """Tells what would stop the run once it encodes records, by those that were looked at.

    Nothing is foreseen of a tokenizer that is still to be made.
    """
    if plan.vocabulary and not plan.vocabulary.replacement:
        return []
    if corpus.trouble:
        return [f"the run would stop at a record: {corpus.trouble}"]
    if not corpus.lengths:
        longest = plan.encoder.max_length
        return [
            f"of the records that were looked at none has an answer within {longest:,} tokens: raise data.max_length"
        ]
    return []


def _training(plan: RunPlan, corpus: CorpusEstimate) -> dict[str, Any]:
    """Returns what the training comes to, by a sample of the records."""
    steps = estimate_steps(plan.bound.recipe, corpus)
    section = plan.bound.recipe.training
    about = "about " if corpus.sampled or (plan.vocabulary and not plan.vocabulary.replacement) else ""
    chosen = f"; chosen: {describe_chosen(plan.chosen)}" if plan.chosen else ""
    return {
        "examples": corpus.examples,
        "tokens": corpus.tokens,
        "exact": not about,
        "examples_per_step": round(steps.examples, 1),
        "steps": steps.steps,
        "epochs": round(steps.epochs, 2),
        "tokens_per_step": section.tokens_per_step,
        "learning_rate": section.learning_rate,
        "chosen": dict(plan.chosen),
        "text": f"{about}{corpus.tokens:,} tokens in {corpus.examples:,} examples; {about}{steps.steps:,} steps of "
        f"{steps.examples:.1f} examples, {steps.epochs:.3g} epochs{chosen}",
    }


def _time(plan: RunPlan, earlier: RunManifest | None, training: Mapping[str, Any]) -> dict[str, Any]:
    """Returns how long the training takes at the speed of an earlier run that computed the same, if there is one."""
    speed = earlier.training.get("tokens_per_second") if earlier else None
    if not earlier or not speed or not _same_computation(plan.bound.resolved(), earlier.recipe):
        return {"seconds": None, "text": "not known before a run's first steps, whose speed `toolkit run` tells"}
    seconds = round(training["tokens"] * training["epochs"] / speed)
    text = f"about {seconds / 60:.1f} minutes of training, at the {speed:,.0f} tokens/s of the last run of this recipe"
    return {"seconds": seconds, "text": text}


def _same_computation(recipe: Mapping[str, Any], earlier: Mapping[str, Any]) -> bool:
    sections = all(recipe.get(key) == earlier.get(key) for key in ("model", "tokenizer", "quantizer", "adapter"))
    now, then = recipe["training"], earlier.get("training") or {}
    return sections and all(now[key] == then.get(key) for key in ("device", "dtype", "microbatch_tokens"))


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
