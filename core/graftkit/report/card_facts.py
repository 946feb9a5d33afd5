"""What a model card shows of how an export came about, whether a run trained it or an adapter was exported."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from graftkit.report.run_manifest import AdapterSource, BaseFacts, HeadFacts, ParameterFacts, RunManifest
from graftkit.report.summary import metric_columns, metric_rows, training_seconds, vocabulary_text

__all__ = ["CardFacts", "ExampleCount", "TrainingCount", "facts_of_run", "shared_by_all"]

_DATA_SET = re.compile(r"hub:([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)@.*", re.ASCII)


@dataclass(frozen=True, slots=True)
class ExampleCount:
    """How many examples were trained on, or held out, and how many tokens those have."""

    part: str
    examples: int
    tokens: int
    loss_tokens: int


@dataclass(frozen=True, slots=True)
class TrainingCount:
    """How many steps were taken, of how many tokens in all, in how many seconds."""

    steps: int
    tokens: int
    seconds: float


@dataclass(frozen=True, slots=True)
class CardFacts:
    """What a model card shows besides its format and its proof. What is empty or None is not shown.

    Attributes:
        base: The base model.
        adapter: The adapter's method.
        head: What it has in a language model's place, where it is none.
        quantizer: How the base's weights were stored; "none" where as they are.
        layers: How many layers an adapter has that was exported without training it.
        adapter_from: The adapter that was exported, or that training went on with.
        data_sets: The files of records, each with how many it holds.
        hub_data_sets: The ids of those that are the hub's.
        examples: What was trained on, and what was held out.
        training: How long it was trained.
        parameters: How many parameters there are.
        vocabulary: What became of the base model's vocabulary, as a clause.
        figures: The headings and the rows of what was measured.
        notices: What its exporter told of the form that it has.
        shared: What all conversations of the training had.
        system: The system message that they all had.
        recipe: The recipe with every default filled in.
    """

    base: BaseFacts | None = None
    adapter: str = ""
    quantizer: str = ""
    head: HeadFacts | None = None
    layers: int = 0
    adapter_from: AdapterSource | None = None
    data_sets: Sequence[tuple[str, int]] = ()
    hub_data_sets: Sequence[str] = ()
    examples: Sequence[ExampleCount] = ()
    training: TrainingCount | None = None
    parameters: ParameterFacts | None = None
    vocabulary: str = ""
    figures: Sequence[Sequence[str]] = ()
    notices: Sequence[str] = ()
    shared: Sequence[str] = ()
    system: str = ""
    recipe: Mapping[str, Any] | None = None

    @property
    def methods(self) -> list[str]:
        """The adapter's method, and the quantizer where the weights are stored otherwise."""
        return [name for name in (self.adapter, self.quantizer) if name and name != "none"]


def facts_of_run(run: RunManifest, name: str) -> CardFacts:
    """Returns what the card of an export shows of the run that trained it.

    Args:
        run: What the run says of itself.
        name: The export's name.
    """
    stages = {stage.name: stage.model_extra or {} for stage in run.stages}
    trained, data = stages.get("training", {}), (run.data.model_extra or {}) if run.data else {}
    revisions = (_DATA_SET.fullmatch(key) for key in (run.data.revisions if run.data else ()))
    rows = metric_rows(run)
    return CardFacts(
        base=run.model,
        adapter=str(run.providers.get("adapter", {}).get("name", "")),
        quantizer=str(run.providers.get("quantizer", {}).get("name", "")),
        head=run.head,
        adapter_from=run.adapter_from,
        data_sets=[(str(found["path"]), found["records"]) for found in data.get("data_sets") or ()],
        hub_data_sets=list(dict.fromkeys(found[1] for found in revisions if found)),
        examples=[
            ExampleCount(said, *(data[f"{part}_{what}"] for what in ("examples", "tokens", "loss_tokens")))
            for part, said in (("train", "trained on"), ("holdout", "held out"))
            if f"{part}_examples" in data
        ],
        training=TrainingCount(trained["steps"], trained["tokens"], training_seconds(run))
        if "steps" in trained
        else None,
        parameters=run.parameters,
        vocabulary=vocabulary_text(run),
        figures=[("", *metric_columns(run)), *rows] if rows else [],
        notices=list(stages.get(f"export {name}", {}).get("notices", ())),
        shared=shared_by_all(run.data.system, run.data.tools) if run.data else [],
        system=(run.data.system if run.data else None) or "",
        recipe=run.recipe,
    )


def shared_by_all(system: str | None, tools: Sequence[Any]) -> list[str]:
    """Names what all conversations of a training had, for those who ask the model."""
    return [*(["the same system message"] if system else []), *(["the same tools"] if tools else [])]
