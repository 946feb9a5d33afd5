"""Evaluates a finished model, as it is loaded to be tried, with what a run evaluates with."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch

from graftkit.corpus.encode import Encoder
from graftkit.corpus.record_shapes import check_learns_from
from graftkit.corpus.tally import Tally
from graftkit.corpus.tokenize import Position, tokenize
from graftkit.corpus.tokenizer_template import chat_template_of
from graftkit.errors import DataError, ModelError
from graftkit.flow.answering.reloaded_head import HeadModel
from graftkit.flow.answering.reloaded_model import ReloadedModel
from graftkit.flow.planning.evaluation import EvaluationPlan
from graftkit.flow.planning.named_fields import check_weighed_labels, listed_labels
from graftkit.flow.planning.vocabulary import carrying
from graftkit.flow.preparation.masking import masking_of
from graftkit.flow.preparation.objective import loss_of
from graftkit.flow.records.chat import chat_options, check_arguments, check_end_of_turn
from graftkit.flow.records.record_encoder import encoder_of, longest_example, template_of
from graftkit.flow.records.told_of_encoding import told_of_encoding, way_to_fit
from graftkit.flow.training.answers import (
    Answer,
    Question,
    answer_all,
    asked,
    checking,
    mean_scores,
    metrics_of,
    questions_in,
)
from graftkit.flow.training.evaluate import measured_of
from graftkit.flow.training.rewards import asked_of, rewards_of, sampling_of
from graftkit.host.host import PluginHost
from graftkit.interfaces.architecture import EMBEDDING_POOLING, token_types
from graftkit.interfaces.objective_config import EmbeddingConfig, SampledConfig
from graftkit.interfaces.samples import Sample
from graftkit.interfaces.tokenizer import Tokenizer
from graftkit.model.packing import Packing, choose_packing, use_packing
from graftkit.recipe.bind import BoundRecipe
from graftkit.report.run_manifest import HeadFacts
from graftkit.store.token_store import TokenStore
from graftkit.training.loop import holdout_loss
from graftkit.training.masking import MaskedStore
from graftkit.training.sampled_loss import Asked
from graftkit.training.step_loss import OnPass, Passes, StepLoss

__all__ = ["Examples", "Prepared", "encoded", "measured_by", "prepared"]


@dataclass(frozen=True, slots=True)
class Prepared:
    """A model that is ready to be evaluated.

    Attributes:
        network: The model; sequences share its passes where that is right.
        tokenizer: Its tokenizer.
        encoder: What encodes records for it.
        bound: The recipe that says by what it is measured.
        packing: Whether sequences share a pass.
        stop: The tokens that end an answer; none where it writes none.
        source: The model's name, for errors.
    """

    network: Any
    tokenizer: Tokenizer
    encoder: Encoder
    bound: BoundRecipe
    packing: Packing
    stop: Sequence[int]
    source: str

    @property
    def notices(self) -> list[str]:
        """What the user should know of it."""
        told = [] if self.packing.packed else [f"sequences run one by one: {self.packing.reason}"]
        if self.bound.objective_config.awaits_records:
            told.append("weights of labels follow from the records of a training: in this loss all labels weigh alike")
        return told


@dataclass(frozen=True, slots=True)
class Examples:
    """Records as a model's tokens.

    Attributes:
        store: The tokens.
        asked: What the model is to answer, as many as are asked for.
        sampled: What each example asks, where answers are sampled and rewarded; else nothing.
        notices: What the user should know of how they were encoded.
    """

    store: TokenStore
    asked: Sequence[Question]
    sampled: Sequence[Question]
    notices: Sequence[str]


def prepared(model: ReloadedModel | HeadModel, planned: EvaluationPlan, host: PluginHost, source: str) -> Prepared:
    """Makes a model ready to be evaluated.

    Args:
        model: The model.
        planned: What it is evaluated on, and by what.
        host: The plugins.
        source: The model's name, for errors.

    Raises:
        RequestError: It can't be measured by the recipe's objective, or that weighs a label which the model does not
            have; or the recipe says of conversations what its chat template does not read.
        ModelError: It is not causal.
    """
    network = model.network
    scored = model.scored if isinstance(model, HeadModel) else HeadFacts(kind="language")
    bound = planned.for_head(host, scored, source)
    said = bound.objective_config
    if isinstance(said, EmbeddingConfig) and said.pooling != "auto":  # as a run of the recipe has it
        setattr(network.config, EMBEDDING_POOLING, said.pooling)
    config = network.config.to_dict()
    check_weighed_labels(bound, scored.labels)
    tokenizer = carrying(template_of(bound), model.tokenizer)
    template = chat_template_of(tokenizer, planned.today, chat_options(bound, model.chat))
    check_arguments(bound, template)
    check_end_of_turn(bound, tokenizer)
    encoder = encoder_of(
        bound,
        tokenizer,
        template,
        longest_example(bound, config),
        network.get_input_embeddings().num_embeddings,
        scored.labels,
        token_types(config),
    )
    weights = sum(tensor.numel() for tensor in (*network.parameters(), *network.buffers()))
    packing = choose_packing(config, source, weights)
    use_packing(network, packing)
    stop = model.stop if isinstance(model, ReloadedModel) else ()
    return Prepared(network, tokenizer, encoder, bound, packing, stop, source)


def encoded(model: Prepared, planned: EvaluationPlan, host: PluginHost, report: Callable[[int, int], None]) -> Examples:
    """Encodes the records for a model.

    Args:
        model: The model.
        planned: The records.
        host: The plugins.
        report: Called with how many are done and how many there are; raises to stop.

    Raises:
        DataError: A record is none that its objective takes, has a label that it does not tell apart, or can't be laid
            out; or none has a token that it is measured by, or a metric can't score answers to one.
    """
    bound, encoder, samples = model.bound, model.encoder, planned.samples
    for sample in samples:
        _check(sample, model)
    answers, tally, position = bound.recipe.evaluation.answers, Tally(), Position()
    chunks: list[TokenStore] = []
    for chunk in tokenize(encoder, samples, position):
        chunks.append(chunk.tokens)
        tally, position = tally.plus(chunk.tally, answers), chunk.position
        report(position.records, len(samples))
    if not tally.examples:
        raise DataError(
            f"not one of {tally.records} records has a token to measure within {encoder.max_length} tokens",
            hint=way_to_fit(encoder, bound.objective_config),
        )
    store = TokenStore.of(tokens[number] for tokens in chunks for number in range(len(tokens)))
    rows = model.network.get_input_embeddings().num_embeddings
    masking = masking_of(bound, "holdout", model.tokenizer, model.source, rows)
    notices = [*told_of_encoding(tally, "records", encoder, bound.objective_config)]
    if len(tally.answers) < answers:
        notices.append(f"evaluation.answers asks for {answers} answers; {len(tally.answers)} records have one")
    questions = asked(encoder, samples, store, tally.answers, tally.answered) if model.stop else []
    if questions:
        check = checking(metrics_of(bound, host), model.tokenizer)
        for question in questions:
            check(question)
    return Examples(
        MaskedStore.over(store, masking) if masking else store,
        questions,
        list(chain.from_iterable(questions_in(encoder, sample) for sample in samples)) if _samples(bound) else [],
        notices,
    )


def _check(sample: Sample, model: Prepared) -> None:
    """Makes sure that a record can be measured.

    Raises:
        DataError: It can't.
    """
    objective, targets = model.bound.objective, model.encoder.rules.targets
    check_learns_from(sample, model.bound.objective_config.learns_from, objective.use)
    unknown = targets.unknown(sample) if targets else None
    if targets and unknown is not None:
        told = f"the label {unknown[:60]!r} is none of the model's: {listed_labels(targets.labels)}"
        raise DataError(told, where=sample.where)


def measured_by(
    model: Prepared, examples: Examples, host: PluginHost, progress: Callable[[str], OnPass]
) -> tuple[dict[str, Any], list[Answer]]:
    """Measures a model.

    Args:
        model: The model.
        examples: What it is measured on.
        host: The plugins.
        progress: Given what is counted, returns what is called with how much is done and how much there is.

    Returns:
        What was measured, as a run's manifest says it, and the answers.

    Raises:
        ModelError: Its loss is no number.
        DataError: A metric can't score a record.
    """
    network, bound = model.network, model.bound
    network.eval()
    score = holdout_loss(
        network,
        examples.store,
        network.device,
        _tokens_of_a_pass(bound, network.device),
        progress("passes"),
        packed=model.packing.packed,
        loss=_loss(model, examples, host),
    )
    if not math.isfinite(score.loss):
        told = f"its loss on these records is {score.loss}"
        raise ModelError(told, where=model.source, hint="Its weights or its config.json are damaged.")
    facts = measured_of(bound.objective_config, score, examples.store, model.tokenizer)
    if not examples.asked:
        return facts, []
    answers = answer_all(
        network,
        examples.asked,
        bound=bound,
        metrics=metrics_of(bound, host),
        tokenizer=model.tokenizer,
        stop=model.stop,
        report=progress("tokens"),
    )
    return facts | {"scores": mean_scores(answers), "answers": len(answers)}, answers


def _samples(bound: BoundRecipe) -> bool:
    return isinstance(bound.objective_config, SampledConfig)


def _loss(model: Prepared, examples: Examples, host: PluginHost) -> Callable[[Passes], StepLoss] | None:
    """Returns what a model is measured by; None for the likelihood."""
    bound = model.bound
    if not _samples(bound):
        return loss_of(bound, host, model.network)
    metrics = rewards_of(bound, host)
    every = [asked_of(metrics, model.tokenizer, question) for question in examples.sampled]

    def ask(store: TokenStore, numbers: Sequence[int]) -> list[Asked]:
        return [every[number] for number in numbers]

    sampling = sampling_of(bound, ask, model.stop, model.encoder.max_length)
    return loss_of(bound, host, model.network, sampling)


def _tokens_of_a_pass(bound: BoundRecipe, device: torch.device) -> int:
    """Returns the tokens of a forward pass: the recipe's, and where that says `auto` as many as serve a device."""
    asked = bound.recipe.training.microbatch_tokens
    if asked != "auto":
        return asked
    return 1024 if device.type == "cpu" else 8192
