"""What a run checks before it encodes a record and needs torch for, without the run: by the run's own functions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from graftkit.flow.exports.export import make_exporters
from graftkit.flow.exports.refusals import refuse_early
from graftkit.flow.memory.fit_memory import MemoryLimits
from graftkit.flow.memory.forecast_memory import (
    MemoryRequest,
    Sizes,
    TeacherModel,
    forecast_memory,
    request_of,
    teacher_model,
)
from graftkit.flow.planning.run_plan import RunPlan
from graftkit.flow.planning.settle_memory import available, settle_memory
from graftkit.flow.planning.targets import settle_targets
from graftkit.flow.planning.unsettled import settled_recipe
from graftkit.flow.planning.vocabulary import Vocabulary
from graftkit.flow.preparation.check_model import PlannedBase, plan_base
from graftkit.flow.preparation.settle_dtype import settle_dtype
from graftkit.flow.preparation.tokenizer import make_vocabulary
from graftkit.flow.training.answers import check_answerable
from graftkit.host.host import PluginHost
from graftkit.model.whole_transformers import import_transformers
from graftkit.recipe.bind import BoundRecipe
from graftkit.report.run_manifest import MemoryForecast, SettledKey

__all__ = ["check_as_run"]


def check_as_run(plan: RunPlan, host: PluginHost) -> RunPlan:
    """Makes the vocabulary, and checks architecture, targets, exports, device and quantizer, as a run does.

    No weight is loaded and nothing is written. It takes as long as learning the recipe's tokenizer does, and the
    seconds that torch and transformers take to import.

    Returns:
        The plan with the layers of the model itself, and with `checked`.

    Raises:
        RequestError: What a run would refuse.
    """
    import_transformers()
    plan = settle_dtype(plan)
    kept = Vocabulary(plan.tokenizer, plan.backend, plan.encoder, plan.tokenizer)
    vocabulary = make_vocabulary(plan)[0] if plan.vocabulary else kept
    settled = settle_targets(plan, vocabulary.change)
    told: list[str] = []
    check_answerable(settled, host, vocabulary.encoder)
    refuse_early(settled, vocabulary, host, make_exporters(settled, host), told.append)
    base = plan_base(settled, host)
    checked: dict[str, str | bool | int] = {
        "device": str(base.device),
        "packed": base.packing.packed,
        "new_rows": len(vocabulary.change.ids) if vocabulary.change else 0,
    }
    corpus = plan.estimate()
    sequences, prompt = plan.bound.objective_config.sequences, max(corpus.prompts, default=0)
    sizes = Sizes(corpus.lengths, corpus.learnt, prompt, sequences=sequences)
    change = vocabulary.change

    def ask(bound: BoundRecipe) -> MemoryRequest:
        files, bound = plan.files, settled_recipe(bound, plan.settled)
        model = (files.config, files.tensors, files.reference, settled.targets)
        asked = request_of(
            bound,
            host,
            *model,
            base.packing,
            base.device.type,
            sizes,
            change,
            saved=tuple(settled.whole.shapes),
            ties_saved=settled.whole.tied,
            unties=settled.unties,
        )
        return asked.with_teacher(_teacher_model(plan, bound, host, base))

    def settle(limits: MemoryLimits | None) -> Mapping[str, SettledKey]:
        def forecast(values: Mapping[str, Any]) -> MemoryForecast:
            return forecast_memory(ask(settled.bound.with_values(values)))

        limits, longest = limits or available(base.device), max(corpus.lengths)
        return settle_memory(settled.bound.recipe, longest, forecast, limits, base.no_checkpointing).keys

    told += [found.describe(key) for key, found in plan.settled.items()]
    found = replace(settled, notices=[*settled.notices, *told, *base.notices], checked=checked, corpus=corpus)
    return replace(found, ask_memory=ask, settle_memory=settle) if corpus.lengths else found


def _teacher_model(plan: RunPlan, bound: BoundRecipe, host: PluginHost, base: PlannedBase) -> TeacherModel | None:
    if plan.teacher is None:
        return None
    files = plan.teacher.files
    return teacher_model(bound, host, files.config, files.tensors, files.reference, base.teacher_packing)
