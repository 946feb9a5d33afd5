"""Asks exporters whether they can write what a run trains, before a weight is loaded and once the adapter is on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from graftkit.errors import RecipeError
from graftkit.flow.base_files.generation_settings import generation_config, stop_tokens
from graftkit.flow.exports.merge import merge_refusal
from graftkit.flow.planning.run_plan import RunPlan
from graftkit.flow.planning.vocabulary import Vocabulary
from graftkit.flow.preparation.base_model import LoadedModel
from graftkit.flow.preparation.new_rows import changed_config
from graftkit.flow.state.context import RunContext
from graftkit.host.host import PluginHost
from graftkit.interfaces.adapter import Adapter
from graftkit.interfaces.architecture import Head
from graftkit.interfaces.exporter import Exporter, MergingExporter, NoticesExporter, PlannedModel, Twin
from graftkit.interfaces.quantizer import Quantizer
from graftkit.interfaces.tokenizer import Tokenizer
from graftkit.interfaces.vocabulary import VocabularyChange
from graftkit.model.twin import published_twin

__all__ = ["Planned", "head_refusal", "notices_of", "quantizer_of", "refuse_early", "refuse_merges"]


@dataclass(frozen=True, slots=True)
class Planned:
    """What exporters are asked about, before there is a model: see `graftkit.PlannedModel`."""

    config: Mapping[str, Any]
    reference: str
    tokenizer: Tokenizer
    change: VocabularyChange | None
    adapter: Adapter
    targets: Sequence[str]
    expert_targets: Sequence[str] = ()
    unties: bool = False
    saved_modules: Sequence[str] = ()
    generation_config: Mapping[str, Any] = field(default_factory=dict)
    pairs: bool = False

    def twin(self, *, short_windows: bool = True) -> Twin:
        """Returns a tiny model of the same architecture."""
        return published_twin(self.config, short_windows=short_windows)


def refuse_early(
    plan: RunPlan,
    vocabulary: Vocabulary,
    host: PluginHost,
    exporters: Mapping[str, Exporter],
    notice: Callable[[str], object],
) -> None:
    """Asks each exporter whether it can write what the run is going to train, before a weight is loaded.

    Args:
        plan: The run's plan.
        vocabulary: Its vocabulary.
        host: What makes the adapter.
        exporters: The exporters by their folders.
        notice: Called with what they tell of the form that they have.

    Raises:
        RecipeError: One can't.
    """
    bound, files = plan.bound, plan.files
    _refuse_nameless(plan)
    adapter: Adapter = host.registry.create(bound.adapter.registered, bound.adapter.config)
    config = changed_config(files.config, vocabulary.change, vocabulary.tokenizer)
    targets, experts, quantizer = plan.targets, plan.expert_targets, quantizer_of(plan, host)
    reference, tokenizer, change = files.reference, vocabulary.tokenizer, vocabulary.change
    stop = stop_tokens(files, change, tokenizer, ())
    generation = {} if plan.head else generation_config(files, change, tokenizer, stop)
    for place, (name, exporter) in enumerate(exporters.items()):
        planned = Planned(
            deepcopy(config),
            reference,
            tokenizer,
            change,
            adapter,
            list(targets),
            list(experts),
            plan.unties,
            list(plan.whole.shapes),
            generation_config=deepcopy(generation),
            pairs=bool(plan.head and plan.head.pairs),
        )
        what = f"the objective {bound.objective.use} trains a model with another head"
        reason = head_refusal(exporter, bound.objective_config.head, what) or exporter.refusal(planned)
        _refuse(plan, place, name, reason or merge_refusal(exporter, files, quantizer))
        for text in notices_of(exporter, planned):
            notice(f"the export {name}: {text}")


def _refuse_nameless(plan: RunPlan) -> None:
    """Refuses to put off the proof of what only this run may name: whoever verifies it makes what is installed.

    Raises:
        RecipeError: A class is named that no plugin offers.
    """
    if plan.bound.recipe.proof == "now":
        return
    exporters = [choice.registered for _, choice in plan.bound.exports]
    for registered in (*exporters, plan.bound.quantizer.registered, plan.source):
        if not registered.plugin.distribution:
            target = registered.provider.target
            raise RecipeError(
                f"proof: later: '{target}' is a class that no plugin offers, and toolkit verify makes none such",
                where=plan.bound.document.where(("proof",)),
                hint="Say proof: now, or have a plugin offer it.",
            )


def refuse_merges(run: RunContext, loaded: LoadedModel, exporters: Mapping[str, Exporter]) -> None:
    """Refuses what can't be merged onto what its exporter asks for, now that the adapter is on the model.

    Raises:
        RecipeError: There is such an export.
    """
    quantizer = quantizer_of(run.plan, run.host)
    for place, (name, exporter) in enumerate(exporters.items()):
        _refuse(run.plan, place, name, merge_refusal(exporter, run.plan.files, quantizer, loaded.model))


def _refuse(plan: RunPlan, place: int, name: str, reason: str | None) -> None:
    if reason:
        message = f"the export '{name}' can't be written: {reason}"
        where = plan.bound.document.where(("export", place))
        raise RecipeError(message, where=where, hint="Leave it out, or name another: nothing has been done.")


def head_refusal(exporter: Exporter, head: Head, what: str) -> str | None:
    """Says why an exporter that knows of no heads can't write a model with one, or None.

    Args:
        exporter: The exporter.
        head: The model's.
        what: What has such a model, as the message begins.
    """
    if head in getattr(exporter, "heads", ("language",)):
        auto = head != "language" and isinstance(exporter, MergingExporter) and exporter.merge_onto == "auto"
        return "onto: auto measures the likelihood of tokens, and a head gives none: say which" if auto else None
    return f"{what}, and its format holds causal language models: export peft or merged"


def notices_of(exporter: Exporter, model: PlannedModel) -> list[str]:
    """Returns what an exporter tells of the form that a model takes."""
    return list(map(str, exporter.notices(model))) if isinstance(exporter, NoticesExporter) else []


def quantizer_of(plan: RunPlan, host: PluginHost) -> Quantizer:
    """Makes the quantizer that the recipe names."""
    made: Quantizer = host.registry.create(plan.bound.quantizer.registered, plan.bound.quantizer.config)
    return made
