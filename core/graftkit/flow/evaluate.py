"""Evaluates finished models on records: their loss, bits per byte, and answers by the recipe's metrics."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftkit.arguments import check_flags, check_is, check_path, check_several, check_texts
from graftkit.errors import DataError, RecipeError, RequestError, named
from graftkit.flow.answering.plugins_of_run import plugins_of_run
from graftkit.flow.device import refuse_device, refuse_torch_settings
from graftkit.flow.events import OnEvent, ignore
from graftkit.flow.folders.adapter_folder import is_adapter_folder
from graftkit.flow.planning.earlier_run import day_of
from graftkit.flow.planning.evaluation import EvaluationPlan, Records, plan_evaluation, recipe_of_evaluation
from graftkit.flow.records.handed_records import KeptForAPlan, Rows, naming_rows
from graftkit.flow.run_result import Measured
from graftkit.flow.state.cancel import CancelToken, check_follower
from graftkit.flow.state.told_stage import ToldStage, told_stage
from graftkit.host.guard import naming_plugins
from graftkit.host.host import PluginHost
from graftkit.interfaces.architecture import Head
from graftkit.interfaces.offline import no_network_if
from graftkit.recipe.load import RecipeSource, load_recipe
from graftkit.report.run_manifest import RunManifest
from graftkit.report.run_of_folder import first_run

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
        head: What the model has on its hidden states.
    """

    source: str
    records: int
    tokens: int
    loss_tokens: int
    measured: Measured
    answers: Sequence[Answer] = ()
    notices: Sequence[str] = ()
    head: Head = "language"

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

    def stage_of(label: str, name: str) -> AbstractContextManager[ToldStage]:
        return told_stage(f"{label}{name}", tell, cancel)

    with no_network_if(offline), naming_plugins(), naming_rows(kept.files if kept else {}):
        from graftkit.flow.answering.reload import check_source

        run = first_run(names) if recipe is None else None
        host = host or _plugins_of(recipe, names)
        heads = {name: check_source(name, host) for name in names}
        asked = recipe_of_evaluation(names[0], run, where, recipe, overrides)
        _check_device(asked.loaded.recipe.training.device)
        with stage_of("", "records") as stage:
            started, pinned = (day_of(run), dict(run.data.revisions)) if run and run.data else (None, None)
            planned = plan_evaluation(asked, host, started=started, pinned=pinned)
            notices = [*planned.notices, *(_changed(run, planned) if run and records is None else ())]
            for text in notices:
                stage.notice(text)
        if planned.bound.objective_config.head == "embedding":
            heads = {name: check_source(name, host, headless=True) for name in names}
        for name, head in heads.items():
            if head is not None:
                planned.for_head(host, head, name)
        found = []
        for name in names:
            label = f"{name}: " if len(names) > 1 else ""
            own = on if is_adapter_folder(Path(name)) else None
            found.append(_evaluated(name, planned, host, own, notices, partial(stage_of, label)))
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


def _plugins_of(recipe: RecipeSource | None, names: Sequence[str]) -> PluginHost:
    """Makes the plugins, without those that the recipe leaves out which says how models are evaluated."""
    if recipe is None:
        return plugins_of_run(*names)
    return PluginHost(disable=load_recipe(recipe).recipe.plugins.disable)


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


def _evaluated(
    source: str,
    planned: EvaluationPlan,
    host: PluginHost,
    on: AdapterBase | None,
    known: Sequence[str],
    stage_of: Callable[[str], AbstractContextManager[ToldStage]],
) -> Evaluation:
    """Evaluates a model.

    Args:
        source: The model.
        planned: What it is evaluated on, and by what.
        host: The plugins.
        on: What an adapter is loaded on.
        known: What the user should know of the records whatever the model is.
        stage_of: Begins a stage of a name.
    """
    from graftkit.flow.answering.reload import reload_any, unfinished
    from graftkit.flow.training.evaluate_model import encoded, measured_by, prepared

    notices = list(known)

    def note(stage: ToldStage, texts: Iterable[str]) -> None:
        for text in texts:
            notices.append(text)
            stage.notice(text)

    device = planned.bound.recipe.training.device
    with stage_of("model") as stage:
        note(stage, unfinished(Path(source)))
        headless = planned.bound.objective_config.head == "embedding"
        model = prepared(reload_any(source, host, on, device, headless=headless), planned, host, source)
        note(stage, model.notices)
    with stage_of("records") as stage, named(source):
        examples = encoded(model, planned, host, stage.progress("records"))
        note(stage, examples.notices)
    with stage_of("evaluation") as stage:
        facts, answers = measured_by(model, examples, host, stage.progress)
    tokens, learnt = len(examples.store.ids), int(examples.store.loss_tokens.sum())
    head = model.bound.objective_config.head
    return Evaluation(source, len(planned.samples), tokens, learnt, Measured.of(facts), answers, notices, head)
