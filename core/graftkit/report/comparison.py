"""Several runs side by side, as figures: what differs between their recipes, and what came of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import accumulate
from typing import Any

from graftkit.recipe.schema.recipe import with_defaults
from graftkit.report.run_data import RunData
from graftkit.report.run_manifest import RunManifest
from graftkit.report.series import Curve, thinned
from graftkit.report.summary import objective_of, samples_answers, training_seconds

__all__ = ["ComparedAnswer", "Comparison", "Difference", "RunFigures", "compared"]

_POINTS = 300
"""Points of a curve at most."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A key that is not the same in all runs.

    Attributes:
        key: "section.key" of the recipe, or what else of the run.
        values: Its value in each run, as JSON; None where it is not said.
    """

    key: str
    values: Sequence[Any]


@dataclass(frozen=True, slots=True)
class RunFigures:
    """What came of a run; a figure is None where the run has not found it out.

    Attributes:
        name: What it is called here: its folder's name, or its path where two have the same.
        folder: Its folder.
        status: "finished", "failed", "interrupted" or "running".
        holdout_before: The holdout loss before training.
        holdout_after: The holdout loss after training.
        bits_before: Bits per byte before training, with the base model's own vocabulary where that was changed.
        bits_after: Bits per byte after training.
        scores: What the answers after training are worth, by metric.
        metrics_before: What else its objective tells of the holdout records before training, such as the accuracy.
        metrics_after: The same after training.
        steps: How many steps were taken.
        tokens: The tokens that were trained on.
        seconds: How long the steps took.
        tokens_per_second: Both as a rate.
        trainable: How many parameters are trained.
        peak_memory: The most that a stage was measured to take, in bytes: of the device where it computes on one.
        exports: Of each export what proving it gave: "proved", or why not.
        training: The loss over the tokens trained on so far.
        holdout: The holdout loss while it was trained, over the same.
    """

    name: str
    folder: str
    status: str
    holdout_before: float | None = None
    holdout_after: float | None = None
    bits_before: float | None = None
    bits_after: float | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    metrics_before: Mapping[str, float] = field(default_factory=dict)
    metrics_after: Mapping[str, float] = field(default_factory=dict)
    steps: int = 0
    tokens: int = 0
    seconds: float = 0.0
    tokens_per_second: float | None = None
    trainable: int | None = None
    peak_memory: int | None = None
    exports: Mapping[str, str] = field(default_factory=dict)
    training: Curve = field(default_factory=lambda: Curve("training", ()))
    holdout: Curve = field(default_factory=lambda: Curve("holdout", ()))


@dataclass(frozen=True, slots=True)
class ComparedAnswer:
    """A holdout record that several runs have answered.

    Attributes:
        where: Its file and line.
        question: What it asks.
        expected: What it answers.
        answers: What each run answered after training; None where it did not.
        right: Whether each answer is right by that run's first metric.
    """

    where: str
    question: str
    expected: str
    answers: Sequence[str | None]
    right: Sequence[bool]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Several runs side by side.

    Attributes:
        runs: Their figures, in the order in which they were named.
        differences: What is not the same in all of them.
        answers: What they answered to the same records, those first that they answered differently.
        same_holdout: Whether all have the same holdout records.
        same_loss: Whether their holdout losses can be compared: the same records, tokens, objective and fields of it.
        notices: What has to be known to read it: what can't be compared, and what is unfinished or damaged.
    """

    runs: Sequence[RunFigures]
    differences: Sequence[Difference]
    answers: Sequence[ComparedAnswer]
    same_holdout: bool
    same_loss: bool
    notices: Sequence[str]

    def to_json(self) -> dict[str, Any]:
        """Returns it as JSON."""
        found: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return found


def compared(runs: Sequence[RunData]) -> Comparison:
    """Puts runs side by side."""
    names = _names(runs)
    manifests = [run.manifest for run in runs]
    same_holdout = len({_holdout_of(manifest) for manifest in manifests}) == 1 and _holdout_of(manifests[0]) != ""
    mixed = _mixed(manifests)
    return Comparison(
        runs=[_figures(name, run) for name, run in zip(names, runs, strict=True)],
        differences=_differences(manifests),
        answers=_answers(runs),
        same_holdout=same_holdout,
        same_loss=same_holdout and not mixed,
        notices=[*_holdout_notices(names, manifests), *mixed, *_states(names, runs)],
    )


def _names(runs: Sequence[RunData]) -> list[str]:
    names = [run.name for run in runs]
    return [str(run.folder) if names.count(name) > 1 else name for name, run in zip(names, runs, strict=True)]


def _figures(name: str, run: RunData) -> RunFigures:
    manifest = run.manifest
    before, after = manifest.metrics.get("before"), manifest.metrics.get("after")
    first = manifest.metrics.get("base") or before
    lines = [(line["step"], line["tokens"], line["seconds"], float(line["loss"])) for line in run.steps]
    reached = list(accumulate(tokens for _, tokens, _, _ in lines))
    tokens, seconds = reached[-1] if reached else 0, sum(took for _, _, took, _ in lines)
    at_step = {step: total for (step, *_), total in zip(lines, reached, strict=True)} if run.holdout else {}
    losses = [(float(total), loss) for (*_, loss), total in zip(lines, reached, strict=True)]
    holdout = [(float(at_step[step]), loss) for step, loss in sorted(run.holdout.items()) if step in at_step]
    return RunFigures(
        name=name,
        folder=str(run.folder),
        status=manifest.status,
        holdout_before=before.holdout_loss if before else None,
        holdout_after=after.holdout_loss if after else None,
        bits_before=first.bits_per_byte if first else None,
        bits_after=after.bits_per_byte if after else None,
        scores=dict(after.scores) if after else {},
        metrics_before=dict(before.metrics) if before else {},
        metrics_after=dict(after.metrics) if after else {},
        steps=len(run.steps),
        tokens=tokens,
        seconds=round(seconds or training_seconds(manifest), 3),
        tokens_per_second=round(tokens / seconds, 1) if seconds else None,
        trainable=manifest.parameters.trainable if manifest.parameters else None,
        peak_memory=_peak(manifest),
        exports={name: _proved(facts.proof) for name, facts in manifest.exports.items()},
        training=Curve("training", thinned(losses, _POINTS)),
        holdout=Curve("holdout", thinned(holdout, _POINTS)),
    )


def _proved(proof: Mapping[str, Any]) -> str:
    status = str(proof.get("status"))
    return status if status == "proved" else f"not proved: {proof.get('reason', status)}"


def _peak(manifest: RunManifest) -> int | None:
    measured = manifest.memory.measured if manifest.memory else None
    if measured is None:
        return None
    return max((measured.device or measured.host).values(), default=None)


def _holdout_of(manifest: RunManifest) -> str:
    return manifest.data.fingerprint.get("holdout", "") if manifest.data else ""


def _holdout_notices(names: Sequence[str], manifests: Sequence[RunManifest]) -> list[str]:
    """Says which runs have other holdout records than the first one."""
    first, *others = map(_holdout_of, manifests)
    unknown = [name for name, found in zip(names, (first, *others), strict=True) if not found]
    if unknown:
        return [f"{', '.join(unknown)}: not known what its holdout records are: its losses can't be compared"]
    odd = [name for name, found in zip(names[1:], others, strict=True) if found != first]
    told = f"the holdout records of {', '.join(odd)} are not those of {names[0]}: their losses can't be compared"
    return [told] if odd else []


def _mixed(manifests: Sequence[RunManifest]) -> list[str]:
    """Says what else keeps losses from being compared."""
    tokenizers = {manifest.tokenizer.fingerprint for manifest in manifests if manifest.tokenizer}
    objectives = {objective_of(manifest) for manifest in manifests}
    layouts = {manifest.data.fingerprint.get("layout", "") for manifest in manifests if manifest.data}
    found = []
    if len(tokenizers) > 1:
        found.append("the tokenizers differ: compare bits per byte, not the loss of a token")
    elif len(layouts) > 1:
        found.append("the same records become other tokens (template, length or system message): losses differ by that")
    if len(objectives) > 1:
        found.append(f"the objectives differ ({', '.join(sorted(objectives))}): their losses are of different things")
    elif fields := _other_fields(manifests):
        found.append(f"one objective with other fields ({', '.join(fields)}): their losses are of different things")
    return found


def _other_fields(manifests: Sequence[RunManifest]) -> list[str]:
    """Returns the fields that differ between runs of one objective, and that their losses are of."""
    facts = [_measured_by(manifest) for manifest in manifests]
    keys = sorted({key for each in facts for key in each})
    return [key for key in keys if any(each.get(key) != facts[0].get(key) for each in facts[1:])]


def _measured_by(manifest: RunManifest) -> dict[str, Any]:
    """Returns what a holdout loss depends on besides the records; not in which order labels have their numbers.

    Of sampled answers it is minus their mean reward, however a run learns from that.
    """
    recipe = with_defaults(manifest.recipe)
    fields = recipe.get("objective") or {}
    if samples_answers(recipe):
        rewards, metrics = fields["rewards"], recipe.get("evaluation", {}).get("metrics", [])
        rewarding = [each for each in metrics if not rewards or (each.get("name") or each["use"]) in rewards]
        sampled = {f"objective.{key}": fields[key] for key in ("max_new_tokens", "rewards")}
        sampled["objective.temperature"] = fields.get("temperature", 1.0)
        return {**sampled, "evaluation.metrics": rewarding}
    labels = sorted(manifest.head.labels) if manifest.head else []
    return {f"objective.{key}": value for key, value in {**fields, "labels": labels}.items()}


def _states(names: Sequence[str], runs: Sequence[RunData]) -> list[str]:
    """Says which runs have not finished, and what of them is damaged."""
    found = []
    for name, run in zip(names, runs, strict=True):
        manifest = run.manifest
        if manifest.status != "finished":
            reached = manifest.progress or {}
            at = f" in the stage {reached['stage']}" if "stage" in reached else ""
            step = f", after step {reached['step']} of {reached.get('steps', '?')}" if "step" in reached else ""
            error = f": {manifest.error['message']}" if manifest.error and manifest.error.get("message") else ""
            said = "is going on, or was killed," if manifest.status == "running" else f"has {_HAS[manifest.status]}"
            found.append(f"{name} {said}{at}{step}{error}")
        found += [f"{name}: {damage}" for damage in run.damage]
    return found


_HAS = {"failed": "failed", "interrupted": "been stopped"}


def _differences(manifests: Sequence[RunManifest]) -> list[Difference]:
    facts = [_flat(with_defaults(manifest.recipe)) | _besides(manifest) for manifest in manifests]
    sections = [*dict.fromkeys(section for manifest in manifests for section in manifest.recipe)]
    place = {section: number for number, section in enumerate(sections)}
    found = dict.fromkeys(key for each in facts for key in each)
    keys = sorted(found, key=lambda key: place.get(key.partition(".")[0], len(place)))
    values = {key: [each.get(key) for each in facts] for key in keys}
    return [Difference(key, said) for key, said in values.items() if any(value != said[0] for value in said[1:])]


def _flat(value: Any, key: str = "") -> dict[str, Any]:
    """Returns a recipe's values by "section.key"; what a list holds by its name, what it uses, or its number."""
    if isinstance(value, Mapping):
        parts = {str(name): part for name, part in value.items()}
    elif isinstance(value, list) and value and all(isinstance(part, Mapping) for part in value):
        parts = {str(part.get("name") or part.get("use") or at + 1): part for at, part in enumerate(value)}
    else:
        return {key: value}
    found: dict[str, Any] = {}
    for name, part in parts.items():
        found |= _flat(part, f"{key}.{name}" if key else name)
    return found


def _besides(manifest: RunManifest) -> dict[str, Any]:
    """Returns what else a result depends on."""
    versions = {f"version of {name}": value for name, value in manifest.environment.items()}
    hashes = {f"sha256 of {name}": value for name, value in (manifest.model.files if manifest.model else {}).items()}
    data = manifest.data.fingerprint if manifest.data else {}
    records = {f"{name} records": value for name, value in data.items() if name != "layout"}
    return {"version of graftkit": manifest.graftkit, **versions, **hashes, **records}


def _answers(runs: Sequence[RunData]) -> list[ComparedAnswer]:
    """Returns what several runs answered to the same questions, those first whose answers differ."""
    by_run = [{(a.question, a.expected): a for a in run.answers if a.after is not None} for run in runs]
    keys = dict.fromkeys(key for each in by_run for key in each)
    found = []
    for key in keys:
        given = [each.get(key) for each in by_run]
        known = [answer for answer in given if answer is not None]
        if len(known) > 1:
            answers = [answer.after if answer else None for answer in given]
            right = [bool(answer and answer.right_after) for answer in given]
            found.append(ComparedAnswer(known[0].where, *key, answers, right))
    return sorted(found, key=lambda answer: len(set(answer.answers)) == 1)
