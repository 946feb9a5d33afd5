"""Looks at a model and at records, and chooses the numbers of a recipe that trains on them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from graftkit.corpus.dataset import Dataset
from graftkit.corpus.encode import Encoder, chat_template_of
from graftkit.corpus.sample_files import scan_samples
from graftkit.flow.datasets import open_path
from graftkit.flow.estimate import choose_training, estimate_corpus, estimate_steps
from graftkit.flow.open_model import load_tokenizer, open_model
from graftkit.host.host import PluginHost
from graftkit.model.context import context_length
from graftkit.recipe.schema import Recipe

__all__ = ["StartingPoint", "find_starting_point"]


@dataclass(frozen=True, slots=True)
class StartingPoint:
    """What a recipe says to begin with.

    Attributes:
        datasets: The files, with their readers and formats.
        records: How many records they hold.
        max_length: Tokens of an example at most: 99 of 100 fit.
        tokens_per_step: Tokens of an optimizer step: about eight examples.
        epochs: How often every record is seen: three times, or as often as thirty steps take.
        learning_rate: The highest rate of a low-rank adapter for a model of this size.
        steps: How many steps that makes, about.
        left_out: What the model's chat template leaves out of some conversations.
        trouble: Why the records can't be laid out for this model; "" where they can.
    """

    datasets: Sequence[Dataset]
    records: int
    max_length: int
    tokens_per_step: int
    epochs: int
    learning_rate: float
    steps: int
    left_out: Sequence[str]
    trouble: str


def find_starting_point(host: PluginHost, model: str, train: str) -> StartingPoint:
    """Reads the records and the model's headers, and encodes some of the records.

    Args:
        host: The plugins.
        model: A reference to the base model.
        train: A file of records, a folder or a pattern.

    Raises:
        DataError: The records can't be read.
        ModelError: The model's files can't be used.
        ProviderError: No model source knows the reference.
    """
    datasets = open_path(host, train)
    samples = scan_samples(datasets)
    _, files = open_model(host, model)
    tokenizer = load_tokenizer(files, host.registry.create(host.registry.resolve("tokenizer", files.tokenizer_backend)))
    context = context_length(files.config) or 1 << 17
    encoder = Encoder(tokenizer, chat_template_of(tokenizer), context, report_dropped=True)
    corpus = estimate_corpus(encoder, samples)
    longest = min(context, max(64, math.ceil(corpus.quantile(0.99) / 64) * 64))
    recipe = Recipe.model_validate({"model": model, "data": {"train": train, "max_length": longest}})
    corpus = replace(corpus, lengths=[min(length, longest) for length in corpus.lengths])
    chosen = recipe.training.model_copy(update=choose_training(recipe, corpus, files))
    steps = estimate_steps(recipe.model_copy(update={"training": chosen}), corpus).steps
    return StartingPoint(
        datasets,
        len(samples),
        longest,
        chosen.tokens_per_step,
        chosen.epochs or 1,
        chosen.learning_rate,
        steps,
        corpus.left_out,
        corpus.trouble,
    )
