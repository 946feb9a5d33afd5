"""Evaluates finished models on records: their loss, bits per byte, and answers by the recipe's metrics."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftkit.arguments import check_flags, check_is, check_path, check_several, check_texts
from graftkit.errors import DataError, RecipeError, RequestError, named
from graftkit.flow.device import refuse_device, refuse_torch_settings
from graftkit.flow.events import OnEvent, ignore
from graftkit.flow.folders.adapter_folder import is_adapter_folder
from graftkit.flow.planning.evaluation import EvaluationPlan, Records, plan_evaluation, recipe_of_evaluation
from graftkit.flow.records.handed_records import KeptForAPlan, Rows, naming_rows
from graftkit.flow.run import Measured
from graftkit.flow.state.cancel import CancelToken, check_follower
from graftkit.flow.state.resume import day_of
from graftkit.flow.state.told_stage import ToldStage, told_stage
from graftkit.host.guard import naming_plugins
from graftkit.host.host import PluginHost
from graftkit.interfaces.offline import no_network_if
from graftkit.recipe.load import RecipeSource, load_recipe
from graftkit.report.run_manifest import RunManifest, run_of

if TYPE_CHECKING:
    from graftkit.flow.answering.reload import AdapterBase
    from graftkit.flow.training.answers import Answer

__all__ = ["Evaluation", "evaluate"]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What records said of a finished model.

    Attributes:
        source: The model, as it was named.
        records: How many records there were.
        tokens: How many tokens they have, as the model's tokenizer makes them.
        loss_tokens: Over how many of them the loss was taken.
        measured: The loss, and what else was measured.
        answers: The answers, each with its question, what was expected, and its scores.
        notices: What the user should know of the records and of how the model sees them.
    """

    source: str
    records: int
    tokens: int
    loss_tokens: int
    measured: Measured
    answers: Sequence[Answer] = ()
    notices: Sequence[str] = ()

    def to_json(self) -> dict[str, Any]:
        """Returns it as JSON, what was measured beside the rest."""
        measured = asdict(self.measured)
        del measured["answers"]
        counts = {"records": self.records, "tokens": self.tokens, "loss_tokens": self.loss_tokens}
        answers = [answer.to_json() for answer in self.answers]
        return {"source": self.source, **counts, **measured, "answers": answers, "notices": list(self.notices)}


def evaluate(
    sources: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    records: Records | Rows | None = None,
    *,
    recipe: RecipeSource | None = None,
    overrides: Sequence[str] = (),
    on: AdapterBase | None = None,
    host: PluginHost | None = None,
    on_event: OnEvent | None = None,
    cancel: CancelToken | None = None,
    offline: bool = False,
) -> list[Evaluation]:
    """Evaluates finished models on records, one after the other, all in the same way.

    A recipe says how: which sections of it are read, `data`, `objective`, `evaluation` and of `training` the device,
    `microbatch_tokens` and the seed. It is `recipe`, or else that of the first run among the models, or of an export in
    one; where there is neither, records are read as what they fit, a language model is measured by the likelihood of
    their answers, and a model with another head by the objective of that. Each model lays conversations out by its own
    chat template, as in its training, where the recipe does not say otherwise.

    Args:
        sources: The models, or one: a run's folder, an export, an adapter of peft's, a model's folder, a GGUF file, or
            a hub id.
        records: A file of records, a folder or a pattern, or a mapping with its `path` and what else an entry of a
            recipe's `data.train` says; or the records themselves, a list of mappings or anything that yields them once,
            of which "records:12" in an error is the twelfth. The recipe's holdout records when left out.
        recipe: What says how; see above.
        overrides: "section.key=value", each as `--set` takes it, such as "evaluation.answers=64".
        on: What an adapter among the models is loaded on.
        host: The plugins; those that are installed, without those that the recipe leaves out, when left out.
        on_event: Called with what happens; see `graftkit.flow.events`.
        cancel: Stops it when asked to.
        offline: Whether nothing is fetched: what is named as a hub's and not on this machine is refused.

    Returns:
        What was measured, a model each, in their order.

    Raises:
        RequestError: A model can't be loaded, a record can't be read, or a model can't be measured so.
        Cancelled: It was stopped.
    """
    names = _names(sources)
    check_flags(offline=offline)
    check_follower(on_event, cancel)
    check_texts(overrides, "overrides")
    if host is not None:
        check_is(host, PluginHost, "host")
    _check_on(on, names)
    refuse_torch_settings("an evaluation", learns=False)
    tell, cancel = on_event or ignore, cancel or CancelToken()
    where, kept = _file_of(records)
    with no_network_if(offline), naming_plugins(), naming_rows(kept.files if kept else {}):
        run = next(filter(None, map(_run_of, names)), None) if recipe is None else None
        host = host or PluginHost(disable=_left_out(recipe, run))
        for name in names:
            _check_source(name, host)
        asked = recipe_of_evaluation(names[0], run, where, recipe, overrides)
        _check_device(asked.loaded.recipe.training.device)
        with told_stage("records", tell, cancel) as stage:
            started, pinned = (day_of(run), dict(run.data.revisions)) if run and run.data else (None, None)
            planned = plan_evaluation(asked, host, started=started, pinned=pinned)
            notices = [*planned.notices, *(_changed(run, planned) if run and records is None else ())]
            for text in notices:
                stage.notice(text)
        found = []
        for name in names:
            label = f"{name}: " if len(names) > 1 else ""
            own = on if is_adapter_folder(Path(name)) else None
            found.append(_Evaluating(name, label, planned, host, own, tell, cancel).evaluated(notices))
        return found


def _names(sources: Any) -> list[str]:
    """Returns the models' names.

    Raises:
        RequestError: There is none, or one is no path.
    """
    given = [sources] if isinstance(sources, str | os.PathLike) else sources
    if not isinstance(given, Iterable):
        raise RequestError(f"they are of the type {type(sources).__name__}", where="sources", hint="Give paths.")
    found = [check_path(source, "sources") for source in given]
    if not found:
        raise RequestError("no model is named", where="sources", hint="Give a run, an export or a model.")
    return found


def _file_of(records: Records | Rows | None) -> tuple[Records | None, KeptForAPlan | None]:
    """Returns where records are, and what keeps those that were handed in as a file, since they are read several times.

    Raises:
        DataError: They are neither named nor handed in.
    """
    if records is None or isinstance(records, str | os.PathLike | Mapping):
        return records, None
    check_several(records, "records", "records", "Give a file, or a list of mappings.", DataError)
    kept = KeptForAPlan({"records": records})
    return kept.files["records"], kept


def _check_on(on: AdapterBase | None, names: Sequence[str]) -> None:
    """Makes sure that what an adapter is loaded on is given where there is one.

    Raises:
        RequestError: There is none.
    """
    if on is None:
        return
    from graftkit.flow.answering.reload import AdapterBase

    check_is(on, AdapterBase, "on")
    if not any(is_adapter_folder(Path(name)) for name in names):
        raise RequestError(
            "--base, --quantizer and --tokenizer say what an adapter is loaded on, and none is evaluated",
            where=names[0],
            hint="Leave them out.",
        )


def _run_of(name: str) -> RunManifest | None:
    return run_of(Path(name))


def _left_out(recipe: RecipeSource | None, run: RunManifest | None) -> Sequence[str]:
    """Returns the plugins that the recipe leaves out, which says how models are evaluated."""
    if recipe is not None:
        return load_recipe(recipe).recipe.plugins.disable
    return run.left_out if run else ()


def _check_source(name: str, host: PluginHost) -> None:
    from graftkit.flow.answering.reload import check_source

    check_source(name, host)


def _check_device(name: str) -> None:
    """Makes sure that models can be measured where the recipe says, which may be that of a run on another machine.

    Raises:
        RecipeError: There is no such device here.
    """
    try:
        refuse_device(name)
    except RecipeError as error:
        hint = "`--set training.device=auto` takes what is here."
        raise RecipeError(error.message, where=error.where, hint=hint) from None


def _changed(run: RunManifest, planned: EvaluationPlan) -> list[str]:
    """Returns a notice where a run's holdout records are others by now."""
    kept = run.data.fingerprint.get("holdout") if run.data else None
    if kept in (None, planned.samples.fingerprint):
        return []
    return ["the holdout records are not those that the run was evaluated on: its files have changed"]


@dataclass(frozen=True, slots=True)
class _Evaluating:
    """The evaluation of a model, a step a method.

    Attributes:
        source: The model.
        label: What its stages' names begin with.
        planned: What it is evaluated on, and by what.
        host: The plugins.
        on: What an adapter is loaded on.
        tell: Called with events.
        cancel: Asked whether to stop.
    """

    source: str
    label: str
    planned: EvaluationPlan
    host: PluginHost
    on: AdapterBase | None
    tell: OnEvent
    cancel: CancelToken

    def evaluated(self, notices: Sequence[str]) -> Evaluation:
        """Returns what is measured.

        Args:
            notices: What is to be known of the records whatever the model is.
        """
        from graftkit.flow.answering.reload import reload_any, unfinished
        from graftkit.flow.training.evaluate_model import encoded, measured_by, prepared

        found = list(notices)

        def note(stage: ToldStage, texts: Iterable[str]) -> None:
            for text in texts:
                found.append(text)
                stage.notice(text)

        device = self.planned.bound.recipe.training.device
        with self._stage("model") as stage:
            note(stage, unfinished(Path(self.source)))
            model = prepared(reload_any(self.source, self.host, self.on, device), self.planned, self.host, self.source)
            note(stage, model.notices)
        with self._stage("records") as stage, named(self.source):
            examples = encoded(model, self.planned, stage.progress("records"))
            note(stage, examples.notices)
        with self._stage("evaluation") as stage:
            facts, answers = measured_by(model, examples, self.host, stage.progress)
        return Evaluation(
            self.source,
            len(self.planned.samples),
            len(examples.store.ids),
            int(examples.store.loss_tokens.sum()),
            Measured.of(facts),
            answers,
            found,
        )

    def _stage(self, name: str) -> AbstractContextManager[ToldStage]:
        return told_stage(f"{self.label}{name}", self.tell, self.cancel)
