"""Forecasts a run's own memory once its examples are known, so that its manifest has that beside what is measured."""

from __future__ import annotations

from graftkit.flow.check_model import PlannedBase
from graftkit.flow.context import RunContext
from graftkit.flow.corpus import Corpus
from graftkit.flow.forecast_memory import Sizes, forecast_memory, request_of
from graftkit.report.run_manifest import MemoryFacts

__all__ = ["record_memory_forecast"]


def record_memory_forecast(run: RunContext, planned: PlannedBase, corpus: Corpus) -> None:
    """Keeps in the manifest what the run will take of memory; where that can't be told, why."""
    plan, store = run.plan, corpus.train
    wanted = corpus.answers[: plan.bound.recipe.evaluation.exact_match]
    prompt = max((corpus.holdout[number].prompt_length for number in wanted), default=0)
    asked = request_of(
        plan.bound,
        run.host,
        plan.files.config,
        plan.files.tensors,
        plan.files.reference,
        plan.targets,
        planned.packing,
        planned.device.type,
        Sizes(store.lengths.tolist(), store.loss_tokens.tolist(), prompt),
        run.vocabulary.change,
    )
    known = run.manifest.memory or MemoryFacts()
    run.record(memory=MemoryFacts(forecast=forecast_memory(asked), measured=known.measured))
