"""Names what a recipe says and nothing goes by.

Each rule says of some keys when nothing reads them, and why: for another key that says otherwise, for the objective,
by its head and what it learns from, or for the shapes of the records. Keys that are added to the recipe, and kinds of
objectives, get their rules here.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import reduce

from graftkit.interfaces.config import StrictModel
from graftkit.interfaces.objective_config import SampledConfig
from graftkit.recipe.bind import BoundRecipe
from graftkit.recipe.schema.evaluation import EvaluationSection

__all__ = ["without_effect"]


@dataclass(frozen=True, slots=True)
class _Idle:
    """Keys that nothing goes by.

    Attributes:
        section: The recipe's section, "tokenizer.extend" where that is one in another.
        keys: Its keys.
        why: Why, which also says what to do where that is not to leave them out.
    """

    section: str
    keys: tuple[str, ...]
    why: str


def without_effect(bound: BoundRecipe, shapes: Collection[str] = (), *, trains_rows: bool = True) -> Iterator[str]:
    """Yields a sentence for each key that the recipe says and that changes nothing.

    A recipe of a manifest says every key: what it says as it is when left out is no such key.

    Args:
        bound: The recipe.
        shapes: Which shapes of records there are, of training and held out, as `Samples.counts` calls them; none where
            that is not known.
        trains_rows: Whether rows of the embeddings are trained by themselves: new ones, or those of the adapter in
            `adapter.from`.
    """
    for rule in (
        *_by_other_keys(bound, trains_rows=trains_rows),
        *_by_objective(bound, shapes),
        *_by_records(bound, shapes),
    ):
        section: StrictModel = reduce(getattr, rule.section.split("."), bound.recipe)
        fields = type(section).model_fields
        for key in rule.keys:
            if getattr(section, key) != fields[key].default:
                yield f"{rule.section}.{key} has no effect: {rule.why}"
    if bound.recipe.proof == "later" and not bound.recipe.export:
        yield "proof has no effect: export names no format"


_OF_LAYOUT = ("turns", "system", "template_arguments", "end_of_turn", "dropped", "date")
"""The keys of `data` that say how conversations are laid out, besides the template itself."""


_OF_SCHEDULE = {
    "wsd": ("decay", "decay_type"),
    "cosine_with_restarts": ("cycles",),
    "polynomial": ("power",),
    "inverse_sqrt": ("timescale",),
}
"""The keys of `training` that one schedule alone goes by."""


_NOT_OF_OPTIMIZER = {
    "sgd": ("beta1", "beta2", "epsilon"),
    "lion": ("epsilon",),
    "adafactor": ("beta1", "beta2", "epsilon"),
}
"""The keys of `training` that an optimizer does not go by, where others do."""


def _by_objective(bound: BoundRecipe, shapes: Collection[str]) -> Iterator[_Idle]:
    """Yields what the objective does not read, by its kind: its head, and what it learns from."""
    config, use = bound.objective_config, bound.objective.use
    if not config.lays_out:
        layout = (*_OF_LAYOUT, "chat_template")
        yield _Idle("data", layout, f"{use} sees each text as it is, which no chat template lays out")
    if config.head == "masked":
        yield _Idle("data", ("overflow",), f"{use} cuts a long text into several examples")
    if not bound.recipe.evaluation.answers:
        why = "evaluation.answers is 0" + (", and texts have no answer" if {*shapes} == {"text"} else "")
        if config.head != "language":
            why = f"{use} trains a model that writes no answers, and reports metrics of its own"
        if isinstance(config, SampledConfig):  # which compares and samples by the others
            yield _Idle("evaluation", ("max_new_tokens",), f"{why}; objective.max_new_tokens is that of sampled ones")
        else:
            metrics = () if _usual_metrics(bound) else ("metrics",)
            yield _Idle("evaluation", (*metrics, "max_new_tokens", "batch_size"), why)
    if isinstance(config, SampledConfig):
        keys = ("divergence_factor", "divergence_window")
        yield _Idle("training", keys, f"rewards rise and fall, by which {use} learns")


def _by_records(bound: BoundRecipe, shapes: Collection[str]) -> Iterator[_Idle]:
    """Yields what nothing goes by where an objective that lays records out has none of some shape."""
    if not shapes or not bound.objective_config.lays_out:
        return
    if "chat" not in shapes:
        yield _Idle("data", ("turns", "dropped"), "no record is a conversation")
    if {*shapes} == {"text"}:
        yield _Idle("data", ("overflow",), "every record is a text, and a long one is cut into several examples")
    if {*shapes} <= {"chat", "tokens"}:
        why = "no record is a text, a prompt or a completion, and what messages spell is always plain characters"
        yield _Idle("data", ("special_tokens",), why)


def _by_other_keys(bound: BoundRecipe, *, trains_rows: bool) -> Iterator[_Idle]:
    """Yields what nothing goes by since another key says otherwise."""
    evaluation, training, tokenizer = bound.recipe.evaluation, bound.recipe.training, bound.recipe.tokenizer
    if tokenizer and not trains_rows:
        keys = ("embedding_init", "embedding_learning_rate", "embedding_warmup_steps")
        yield _Idle("tokenizer", keys, "the adapter in adapter.from has no trained rows")
    elif tokenizer and not tokenizer.changes_vocabulary:
        yield _Idle("tokenizer", ("embedding_init",), "the rows are those of the adapter in adapter.from")
    if tokenizer and tokenizer.extend and not tokenizer.extend.tokens:
        yield _Idle("tokenizer.extend", ("min_frequency", "max_length"), "tokenizer.extend.tokens is 0: none is learnt")
    if evaluation.every is None:
        yield _Idle("evaluation", ("sample", "min_delta"), "evaluation.every is not said")
    elif evaluation.patience is None:
        yield _Idle("evaluation", ("min_delta",), "evaluation.patience is not said")
    if idle := _NOT_OF_OPTIMIZER.get(training.optimizer):
        yield _Idle("training", idle, f"training.optimizer is {training.optimizer}")
    if training.warmup_steps is not None:
        yield _Idle("training", ("warmup",), "training.warmup_steps says in how many steps the rate rises")
    if training.schedule in ("constant", "inverse_sqrt"):
        yield _Idle("training", ("min_lr_ratio",), f"training.schedule is {training.schedule}")
    for schedule, of_it in _OF_SCHEDULE.items():
        if training.schedule != schedule:
            yield _Idle("training", of_it, f"training.schedule is {training.schedule}")
    if training.divergence_factor is None and not isinstance(bound.objective_config, SampledConfig):
        yield _Idle("training", ("divergence_window",), "training.divergence_factor is null")


def _usual_metrics(bound: BoundRecipe) -> bool:
    """Tells whether the metrics are those of a recipe that names none, and their fields as when left out."""
    if bound.absent_metrics:
        return False
    usual = {metric.label: metric.use for metric in EvaluationSection().metrics}
    named = {label: choice.use for label, choice in bound.metrics.items()}
    return named == usual and all(choice.config == type(choice.config)() for choice in bound.metrics.values())
