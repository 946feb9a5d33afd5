"""How many tokens records have, from a sample of them; and the numbers of a training that fit them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from graftkit.articles import counted
from graftkit.corpus.answers_compared import labelled_in, with_mismatched
from graftkit.corpus.encode import Encoded, Encoder
from graftkit.corpus.sample_files import Samples
from graftkit.errors import DataError
from graftkit.interfaces.model_source import BaseModelFiles
from graftkit.interfaces.objective_config import AnyObjectiveConfig
from graftkit.interfaces.samples import (
    LongText,
    Sample,
    ScoredText,
    TaggedText,
    Text,
    TextWithLabels,
    join_pair,
)
from graftkit.recipe.schema.recipe import Recipe
from graftkit.recipe.schema.training import TrainingSection
from graftkit.training.order import group_by_tokens, plan_steps, shuffled, steps_of_epochs
from graftkit.training.schedule import falling_steps, warmup_steps

__all__ = [
    "FEWEST_SAID",
    "CorpusEstimate",
    "StepEstimate",
    "choose_training",
    "describe_chosen",
    "estimate_corpus",
    "estimate_steps",
    "long_warmup",
    "never_falls",
    "rounded_up",
    "too_short",
]

_LOOKED_AT = (50, 400)
"""How many records are looked at: the second number where the first ones are short."""

_SHORT = 60_000
"""Tokens that the first records have together at most where more are looked at."""

_MOST_TOKENS = 1_000_000
"""Of long records fewer are looked at: encoding them all takes minutes."""

_MOST_TEXT = 50_000
"""Characters of one text that are encoded; the rest counts as its beginning does."""

_EPOCHS = 3
_FEWEST_STEPS = 30
FEWEST_SAID = 20
"""Steps below which a recipe that says them is told that they are few: 28, at a high rate, have taught an API."""
_RATES = ((2e8, 1e-3), (2e9, 5e-4), (math.inf, 2e-4))
"""The learning rate of a low-rank adapter, by the model's number of parameters up to which it is used."""
_RATE_SCALES = {"lion": 0.2}
"""What an optimizer's rate is, times AdamW's, where it is another: Lion's paper has a third to a tenth."""


@dataclass(frozen=True, slots=True)
class CorpusEstimate:
    """What a sample of the records says of all of them.

    Attributes:
        records: How many there are.
        lengths: The tokens of each example of the sample, in the records' order.
        longest: The tokens of the longest sequence of each: of a pair the longer answer with its prompt.
        scale: How many examples of an epoch each of them stands for.
        sampled: Whether records were left out; where none was, the numbers are exact.
        left_out: What the chat template leaves out of some of the sample.
        trouble: Why a record of the sample can't be encoded; "" where all can.
        learnt: How many of its tokens are in the loss, of each example of the sample.
        prompts: Tokens of its prompt, of each example of the sample.
    """

    records: int
    lengths: Sequence[int]
    longest: Sequence[int]
    scale: float
    sampled: bool
    left_out: Sequence[str] = ()
    trouble: str = ""
    learnt: Sequence[int] = ()
    prompts: Sequence[int] = ()

    @property
    def examples(self) -> int:
        """How many examples an epoch has."""
        return round(len(self.lengths) * self.scale)

    @property
    def tokens(self) -> int:
        """How many tokens they have together."""
        return round(sum(self.lengths) * self.scale)

    @property
    def mean(self) -> float:
        """The mean tokens of an example; 1024 where the sample has none."""
        return sum(self.lengths) / len(self.lengths) if self.lengths else 1024.0

    def quantile(self, share: float) -> int:
        """Returns how many tokens a share of the examples has at most; 1024 where the sample has none."""
        return _quantile(self.lengths, share)

    def longest_quantile(self, share: float) -> int:
        """Returns how many tokens the sequences of a share of the examples have at most; 1024 where there are none."""
        return _quantile(self.longest, share)

    def prompt_quantile(self, share: float) -> int:
        """Returns how many tokens the prompts of a share of the examples have at most, likewise."""
        return _quantile(self.prompts, share)

    def learnt_quantile(self, share: float) -> int:
        """Returns how many tokens a share of the examples has in the loss at most, likewise."""
        return _quantile(self.learnt, share)


def _quantile(lengths: Sequence[int], share: float) -> int:
    return sorted(lengths)[int((len(lengths) - 1) * share)] if lengths else 1024


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


def estimate_corpus(encoder: Encoder, samples: Samples, seen: float = 1.0) -> CorpusEstimate:
    """Encodes some of the records, evenly spread; which ones depends on their number alone.

    Args:
        encoder: Makes tokens of them.
        samples: The records to learn from.
        seen: How often an epoch sees a record, in the mean of all.
    """
    found = _estimate(encoder, samples, _LOOKED_AT[0])
    if found.sampled and sum(found.lengths) < _SHORT:
        found = _estimate(encoder, samples, _LOOKED_AT[1])
    return replace(found, scale=found.scale * seen)


def _estimate(encoder: Encoder, samples: Samples, wanted: int) -> CorpusEstimate:
    mask = np.zeros_like(samples.kept)
    stride = math.ceil(len(samples) / wanted) or 1
    mask[np.flatnonzero(samples.kept)[::stride]] = True
    lengths: list[int] = []
    longest: list[int] = []
    learnt: list[int] = []
    prompts: list[int] = []
    left_out: set[str] = set()
    looked_at, weight, trouble = 0, 0.0, ""
    for sample in samples.only(mask):
        shortened, scale = _beginning(sample)
        try:
            encoded: Encoded = encoder.encode(shortened)
        except DataError as error:
            trouble = trouble or str(error)
            continue
        looked_at += 1
        weight += scale * len(encoded.examples)
        lengths += [len(example.ids) for example in encoded.examples]
        longest += [max(len(sequence.ids) for sequence in example.sequences) for example in encoded.examples]
        learnt += [int(np.count_nonzero(example.loss_weight)) for example in encoded.examples]
        prompts += [example.prompt_length for example in encoded.examples]
        left_out |= encoded.left_out
        if sum(lengths) > _MOST_TOKENS:
            break
    stands_for = len(samples) / looked_at * weight / len(lengths) if lengths else 1.0
    sampled = looked_at < len(samples) or weight > len(lengths)
    return CorpusEstimate(
        len(samples), lengths, longest, stands_for, sampled, sorted(left_out), trouble, learnt, prompts
    )


def _beginning(sample: Sample) -> tuple[Sample, float]:
    """Returns a record, or the beginning of a long text, and how many times as long the record is.

    The answer of another record that a labelled one is given is taken to be as long as its own.
    """
    if labelled_in(sample):
        return next(with_mismatched(iter([sample]), sample)), 1.0
    if isinstance(sample, LongText):
        with sample.source.open() as file:
            head = file.read(_MOST_TEXT)
            size = len(head)
            while block := file.read(1 << 20):
                size += len(block)
        return Text(head.decode("utf-8-sig", errors="ignore"), sample.where), size / max(1, len(head))
    if isinstance(sample, TextWithLabels | ScoredText) and sample.pair and len(sample.text) > _MOST_TEXT:
        first, second = (text[: _MOST_TEXT // 2] for text in sample.pair)
        short = replace(sample, text=join_pair(first, second), pair=(first, second))
        return short, len(sample.text) / len(short.text)
    if isinstance(sample, TaggedText) and len(sample.text) > _MOST_TEXT:
        count = max(1, sum(end <= _MOST_TEXT for _, end in sample.places))
        text = sample.text[: sample.places[count - 1][1]]
        cut = replace(sample, text=text, places=sample.places[:count], tags=sample.tags[:count])
        return cut, len(sample.text) / len(text)
    if isinstance(sample, Text) and len(sample.text) > _MOST_TEXT:
        return replace(sample, text=sample.text[:_MOST_TEXT]), len(sample.text) / _MOST_TEXT
    return sample, 1.0


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
    told = (f"{key}: {f'{value:.0e}'.replace('e-0', 'e-') if value < 1 else value}" for key, value in chosen.items())
    return f"training: {{{', '.join(told)}}}"


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
