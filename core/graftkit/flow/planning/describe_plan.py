"""What a plan amounts to, as JSON and in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from graftkit.articles import counted
from graftkit.corpus.record_shapes import SHAPES
from graftkit.flow.records.estimate import CorpusEstimate
from graftkit.flow.records.training_numbers import describe_chosen, estimate_steps
from graftkit.interfaces.counts import count_weights
from graftkit.interfaces.objective_config import LearnsFrom
from graftkit.report.figure_text import about_time
from graftkit.report.run_manifest import MemoryForecast, RunManifest, StageMemory

if TYPE_CHECKING:
    from graftkit.flow.planning.plan_teacher import Teacher
    from graftkit.flow.planning.run_plan import RunPlan

__all__ = ["describe", "described_memory", "described_training", "size_text"]


def describe(plan: RunPlan, earlier: RunManifest | None = None, memory: MemoryForecast | None = None) -> dict[str, Any]:
    """Returns what a plan amounts to, as JSON; under each key `text` says it in words.

    Args:
        plan: The plan.
        earlier: A run whose speed says how long the training will take, if it computed the same.
        memory: What it takes of memory; None where that was not forecast.
    """
    bound, files = plan.bound, plan.files
    total = count_weights(files.tensors)
    learns_from = bound.objective_config.learns_from
    samples = {"train": plan.samples.train.counts(), "holdout": plan.samples.holdout.counts()}
    layers = counted(len(plan.targets), "layer")
    expected = plan.forecast
    corpus = plan.estimate()
    said = bound.adapter.config.model_fields_set
    fields = " ".join(f"{key}={value!r}" for key, value in bound.adapter.facts()["config"].items() if key in said)
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
            "text": f"{_label(bound.adapter.registered)} on {layers}{fields and f': {fields}'}"
            + (f", and {', '.join(whole)} as wholes" if (whole := bound.recipe.adapter.modules_to_save) else "")
            + _about(expected["adapter_parameters"], "trainable parameters"),
        },
        "records": {
            **samples,
            "data_sets": plan.data_sets(),
            **({"holdout_by": by} if (by := plan.holdout_by()) else {}),
            "text": "; ".join(
                [
                    *(f"{side}: {_counts(found, learns_from)}" for side, found in samples.items()),
                    *(
                        [f"{by['holdout']:,} values of {by['column']} held out, {by['train']:,} trained on"]
                        if by
                        else []
                    ),
                    *_shares(plan.data_sets()),
                ]
            ),
        },
        "objective": {**bound.objective.facts(), "text": _label(bound.objective.registered)},
        **({"teacher": _teacher(plan.teacher)} if plan.teacher else {}),
        "training": (training := described_training(plan, corpus)),
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


def described_training(plan: RunPlan, corpus: CorpusEstimate) -> dict[str, Any]:
    """Returns what the training comes to, by a sample of the records."""
    steps = estimate_steps(plan.bound.recipe, corpus, plan.bound.objective_config.repeats)
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
        "text": f"{about}{counted(corpus.tokens, 'token')} in {counted(corpus.examples, 'example')}; "
        f"{about}{counted(steps.steps, 'step')} of {counted(steps.examples, 'example', form='.1f')}, "
        f"{counted(steps.epochs, 'epoch', form='.3g')}{chosen}",
    }


def _time(plan: RunPlan, earlier: RunManifest | None, training: Mapping[str, Any]) -> dict[str, Any]:
    """Returns how long the training takes at the speed of an earlier run that computed the same, if there is one."""
    speed = earlier.training.get("tokens_per_second") if earlier else None
    if not earlier or not speed or not _same_computation(plan.bound.resolved(), earlier.recipe):
        return {"seconds": None, "text": "not known before a run's first steps, whose speed `toolkit run` tells"}
    seconds = round(training["tokens"] * training["epochs"] / speed)
    text = f"{about_time(seconds)} of training, at the {speed:,.0f} tokens/s of the last run of this recipe"
    return {"seconds": seconds, "text": text}


def _same_computation(recipe: Mapping[str, Any], earlier: Mapping[str, Any]) -> bool:
    sections = all(recipe.get(key) == earlier.get(key) for key in ("model", "tokenizer", "quantizer", "adapter"))
    now, then = recipe["training"], earlier.get("training") or {}
    return sections and all(now[key] == then.get(key) for key in ("device", "dtype", "microbatch_tokens"))


def _checked(plan: RunPlan) -> str:
    if plan.checked is None:
        return "recipe, files and records; not device, architecture and exports"
    rows = f", {plan.checked['new_rows']:,} rows of the embeddings trained" if plan.checked["new_rows"] else ""
    return f"all that run checks before it encodes records, on {plan.checked['device']}{rows}"


def _label(registered: Any) -> str:
    plugin = registered.plugin
    return f"{registered.provider.name} of {plugin.distribution or plugin.name} {plugin.version}".rstrip()


def _counts(found: dict[str, int], learns_from: LearnsFrom) -> str:
    """Returns how many records there are, by what they are to the objective; else by their shape."""
    what = SHAPES[learns_from].counted
    counts = {what: sum(found.values())} if what and found else {_READ[shape]: n for shape, n in found.items()}
    return ", ".join(counted(count, one, several) for (one, several), count in counts.items()) or "none"


_READ = {
    "chat": ("conversation", "conversations"),
    "completion": ("completion", "completions"),
    "text": ("text", "texts"),
    "tokens": ("list of tokens", "lists of tokens"),
}
"""What records of a shape are called; one, and several."""


def _shares(data_sets: Sequence[dict[str, Any]]) -> list[str]:
    """Says how many training records of each data set an epoch sees; nothing where it is all of the only one."""
    if len(data_sets) == 1 and data_sets[0]["weight"] == 1:
        return []
    return [
        f"{found['path']}: an epoch sees {found['seen_an_epoch']:,.10g} of {found['records']:,}" for found in data_sets
    ]


def _about(count: int | None, what: str) -> str:
    return "" if count is None else f", about {count:,} {what}"


def described_memory(forecast: MemoryForecast | None) -> dict[str, Any]:
    """Returns a forecast as JSON, `text` in words."""
    if forecast is None:
        return {"stages": [], "text": "not forecast: it takes torch, and records that can be encoded"}
    facts = forecast.model_dump(mode="json")
    if forecast.unknown or not forecast.host:
        return {**facts, "text": f"not known: {forecast.unknown}"}
    host, device = forecast.host, forecast.on_device
    peak = {"host": host.host, "host_stage": host.stage}
    sequences = counted(forecast.pass_sequences, "sequence")
    largest = f"a pass of {counted(forecast.pass_tokens, 'token')} in {sequences}"
    text = f"about {size_text(host.host)} at its peak, in {host.stage}, with {largest}"
    if device:
        peak |= {"device": device.device or 0, "device_stage": device.stage}
        on = f"about {size_text(device.device or 0)} of the {forecast.device} device at its peak, in {device.stage}"
        text = f"{on}, with {largest}; {size_text(host.host)} of the machine's"
    return {**facts, "peak": peak, "text": f"{text}\n{_parts(device or host)}"}


def _parts(stage: StageMemory) -> str:
    parts = sorted(stage.parts.items(), key=lambda part: -part[1])
    return ", ".join(f"{part.replace('_', ' ')} {size_text(size)}" for part, size in parts if size >= 50_000)


def size_text(count: int) -> str:
    """Returns a number of bytes in words."""
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
