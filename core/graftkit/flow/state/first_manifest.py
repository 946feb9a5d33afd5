"""What the manifest of a run says as it begins: its recipe, who provides what, and what it goes on from."""

from __future__ import annotations

import platform
import sys
from collections.abc import Collection, Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any
from uuid import uuid4

from graftkit._version import __version__
from graftkit.flow.folders.listed_files import is_state
from graftkit.flow.folders.metrics import METRICS
from graftkit.flow.folders.own_files import REPORT, answers_file
from graftkit.flow.planning.run_plan import RunPlan
from graftkit.flow.state.resume import Resumed
from graftkit.host.records import BUILT_IN
from graftkit.recipe.document import KeyPath
from graftkit.recipe.schema.providers import ExportSection, MetricSection
from graftkit.report.run_manifest import FORMAT, DataFacts, MemoryFacts, RunManifest

__all__ = ["ADAPTER", "first_manifest", "third_parties"]

ADAPTER = "adapter/adapter.safetensors"
"""Where a run keeps the tensors of its adapter."""

_TAKEN_OVER = (METRICS, answers_file("before"), ADAPTER)
"""Files that a run which goes on may take over as they are, besides checkpoints."""

_LIBRARIES = ("torch", "transformers", "bitsandbytes", "tokenizers", "safetensors", "numpy", "peft")


def first_manifest(plan: RunPlan, resumed: Resumed | None, theirs: Collection[str]) -> RunManifest:
    """Returns the manifest of a run that begins, or goes on.

    Args:
        plan: The plan of the run.
        resumed: The run that it goes on with, if any.
        theirs: The files in its folder that this one did not write, or that were edited since.
    """
    manifest = RunManifest(
        graftkit=__version__,
        format=FORMAT,
        id=(resumed and resumed.manifest.id) or uuid4().hex,
        status="running",
        seconds=0.0,
        progress=None,
        recipe=plan.bound.resolved(),
        chosen=dict(plan.chosen),
        settled=dict(plan.settled),
        providers=_providers(plan, resumed),
        seed=plan.bound.recipe.training.seed,
        stages=[],
        notices=[],
        data=DataFacts(date=plan.today.isoformat(), revisions=plan.revisions()),
        environment=_environment(),
    )
    if resumed is None:
        return manifest
    failure = resumed.manifest.failure
    failed = {"failure": failure.model_copy(update={"back_to": resumed.back_to})} if failure else {}
    return manifest.with_facts(**_known(resumed.manifest, theirs), **failed)


def third_parties(plan: RunPlan) -> list[str]:
    """Returns the plugins that a run uses and that are not built in, as messages name them."""
    providers = [plan.source, plan.backend, *(choice.registered for choice in plan.bound.choices.values())]
    providers += [plan.vocabulary.registered] if plan.vocabulary else []
    return list(
        dict.fromkeys(registered.plugin.label for registered in providers if registered.plugin.distribution != BUILT_IN)
    )


def _known(before: RunManifest, theirs: Collection[str]) -> dict[str, Any]:
    """Returns what the manifest of a run that goes on says already: should it be killed, the next one needs it, too.

    Args:
        before: What it said when it stopped.
        theirs: The files in its folder that it did not write, or that were edited since.
    """
    kept = {"data", "tokenizer", "model", "teacher", "metrics", "stop_tokens"} & before.model_fields_set
    continued = list(before.continued)
    if before.status == "finished":
        continued.append(_finished(before))
    if continued:  # its exports stay until the new ones are proved
        kept |= {"exports"} & before.model_fields_set
    forecast = before.memory.forecast if before.memory else None
    return {key: getattr(before, key) for key in kept} | {
        **({"memory": MemoryFacts(forecast=forecast)} if forecast else {}),
        "continued": continued,
        "metrics": {when: facts for when, facts in before.metrics.items() if when != "after"},
        "resumed": [*before.resumed, before.progress],
        "written": sorted({*before.written, *before.artifacts}.difference(theirs)),
        "kept": {
            name: facts
            for name in sorted({*before.artifacts, *before.kept})
            if (name in (*_TAKEN_OVER, REPORT) or is_state(name)) and (facts := before.vouched(name))
        },
    }


def _finished(before: RunManifest) -> dict[str, Any]:
    """Returns what a manifest keeps of the finished run that it goes on from."""
    after = before.metrics.get("after")
    measured = after.model_dump(mode="json", exclude_unset=True) if after else None
    run = Resumed(before)
    return {"steps": run.trained_steps, "planned": run.planned_steps, "after": measured}


def _providers(plan: RunPlan, resumed: Resumed | None) -> dict[str, Any]:
    """Returns what each name resolved to; a source opens, and a tokenizer is read, with the defaults of its fields.

    What is absent, since nothing uses it, was what the run that goes on says.
    """
    backend = plan.vocabulary.registered if plan.vocabulary else plan.backend
    found = {"model_source": plan.source.facts({}), "tokenizer": backend.facts({})}
    said = _said(resumed.manifest) if resumed and plan.bound.absent else {}
    exports, metrics = plan.bound.recipe.export, plan.bound.recipe.evaluation.metrics

    def known(path: KeyPath) -> Mapping[str, Any] | None:
        match path:
            case ("export", int(place)):
                return said.get(("exporters", exports[place].folder))
            case ("evaluation", "metrics", int(place)):
                return said.get(("metrics", metrics[place].label))
            case ("plugins", name):
                return said.get(("callbacks", str(name)))
        return None

    return found | plan.bound.providers(known)


def _said(before: RunManifest) -> dict[tuple[str, str], Mapping[str, Any]]:
    """Returns what the manifest of a run says of its exporters, metrics and callbacks, by the names in its recipe."""
    recipe, providers = before.recipe, before.providers
    folders = [ExportSection.model_validate(entry).folder for entry in recipe.get("export") or []]
    labels = [MetricSection.model_validate(entry).label for entry in recipe.get("evaluation", {}).get("metrics") or []]
    found = {("exporters", name): facts for name, facts in zip(folders, providers.get("exporters", []), strict=False)}
    found |= {("metrics", name): facts for name, facts in zip(labels, providers.get("metrics", []), strict=False)}
    for facts in providers.get("callbacks", []):
        names = (facts["name"], f"{facts['distribution']}:{facts['name']}", facts["target"])
        found |= {("callbacks", name): facts for name in names}
    return found


_version = cache(version)
"""A library's version, which is read from a file for each question."""


def _environment() -> dict[str, str]:
    """Returns what a result may depend on. Chosen one by one: nothing of the process's environment is copied."""
    found = {"python": platform.python_version(), "system": f"{sys.platform} {platform.machine()}"}
    for name in _LIBRARIES:
        try:
            found[name] = _version(name)
        except PackageNotFoundError:
            continue
    return found
