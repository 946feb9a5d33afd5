"""Looks at a model and at records, and chooses the numbers of a recipe that trains on them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

from graftkit.corpus.dataset import Dataset
from graftkit.corpus.encode import Encoder, chat_template_of
from graftkit.corpus.sample_files import Samples, scan_samples
from graftkit.errors import DataError
from graftkit.flow.datasets import open_path
from graftkit.flow.open_model import load_tokenizer, open_model
from graftkit.host.host import PluginHost
from graftkit.interfaces.model_source import BaseModelFiles
from graftkit.model.context import context_length

__all__ = ["StartingPoint", "find_starting_point"]

_LOOKED_AT = 400
_MOST_TOKENS = 1_000_000
"""Of long records fewer are looked at: encoding them all takes minutes."""

_EPOCHS = 3
_EXAMPLES_A_STEP = 8
_FEWEST_STEPS = 30
_MOST_EPOCHS = 20
_RATES = ((2e8, 1e-3), (2e9, 5e-4), (math.inf, 2e-4))
"""The learning rate of a low-rank adapter, by the model's number of parameters up to which it is used."""


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
    lengths, left_out, trouble = _lengths(encoder, samples)
    longest = min(context, max(64, _rounded_up(lengths[len(lengths) * 99 // 100], 64)))
    mean = sum(min(length, longest) for length in lengths) / len(lengths)
    per_step = max(longest, _rounded_up(_EXAMPLES_A_STEP * mean, 64))
    steps_an_epoch = max(1, math.ceil(len(samples) * mean / per_step))
    epochs = min(_MOST_EPOCHS, max(_EPOCHS, math.ceil(_FEWEST_STEPS / steps_an_epoch)))
    return StartingPoint(
        datasets, len(samples), longest, per_step, epochs, _rate(files), epochs * steps_an_epoch, left_out, trouble
    )


def _lengths(encoder: Encoder, samples: Samples) -> tuple[list[int], list[str], str]:
    """Returns the lengths of some examples in tokens, what is left out of them, and why one can't be made."""
    step = max(1, len(samples) // _LOOKED_AT)
    lengths: list[int] = []
    left_out: set[str] = set()
    trouble = ""
    for sample in islice(samples, 0, step * _LOOKED_AT, step):
        try:
            encoded = encoder.encode(sample)
        except DataError as error:
            trouble = trouble or str(error)
            continue
        lengths += [len(example.ids) for example in encoded.examples]
        left_out |= encoded.left_out
        if sum(lengths) > _MOST_TOKENS:
            break
    return sorted(lengths) or [1024], sorted(left_out), trouble


def _rounded_up(number: float, unit: int) -> int:
    return math.ceil(number / unit) * unit


def _rate(files: BaseModelFiles) -> float:
    parameters = sum(math.prod(info.shape) for info in files.tensors.values())
    return next(rate for most, rate in _RATES if parameters <= most)
