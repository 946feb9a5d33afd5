"""What finished models are evaluated on, and by what: records and a recipe's sections that say how."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np

from graftkit.corpus.record_shapes import SHAPES, TEXT_SHAPES, check_learns_from
from graftkit.corpus.sample_files import Samples, scan_samples
from graftkit.errors import DataError, RecipeError, RequestError
from graftkit.flow.planning.head import refuse_answers
from graftkit.flow.planning.plan_notices import told_of_files
from graftkit.flow.planning.read_records import as_learnt, read_records
from graftkit.flow.planning.sampled import refuse_unanswered
from graftkit.flow.records.datasets import open_datasets
from graftkit.host.host import PluginHost
from graftkit.interfaces.architecture import Head
from graftkit.interfaces.objective_config import EmbeddingConfig, LearnsFrom, SampledConfig, TeacherConfig
from graftkit.interfaces.samples import Sample, ScoredText, Unanswered
from graftkit.recipe.bind import BoundRecipe, bind
from graftkit.recipe.load import LoadedRecipe, RecipeSource, load_recipe
from graftkit.recipe.schema.data import DataSection, DatasetSection
from graftkit.recipe.schema.providers import ProviderSection
from graftkit.redact import HIDDEN
from graftkit.report.run_manifest import HeadFacts, RunManifest
from graftkit.suggest import nearest

__all__ = ["EvaluationPlan", "EvaluationRecipe", "Records", "plan_evaluation", "recipe_of_evaluation"]

Records = str | os.PathLike[str] | Mapping[str, Any]
"""A file of records, a folder or a pattern; or a mapping with its `path`, as an entry of a recipe's `data.train`."""

_READ = (
    "data",
    "objective",
    "evaluation.answers",
    "evaluation.metrics",
    "evaluation.max_new_tokens",
    "evaluation.batch_size",
    "training.device",
    "training.microbatch_tokens",
    "training.seed",
)
"""The keys of a recipe that say what is measured."""

_MOST_COMPARED = 256 << 20
"""Bytes of files of training records that are read to tell which records are among them."""
_NOT_COMPARED = "whether these records are among those that the recipe trains on was not looked at"

_UNLESS_ANSWERED = (("plugins",), ("evaluation", "metrics"))
"""Places of a recipe whose plugins an evaluation uses for answers alone, or not at all."""
_NOT_OF_RECORDS = (("export",), *_UNLESS_ANSWERED)
"""Those that nobody needs who reads a recipe's records."""

_SECTIONS = ("data", "objective", "evaluation", "training", "plugins")
_ALIKE = ("format", "reader", "columns", "unused", "empty")
"""What an entry of a recipe's records says of how they are read."""


@dataclass(frozen=True, slots=True)
class EvaluationRecipe:
    """How models are evaluated.

    Attributes:
        loaded: The recipe, as far as it says that; `data.train` names the records where those are given.
        given: Whether they are; else its holdout records are meant.
        trained: The recipe whose records are read in their place; None where there is none.
    """

    loaded: LoadedRecipe
    given: bool
    trained: LoadedRecipe | None = None


@dataclass(frozen=True, slots=True)
class EvaluationPlan:
    """What models are evaluated on, and by what.

    Attributes:
        bound: The recipe, as far as it says how.
        samples: The records.
        notices: What the user should know of them.
        today: The day that chat templates write.
    """

    bound: BoundRecipe
    samples: Samples
    notices: Sequence[str]
    today: date

    def for_head(self, host: PluginHost, facts: HeadFacts, where: str) -> BoundRecipe:
        """Returns the recipe by which a model is measured: where it says no objective, by that of the model's head.

        What is put before texts is what the model was trained with, where the recipe says nothing of that.

        Args:
            host: The plugins.
            facts: The model's head.
            where: The model, for errors.

        Raises:
            RequestError: The recipe's objective is of models with another head, or takes more than the model; or it
                asks one for answers that writes none.
        """
        bound, head, labels, several = self.bound, facts.kind, facts.labels, facts.several
        if "objective" not in bound.recipe.model_fields_set and head != "language":
            use = _OBJECTIVES.get(head) or _sequence_objective(labels, several=several)
            if head == "embedding" and isinstance(next(iter(self.samples), None), ScoredText):
                use = SHAPES["scored_pairs"].objective
            bound = _measured_by(use, bound, host)
        if isinstance(bound.objective_config, EmbeddingConfig) and head == "embedding":
            bound = _with_prompts(bound, facts.prompts or {}, host)
        config, use = bound.objective_config, bound.objective.use
        if config.head == head == "sequence":
            _refuse_outputs(bound, labels, several=several, where=where)
        if config.head != head:
            raise RequestError(
                f"the objective {use} does not measure {_MODELS[head]}",
                where=where,
                hint=f"It measures {_MODELS[config.head]}: say another objective, or give such a model.",
            )
        if config.uses_reference or isinstance(config, TeacherConfig):
            other = "a teacher" if isinstance(config, TeacherConfig) else "the model before training"
            alone = _MEASURED_ALONE.get(config.learns_from)
            by = f" To measure the model by another objective: --set objective={alone}" if alone else ""
            raise RequestError(
                f"the objective {use} compares a model with {other}, which is not there",
                where=bound.document.where(("objective",)),
                hint=f"A run of the recipe measures it; its manifest has the figures.{by}",
            )
        refuse_answers(bound)
        return bound


def _measured_by(use: str, bound: BoundRecipe, host: PluginHost, **said: Any) -> BoundRecipe:
    """Returns a recipe with another objective, of which it says these fields."""
    recipe = bound.recipe.model_copy(update={"objective": ProviderSection(use=use, **said)})
    return bind(LoadedRecipe(recipe, bound.document), host, unused=_UNLESS_ANSWERED)


def _with_prompts(bound: BoundRecipe, prompts: Mapping[str, str], host: PluginHost) -> BoundRecipe:
    """Returns a recipe that puts before texts what a model was trained with, where it says nothing of that itself."""
    said = bound.recipe.objective.model_dump(exclude_unset=True, exclude={"use"})
    own = {f"{name}_prompt": text for name, text in prompts.items()}
    return _measured_by(bound.objective.use, bound, host, **{**own, **said}) if own.keys() - said.keys() else bound


def _learnt(labels: Sequence[str], *, several: bool) -> LearnsFrom:
    """Returns what a head on sequences has learnt from, by what its scores are of."""
    if several:
        return "label_sets"
    if len(labels) > 1:
        return "labels"
    return "scores" if labels else "pairs"


def _sequence_objective(labels: Sequence[str], *, several: bool) -> str:
    """Returns the objective that measures a head on sequences, by what its scores are of."""
    shape = TEXT_SHAPES.get(_learnt(labels, several=several))
    return shape.objective if shape else "reward"


def _refuse_outputs(bound: BoundRecipe, labels: Sequence[str], *, several: bool, where: str) -> None:
    """Refuses to measure scores of a text by an objective that they are not made for.

    Raises:
        RequestError: One judges each label by itself and the other gives a text one; or one knows labels, the other a
            single score.
    """
    learnt, asked = (
        TEXT_SHAPES["scores" if kind == "pairs" else kind].measured
        for kind in (_learnt(labels, several=several), bound.objective_config.learns_from)
    )
    if asked != learnt:
        raise RequestError(
            f"its scores tell {learnt}, and the objective {bound.objective.use} measures {asked}",
            where=where,
            hint=f"Such a model is measured by objective: {_sequence_objective(labels, several=several)}.",
        )


_MEASURED_ALONE: Mapping[LearnsFrom, str] = {"answers": "sft", "pairs": "simpo"}
"""What measures a model without another one beside it, by the records that it is measured on."""

_OBJECTIVES: Mapping[Head, str] = {
    "masked": "masked-lm",
    "token": SHAPES["tags"].objective,
    "embedding": SHAPES["similar"].objective,
}
"""What measures a model with a head of each kind that has one objective alone."""

_MODELS: Mapping[Head, str] = {
    "language": "language models",
    "sequence": "models that score whole sequences",
    "token": "models that score each token",
    "masked": "models that fill in masked tokens",
    "embedding": "models that give sequences vectors",
}


def recipe_of_evaluation(
    source: str, run: RunManifest | None, records: Records | None, recipe: RecipeSource | None, overrides: Sequence[str]
) -> EvaluationRecipe:
    """Returns the recipe that says how models are evaluated: that which is given, or the run's, or the usual one.

    Args:
        source: A model that is evaluated.
        run: The run that one of the models is of; None where none is.
        records: The records; the recipe's holdout ones when None.
        recipe: The recipe, if one is given.
        overrides: "section.key=value", each as `--set` takes it.

    Raises:
        RecipeError: It is wrong, or an override changes nothing of an evaluation.
        RequestError: Nothing says the records.
    """
    _refuse_unread(overrides, records)
    said = _of_run(run) if recipe is None and run is not None else recipe
    if said is None:
        if records is None:
            raise RequestError(
                "nothing says which records to evaluate on",
                where=source,
                hint="Name a file of them: --data FILE; a run has its holdout records.",
            )
        return EvaluationRecipe(load_recipe(_plain(source, records), overrides), given=True)
    loaded, plain = load_recipe(said, overrides), load_recipe(_plain(source, records)).recipe
    sections = {name: getattr(loaded.recipe, name) for name in _SECTIONS if name in loaded.recipe.model_fields_set}
    if records is not None:
        entry = _read_alike(plain.data.train[0], loaded.recipe.data)
        given = {"train": [entry], "holdout": 0.0, "holdout_by": None}
        sections["data"] = sections["data"].model_copy(update=given)
    asked = LoadedRecipe(plain.model_copy(update=sections), loaded.document)
    return EvaluationRecipe(asked, records is not None, None if records is None else loaded)


def plan_evaluation(
    asked: EvaluationRecipe,
    host: PluginHost,
    *,
    started: date | None = None,
    pinned: Mapping[str, str] | None = None,
) -> EvaluationPlan:
    """Reads every record that models are to be evaluated on.

    Args:
        asked: What `recipe_of_evaluation` gave.
        host: The plugins.
        started: The day of the run whose recipe it is; None where it is none's.
        pinned: The commits of the hub's data sets that the run took.

    Raises:
        DataError: A record can't be read, is none that the objective takes, or there is none.
        RecipeError: Something else in the recipe is wrong.
    """
    bound = bind(asked.loaded, host, unused=_UNLESS_ANSWERED)
    told_of, unanswered = list[str](), ""

    def look(sample: Sample) -> None:
        nonlocal unanswered
        unanswered = unanswered or (sample.where if isinstance(sample, Unanswered) else "")

    if asked.given:
        said, learns_from = "objective" in bound.recipe.model_fields_set, bound.objective_config.learns_from
        learns_from = "answers" if learns_from == "prompts" else learns_from  # whose likelihood is measured

        def fits(sample: Sample) -> None:
            look(sample)
            if said and not isinstance(sample, Unanswered):
                check_learns_from(sample, learns_from, bound.objective.use)

        datasets = as_learnt(bound, open_datasets(bound, host, "train", pinned))
        samples = scan_samples(datasets, fits=fits)
    else:
        records = read_records(bound, host, pinned)
        datasets, samples = list(records.datasets), records.samples.holdout
        for sample in samples if records.unanswered else ():
            look(sample)
    _refuse_absent(bound, sampled=bool(unanswered))
    if isinstance(bound.objective_config, SampledConfig):
        if unanswered:
            refuse_unanswered(bound, unanswered)
            told_of.append("records have no expected answer: measured is the mean reward of what is sampled")
        else:
            told_of.append(
                f"{bound.objective.use} measures what it samples: measured is the likelihood of records' answers"
            )
            bound = _measured_by("sft", bound, host)
    if not samples:
        told, hint = "no record is held out", "Name records to evaluate on: --data FILE."
        if asked.given:
            told, hint = "all records are left out (empty: skip)", "Name records with something to measure."
        raise DataError(told, where=str(datasets[0].source), hint=hint)
    notices = [*told_of, *told_of_files(bound, datasets), *_told_of_trained(asked.trained, host, pinned, samples)]
    return EvaluationPlan(bound, samples, notices, bound.recipe.data.date or started or date.today())


def _refuse_absent(bound: BoundRecipe, *, sampled: bool) -> None:
    """Refuses metrics that are not installed, where answers are scored by them.

    Args:
        bound: The recipe.
        sampled: Whether an objective that learns from sampled answers measures those.

    Raises:
        GraftkitError: There is such a metric.
    """
    answers, rewarded = bound.recipe.evaluation.answers, sampled and isinstance(bound.objective_config, SampledConfig)
    for error in bound.absent_metrics.values():
        if answers and not rewarded:
            error.hint = f"{error.hint} Without answers no metric is needed: --answers 0.".strip()
        if answers or rewarded:
            raise error


def _told_of_trained(
    trained: LoadedRecipe | None, host: PluginHost, pinned: Mapping[str, str] | None, samples: Samples
) -> list[str]:
    """Returns a notice of records that the recipe trains on: what they say of a model trained by it is no evidence.

    Very large files are not read for that, and files may be gone by now: that is told.
    """
    if trained is None:
        return []
    try:
        bound = bind(trained, host, unused=_NOT_OF_RECORDS)
        datasets = open_datasets(bound, host, "train", pinned)
        size = sum(dataset.source.path.stat().st_size for dataset in datasets)
        if size > _MOST_COMPARED:
            return [f"{_NOT_COMPARED}: they are files of {size / 1e6:,.0f} MB"]
        learnt = read_records(bound, host, pinned, datasets).samples.train
    except (RequestError, OSError) as error:
        reason = error.message if isinstance(error, RequestError) else error.strerror
        return [f"{_NOT_COMPARED}: {reason}"]
    seen = int(np.isin(samples.digests[samples.kept], learnt.digests[learnt.kept]).sum())
    return [f"{seen:,} of {len(samples):,} records are among those that the recipe trains on"] if seen else []


def _plain(source: str, records: Records | None) -> dict[str, Any]:
    """Returns a recipe that says a model and records, and nothing else."""
    return {"model": source, "data": {"train": "-" if records is None else records, "holdout": 0}}


def _of_run(run: RunManifest) -> dict[str, Any]:
    """Returns what a run's recipe says of how its model is evaluated.

    Raises:
        RecipeError: It says a secret there, which no manifest keeps.
    """
    known = run.recipe
    plugins = {"disable": known.get("plugins", {}).get("disable", [])}
    kept = {name: known[name] for name in ("model", *_SECTIONS) if name in known} | {"plugins": plugins}
    template = kept["data"].get("chat_template")
    if template and template.get("path"):  # its tokenizers carry it
        kept["data"] = {**kept["data"], "chat_template": None}
    if HIDDEN in str(kept):
        hint = "Give the recipe itself: --recipe FILE."
        raise RecipeError("the run's recipe has a secret, which its manifest does not keep", hint=hint)
    return kept


def _read_alike(entry: DatasetSection, known: DataSection) -> DatasetSection:
    """Returns an entry that is read as a recipe's are, where those are all read alike and it says nothing itself."""
    entries = [*known.train, *(known.holdout if isinstance(known.holdout, list) else ())]
    ways = [{name: getattr(one, name) for name in _ALIKE if name in one.model_fields_set} for one in entries]
    if {*_ALIKE} & entry.model_fields_set or any(way != ways[0] for way in ways):
        return entry
    return entry.model_copy(update=ways[0])


def _refuse_unread(overrides: Sequence[str], records: Records | None) -> None:
    """Refuses `--set` of keys that change nothing of an evaluation.

    Raises:
        RecipeError: There is one.
    """
    for text in overrides:
        key = text.partition("=")[0].strip()
        if not any(key == read or key.startswith(f"{read}.") for read in _READ):
            alike = [
                read for read in _READ if nearest(_last(key), [_last(read)])
            ]  # the sections alone make no likeness
            raise RecipeError(
                f"'{key}' changes nothing of an evaluation",
                where=f"--set {key}",
                hint=f"{nearest(key, alike)}What does: {', '.join(sorted(_READ))}.",
            )
        if records is not None and key.startswith(("data.train", "data.holdout")):
            raise RecipeError(
                f"'{key}' says which records, and --data does, too", where=f"--set {key}", hint="Leave one of them out."
            )


def _last(key: str) -> str:
    return key.rpartition(".")[2]
