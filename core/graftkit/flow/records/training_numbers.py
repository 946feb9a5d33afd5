"""The numbers of a training that fit its records and its model: how they are chosen, and what is told of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from graftkit.articles import counted
from graftkit.flow.records.estimate import CorpusEstimate
from graftkit.interfaces.model_source import BaseModelFiles
from graftkit.interfaces.objective_config import AnyObjectiveConfig
from graftkit.recipe.schema.recipe import Recipe
from graftkit.recipe.schema.training import TrainingSection
from graftkit.training.order import group_by_tokens, plan_steps, shuffled, steps_of_epochs
from graftkit.training.schedule import falling_steps, warmup_steps

__all__ = [
    "FEWEST_SAID",
    "StepEstimate",
    "choose_training",
    "describe_chosen",
    "estimate_steps",
    "long_warmup",
    "never_falls",
    "rounded_up",
    "too_short",
]

_EPOCHS = 3
_FEWEST_STEPS = 30
FEWEST_SAID = 20
"""Steps below which a recipe that says them is told that they are few: 28, at a high rate, have taught an API."""
_RATES = ((2e8, 1e-3), (2e9, 5e-4), (math.inf, 2e-4))
"""The learning rate of a low-rank adapter, by the model's number of parameters up to which it is used."""
_RATE_SCALES = {"lion": 0.2}
"""What an optimizer's rate is, times AdamW's, where it is another: Lion's paper has a third to a tenth."""


@dataclass(frozen=True, slots=True)
class StepEstimate:
    """What a training comes to.

    Attributes:
        steps: How many optimizer steps there are.
        an_epoch: How many of them an epoch has.
        examples: The mean examples of a step.
        epochs: How often every record is seen.
        enough_epochs: How many epochs take thirty steps.
    """

    steps: int
    an_epoch: int
    examples: float
    epochs: float
    enough_epochs: int


def choose_training(
    recipe: Recipe,
    corpus: CorpusEstimate,
    files: BaseModelFiles,
    rate_scale: float = 1.0,
    examples: int = AnyObjectiveConfig.examples_per_step,
    repeats: int = 1,
) -> dict[str, Any]:
    """Returns the keys of `training` that a recipe leaves out and that fit its records and its model.

    About so many `examples` a step; every record three times, or as often as thirty steps take; the rate of a low-rank
    adapter for a model of this size, times `rate_scale`, which is the adapter's times the objective's, and the
    optimizer's. Equal records, recipe and model give equal numbers.

    Args:
        recipe: The recipe.
        corpus: How many tokens and examples its records are.
        files: The base model.
        rate_scale: As above.
        examples: As above; see `AnyObjectiveConfig.examples_per_step`.
        repeats: How many steps see the same examples, one after the other.
    """
    section, chosen = recipe.training, dict[str, Any]()
    if "tokens_per_step" not in section.model_fields_set:
        chosen["tokens_per_step"] = _tokens_per_step(corpus, recipe.data.max_length or 0, examples)
    if "learning_rate" not in section.model_fields_set:
        rate = _rate(files) * rate_scale * _RATE_SCALES.get(section.optimizer, 1.0)
        chosen["learning_rate"] = float(f"{rate:.3g}")
    if section.epochs is None and section.steps is None:
        first = recipe.tokenizer.embedding_warmup_steps if recipe.tokenizer else 0
        fewest = (_FEWEST_STEPS + first) / repeats
        chosen["epochs"] = max(_EPOCHS, _epochs_taking(fewest, section.model_copy(update=chosen), corpus))
    return chosen


def _tokens_per_step(corpus: CorpusEstimate, at_least: int, examples: int) -> int:
    """Returns the tokens of about so many examples; of so few records, fewer, that an epoch has two steps."""
    examples = min(examples, math.ceil(corpus.examples / 2))
    return max(at_least, corpus.quantile(1), rounded_up(examples * corpus.mean))


def rounded_up(tokens: float) -> int:
    """Returns a number of tokens up to the next multiple of 64."""
    return math.ceil(tokens / 64) * 64


def _rate(files: BaseModelFiles) -> float:
    parameters = sum(math.prod(info.shape) for info in files.tensors.values())
    return next(rate for most, rate in _RATES if parameters <= most)


def estimate_steps(recipe: Recipe, corpus: CorpusEstimate, repeats: int = 1) -> StepEstimate:
    """Returns how many steps a recipe's training takes; its `training` must say all that `choose_training` chooses.

    Args:
        recipe: The recipe.
        corpus: How many tokens and examples its records are.
        repeats: How many steps see the same examples, one after the other.
    """
    section = recipe.training
    different = _steps_an_epoch(corpus, section.tokens_per_step, section.seed)
    an_epoch, epochs = repeats * different, section.epochs or 1
    steps = section.steps or repeats * _steps_of(epochs, section, corpus)
    return StepEstimate(
        steps,
        an_epoch,
        corpus.examples / different,
        epochs if section.steps is None else steps / an_epoch,
        _epochs_taking(_FEWEST_STEPS / repeats, section, corpus),
    )


def _steps_of(epochs: float, section: TrainingSection, corpus: CorpusEstimate) -> int:
    """Returns how many steps some epochs take, each of which has an order, and so a number, of its own."""
    tokens, seed = section.tokens_per_step, section.seed
    if corpus.sampled or corpus.scale != 1 or not corpus.lengths:
        return steps_of_epochs(epochs, _steps_an_epoch(corpus, tokens, seed))
    return max(1, len(plan_steps(corpus.lengths, seed=seed, tokens_per_step=tokens, epochs=epochs)))


def _epochs_taking(steps: float, section: TrainingSection, corpus: CorpusEstimate) -> int:
    """Returns how many whole epochs take so many steps."""
    epochs = max(1, math.ceil(steps / _steps_an_epoch(corpus, section.tokens_per_step, section.seed)))
    while _steps_of(epochs, section, corpus) < steps:
        epochs += 1
    return epochs


def _steps_an_epoch(corpus: CorpusEstimate, tokens_per_step: int, seed: int) -> int:
    order = shuffled(len(corpus.lengths), seed, 0)
    return max(1, round(len(group_by_tokens(order, corpus.lengths, tokens_per_step)) * corpus.scale))


def describe_chosen(chosen: Mapping[str, Any]) -> str:
    """Returns what was chosen as a line of a recipe.

    Example:
        >>> describe_chosen({"epochs": 3, "learning_rate": 0.0005})
        'training: {epochs: 3, learning_rate: 5e-4}'
    """
    return f"training: {{{', '.join(f'{key}: {_as_written(value)}' for key, value in chosen.items())}}}"


def _as_written(value: float) -> str:
    """Returns a number as a recipe has it: a small one by its digits and a power of ten."""
    if value >= 1:
        return str(value)
    digits, power = f"{value:.2e}".split("e")
    return f"{float(digits):g}e{int(power)}"


def long_warmup(recipe: Recipe, steps: int) -> str:
    """Says of a warm-up that takes all steps that it leaves none at the full rate; "" where it leaves some.

    Args:
        recipe: The recipe as it stands.
        steps: How many steps its training takes, about.
    """
    training = recipe.training
    if steps < 2 or warmup_steps(steps, training.warmup, training.warmup_steps) < steps:
        return ""
    said = f"warmup: {training.warmup:g}" if training.warmup_steps is None else f"warmup_steps: {training.warmup_steps}"
    return f"training.{said}: the rate rises in every one of {steps} steps, and never falls"


def never_falls(recipe: Recipe, steps: int) -> str:
    """Says of a `wsd` whose last step alone is of the fall that the rate never falls; "" where it does.

    Args:
        recipe: The recipe as it stands.
        steps: How many steps its training takes, about.
    """
    training = recipe.training
    warmup = warmup_steps(steps, training.warmup, training.warmup_steps)
    if training.schedule != "wsd" or training.min_lr_ratio == 1 or steps - warmup < 2:
        return ""
    if falling_steps(steps, warmup, training.schedule, training.decay) > 1:
        return ""
    longer = min(1.0, math.ceil(300 / steps) / 100)  # three steps of them
    return (
        f"training.decay: {training.decay:g}: with wsd that is one of {steps} steps, whose rate is still the highest: "
        f"it never falls. Write training: {{decay: {longer:g}}}"
    )


def too_short(recipe: Recipe, steps: StepEstimate) -> str:
    """Says of too few steps to learn from what to write; "" where there are enough.

    Steps that a recipe says are too few below 20; epochs, which say nothing of their steps, where they make fewer
    than 30.

    Args:
        recipe: The recipe as it stands.
        steps: What its training comes to.
    """
    said = recipe.training.steps
    if steps.steps >= (_FEWEST_STEPS if said is None else FEWEST_SAID):
        return ""
    enough = steps.enough_epochs
    if said is not None:
        return (
            f"training.steps: {said} makes about {counted(steps.epochs, 'epoch', form='.2g')}, and fewer than "
            f"{FEWEST_SAID} steps hardly change a model: write training: {{epochs: {max(_EPOCHS, enough)}}}, or leave "
            "steps out"
        )
    return (
        f"training.epochs: {recipe.training.epochs} makes about {counted(steps.steps, 'step')}, and fewer than "
        f"{_FEWEST_STEPS} hardly change a model: write training: {{epochs: {enough}}}, or leave epochs out"
    )
