"""Settles a run's memory in a process of its own: its forecast computes on tensors without contents."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from graftkit.flow.memory.fit_memory import MemoryLimits
from graftkit.flow.memory.forecast_memory import Sizes, examples_of, forecast_memory, request_of, teacher_model
from graftkit.flow.memory.measured_memory import own_memory
from graftkit.flow.planning.settle_memory import SettledMemory, available, pass_sizes, settle_memory
from graftkit.flow.planning.unsettled import MICROBATCH, unsettled
from graftkit.flow.preparation.check_model import PlannedBase
from graftkit.flow.preparation.corpus import Corpus
from graftkit.flow.state.context import RunContext
from graftkit.host.host import PluginHost
from graftkit.interfaces.end_with_parent import end_with_parent
from graftkit.interfaces.model_source import BaseModelFiles, TensorInfo
from graftkit.interfaces.vocabulary import VocabularyChange
from graftkit.model.packing import Packing
from graftkit.recipe.bind import bind
from graftkit.recipe.load import load_recipe
from graftkit.report.run_manifest import MemoryFacts, MemoryForecast, SettledKey

__all__ = ["settle_memory_apart"]

_SECONDS = 600.0
"""How long it may take: some seconds for a model of some billion parameters."""


def settle_memory_apart(run: RunContext, planned: PlannedBase, corpus: Corpus) -> None:
    """Settles what the recipe leaves to the memory that is free, by the lengths of the examples themselves.

    The manifest keeps the values, and the forecast beside what is measured later.
    """
    if not unsettled(run.plan.bound.recipe):
        return
    with run.stage("memory"):
        found = _answer(run, _request(run, planned, corpus))
        run.settle(found.keys)
        if found.forecast and not found.forecast.unknown:
            known = run.manifest.memory or MemoryFacts()
            run.record(memory=MemoryFacts(forecast=found.forecast, measured=known.measured))


def _request(run: RunContext, planned: PlannedBase, corpus: Corpus) -> dict[str, Any]:
    """Returns all that the other process has to know, as JSON: of the examples those of the largest pass."""
    plan, bound = run.plan, run.plan.bound
    prompts = [int(corpus.holdout.prompt_lengths[number]) for number in corpus.answered]
    sequences, prompt = bound.objective_config.sequences, max(prompts, default=0)
    every = Sizes(corpus.train.lengths.tolist(), corpus.train.loss_tokens.tolist(), prompt, sequences=sequences)
    longest = max(every.lengths)
    largest = {
        size: examples_of(bound.with_values({MICROBATCH: size}).recipe, every, packed=planned.packing.packed)
        for size in pass_sizes(bound.recipe, longest)
    }
    change = run.vocabulary.change
    return {
        "recipe": bound.recipe.model_dump(mode="json", exclude_unset=True),
        "disable": bound.recipe.plugins.disable,
        "model": _told(plan.files, planned.packing),
        "targets": plan.targets,
        "teacher": _told(plan.teacher.files, planned.teacher_packing) if plan.teacher else None,
        "device": planned.device.type,
        "change": change.to_json() if change else None,
        "longest": longest,
        "largest": {size: asdict(sizes) for size, sizes in largest.items()},
        "limits": asdict(available(planned.device)),
        "no_checkpointing": planned.no_checkpointing,
        "program": own_memory() or 0,
        "saved": list(plan.whole.shapes),
        "ties_saved": plan.whole.tied,
        "unties": plan.unties,
    }


def _told(files: BaseModelFiles, packing: Packing) -> dict[str, Any]:
    """Returns what of a model its memory depends on, as JSON."""
    return {
        "config": dict(files.config),
        "tensors": {name: asdict(info) for name, info in files.tensors.items()},
        "reference": files.reference,
        "packing": asdict(packing),
    }


def _model_of(told: Mapping[str, Any]) -> tuple[Mapping[str, Any], dict[str, TensorInfo], str, Packing]:
    """Returns what `_told` was given: configuration, tensors, reference, packing."""
    tensors = {name: TensorInfo(**{**info, "shape": tuple(info["shape"])}) for name, info in told["tensors"].items()}
    return told["config"], tensors, told["reference"], Packing(**told["packing"])


def _answer(run: RunContext, request: dict[str, Any]) -> SettledMemory:
    """Returns what the other process says; where it fails, what is taken where nothing is known."""
    command = [sys.executable, "-P", "-m", __name__, str(os.getpid())]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, encoding="utf-8", env=environment
    ) as process:
        try:
            output, errors = _communicate(process, json.dumps(request), run)
        finally:
            process.kill()
    try:
        found = json.loads(output)
        keys = {key: SettledKey.model_validate(settled) for key, settled in found["keys"].items()}
        return SettledMemory(keys, MemoryForecast.model_validate(found["forecast"]))
    except ValueError:
        last = errors.strip().rpartition("\n")[2] or f"exit code {process.returncode}"
        unknown = MemoryForecast(device=request["device"], unknown=f"the process that forecasts it failed: {last:.200}")
        recipe, limits = run.plan.bound.recipe, MemoryLimits(**request["limits"])
        return settle_memory(recipe, request["longest"], lambda values: unknown, limits)


def _communicate(process: subprocess.Popen[str], text: str, run: RunContext) -> tuple[str, str]:
    """Gives a process its input and returns what it wrote; it ends when the run is stopped, or takes too long."""
    given: str | None = text
    for _ in range(int(_SECONDS / 0.2)):
        run.cancel.poll()
        try:
            return process.communicate(given, timeout=0.2)
        except subprocess.TimeoutExpired:
            given = None
    return "", f"it took longer than {_SECONDS:.0f} seconds"


def main() -> None:
    """Reads a request from standard input, and prints what keys come to, and the forecast, as JSON."""
    end_with_parent(int(sys.argv[1]))
    output = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    asked = json.load(sys.stdin)
    host = PluginHost(disable=asked["disable"])
    bound = bind(load_recipe(asked["recipe"]), host)
    change = VocabularyChange.from_json(asked["change"]) if asked["change"] else None
    config, tensors, reference, packing = _model_of(asked["model"])
    teacher = _model_of(asked["teacher"]) if asked["teacher"] else None

    def forecast(values: Mapping[str, Any]) -> MemoryForecast:
        sizes = Sizes(**asked["largest"][str(values[MICROBATCH])])
        tried = bound.with_values(values)
        request = request_of(
            tried,
            host,
            config,
            tensors,
            reference,
            asked["targets"],
            packing,
            asked["device"],
            sizes,
            change,
            program=asked["program"],
            saved=asked["saved"],
            ties_saved=asked["ties_saved"],
            unties=asked["unties"],
        )
        return forecast_memory(request.with_teacher(teacher_model(tried, host, *teacher) if teacher else None))

    found = settle_memory(
        bound.recipe, asked["longest"], forecast, MemoryLimits(**asked["limits"]), asked["no_checkpointing"]
    )
    assert found.forecast is not None
    keys = {key: settled.model_dump() for key, settled in found.keys.items()}
    print(json.dumps({"keys": keys, "forecast": found.forecast.model_dump(mode="json")}), file=output, flush=True)


if __name__ == "__main__":
    main()
