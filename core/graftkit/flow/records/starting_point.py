"""Looks at a model and at records, and chooses the numbers of a recipe that trains on them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.resources import files as package_files
from typing import Literal

from graftkit.corpus.dataset import Dataset
from graftkit.corpus.encode import Encoder
from graftkit.corpus.encoding_rules import EncodingRules
from graftkit.corpus.record_shapes import SHAPES, check_learns_from, shape_of
from graftkit.corpus.sample_files import Samples, scan_samples
from graftkit.corpus.text_targets import TextTargets, is_pair, labels_in
from graftkit.corpus.tokenizer_template import chat_template_of
from graftkit.errors import DataError, RecipeError, UnknownFormatError
from graftkit.flow.base_files.open_model import load_tokenizer, open_model
from graftkit.flow.base_files.own_head import check_head, mask_token
from graftkit.flow.records.datasets import look_at_path, open_path, read_for
from graftkit.flow.records.estimate import CorpusEstimate, estimate_corpus
from graftkit.flow.records.format_guess import Guess
from graftkit.flow.records.scored_texts import scored_texts
from graftkit.flow.records.training_numbers import choose_training, estimate_steps, rounded_up
from graftkit.host.host import PluginHost
from graftkit.interfaces.architecture import Head, head_of
from graftkit.interfaces.bounded_json import parse_json
from graftkit.interfaces.chat_options import ChatOptions
from graftkit.interfaces.model_source import PLAIN, SentenceModules
from graftkit.interfaces.objective_config import AnyObjectiveConfig, ObjectiveConfig, RetrievalConfig, SampledConfig
from graftkit.interfaces.samples import (
    Completion,
    Conversation,
    LabelledAnswer,
    LongText,
    PreferencePair,
    Sample,
    ScoredText,
    SimilarTexts,
    Text,
)
from graftkit.interfaces.tokenizer import Tokenizer
from graftkit.model.context import context_length
from graftkit.recipe.paths import is_hub_dataset
from graftkit.recipe.schema.data import DataSection
from graftkit.recipe.schema.recipe import Recipe

__all__ = ["StartingPoint", "find_starting_point", "numbers_beside_texts"]

_OWN_TEMPLATE = "chatml.jinja"
"""graftkit's own chat template: ChatML with reasoning, functions, calls and their results."""

_CALLS = frozenset({"tool calls", "tools"})
"""What an assistant that calls functions learns from; a template that leaves it out leaves out the answer."""

_MOST_LABELS, _TIMES_SEEN, _LABEL_LENGTH = 100, 4, 60
"""How many labels there are at most where they name classes, how often each is seen at least, in the mean, and how many
characters it has at most. Texts with an answer each have about as many answers as records."""

_LOOKED_AT = 10_000
"""How many records are checked at most: what is chosen does not change with more, and a run checks all."""

_ENOUGH_HELD_OUT = 20
_MOST_HELD_OUT = 0.2
"""Of few records so many are held out, but no larger a share."""

_TURN_TOKENS = frozenset({"<|im_start|>", "<|im_end|>"})


@dataclass(frozen=True, slots=True)
class StartingPoint:
    """What a recipe says to begin with.

    Attributes:
        datasets: The files, with their readers and formats.
        records: How many records they hold.
        checked: How many of them were checked, evenly spread.
        holdout: The share of them that is held out: a twentieth, or as much as makes twenty, up to a fifth.
        max_length: Tokens of an example at most: 99 of 100 fit.
        tokens_per_step: Tokens of an optimizer step: about eight examples.
        epochs: How often every record is seen: three times, or as often as thirty steps take.
        objective: What suits the records: sft; dpo for pairs, kto for answers that are wanted or not, classification
            for texts with one of a few labels, multi-label-classification where they have any number of them,
            regression for texts with a number, token-classification for words with tags, embedding for texts that are
            to be found by others, masked-lm for texts alone where the model fills in masked tokens, similarity for
            pairs of texts with a number where the model is one of sentence-transformers'.
        quantizer: How frozen weights are stored: as they lie where the file holds them quantized, else in NF4.
        learning_rate: The highest rate of a low-rank adapter for a model of this size.
        steps: How many steps that makes, about.
        new_tokens: Tokens of a sampled answer at most, where the objective learns from such; else None.
        metric: What those are rewarded by, to begin with; "" where none is sampled.
        pairs: Whether the records are pairs of texts with a number.
        left_out: What the chat template leaves out of some conversations.
        template: graftkit's own chat template, where the model's is missing or leaves out what an assistant calls, and
            the model has the tokens of this one; else None.
        instead_of: What the model's own template leaves out then; empty where it has none.
        turns: "each" where the template leaves out the reasoning of earlier answers, which are learnt with it so; else
            "all".
        trouble: Why the records can't be laid out for this model; "" where they can.
        writes_answers: Whether a model that learns so writes answers.
    """

    datasets: Sequence[Dataset]
    records: int
    checked: int
    holdout: float
    max_length: int
    tokens_per_step: int
    epochs: int
    objective: str
    quantizer: str
    learning_rate: float
    steps: int
    left_out: Sequence[str]
    template: str | None
    instead_of: Sequence[str]
    turns: Literal["all", "each"]
    trouble: str
    new_tokens: int | None = None
    metric: str = ""
    pairs: bool = False
    writes_answers: bool = True


def find_starting_point(
    host: PluginHost, model: str, train: str, said: Guess | None = None, objective: str | None = None
) -> StartingPoint:
    """Reads the records, of many of them some, and the model's headers, and encodes some of the records.

    Args:
        host: The plugins.
        model: A reference to the base model.
        train: A file of records, a folder or a pattern.
        said: What else an entry of a recipe's `data.train` says of them; see `open_path`.
        objective: What is to be learnt; what suits the records when left out.

    Raises:
        UnknownFormatError: No format fits the records as they are.
        DataError: The records can't be read, or the objective does not learn from such.
        ModelError: The model's files can't be used, or the objective does not train such a model.
        ProviderError: No model source knows the reference, or no plugin offers the objective.
        RecipeError: The objective has fields that can't be told from records and model.
    """
    asked = _asked_for(host, objective) if objective else ObjectiveConfig
    datasets = read_for(asked.learns_from, open_path(host, train, said))

    def fits(sample: Sample) -> None:
        if objective:
            check_learns_from(sample, asked.learns_from, objective)

    samples = scan_samples(datasets, fits=fits, most=_LOOKED_AT)
    if not samples:
        raise DataError(
            "all records are left out (empty: skip): there is nothing to learn from", where=str(datasets[0].source)
        )
    records = len(samples.kept)
    _, files = open_model(host, model)
    tokenizer = load_tokenizer(files, host.registry.create(host.registry.resolve("tokenizer", files.tokenizer_backend)))
    context = context_length(files.config) or 1 << 17
    by_vectors = isinstance(files, SentenceModules) and bool(files.sentence_modules)
    targets = _targets_of(samples, vectors=asked.learns_from == "scored_pairs" if objective else by_vectors)
    own = head_of(files.config)
    suited = SHAPES[targets.kind].objective if targets else _objective_for(next(iter(samples)), own)
    if objective not in (None, suited):
        targets = None
    objective = objective or suited
    corpus, template, instead_of = _laid_out(tokenizer, samples, context, targets)
    by_answer = None if targets else _laid_out_by_answer(tokenizer, template, samples, context, corpus)
    corpus = by_answer or corpus
    holdout = _holdout_share(records)
    corpus = replace(corpus, scale=corpus.scale * (1 - holdout) * records / len(samples))
    new_tokens = _new_tokens(corpus) if issubclass(asked, SampledConfig) else None
    tokens = corpus.longest_quantile(0.99) if new_tokens is None else corpus.prompt_quantile(0.99) + new_tokens
    longest = min(context, max(64, rounded_up(tokens)))
    recipe = Recipe.model_validate({"model": model, "data": {"train": train, "max_length": longest}})
    kept = [min(longest / most, 1.0) for most in corpus.longest]
    corpus = replace(corpus, lengths=[round(n * share) for n, share in zip(corpus.lengths, kept, strict=True)])
    learnt = host.registry.config_class(host.registry.resolve("objective", objective))
    assert issubclass(learnt, AnyObjectiveConfig)  # or the registry had refused it
    check_head(files.config, learnt.head, objective, model)
    if learnt.head == "masked":
        mask_token(tokenizer, model)
    fitting = choose_training(recipe, corpus, files, learnt.rate_scale, learnt.examples_per_step)
    chosen = recipe.training.model_copy(update=fitting)
    steps = estimate_steps(recipe.model_copy(update={"training": chosen}), corpus).steps
    return StartingPoint(
        datasets,
        records,
        len(samples),
        holdout,
        longest,
        chosen.tokens_per_step,
        int(chosen.epochs or 1),
        objective,
        "stored" if any(info.dtype not in PLAIN for info in files.tensors.values()) else "nf4",
        chosen.learning_rate,
        steps,
        corpus.left_out,
        template,
        instead_of,
        "each" if by_answer else "all",
        corpus.trouble,
        new_tokens,
        _metric_for(samples) if new_tokens is not None else "",
        _are_scored_pairs(samples),
        learnt.head == "language",
    )


def _holdout_share(records: int) -> float:
    """Returns which share of so many records is held out, of two digits: what few are measured by says little."""
    usual: float = DataSection.model_fields["holdout"].default
    return max(usual, min(_MOST_HELD_OUT, math.ceil(100 * _ENOUGH_HELD_OUT / records) / 100))


def _asked_for(host: PluginHost, objective: str) -> type[AnyObjectiveConfig]:
    """Returns the fields of an objective that somebody asks for.

    Raises:
        ProviderError: No plugin offers it.
        RecipeError: It has fields that can't be told from records and model.
    """
    found = host.registry.config_class(host.registry.resolve("objective", objective))
    assert issubclass(found, AnyObjectiveConfig)  # or the registry had refused it
    missing = next((name for name, facts in found.model_fields.items() if facts.is_required()), None)
    if missing is not None:
        raise RecipeError(
            f"the objective {objective} needs its field {missing}, which neither model nor records say",
            hint=f"Write a recipe without --objective, and say there: objective: {{use: {objective}, {missing}: ...}}.",
        )
    return found


def _new_tokens(corpus: CorpusEstimate) -> int:
    """Returns how many tokens a sampled answer has at most: as usual, or as 99 of 100 records' own answers have."""
    usual: int = SampledConfig.model_fields["max_new_tokens"].default
    return max(usual, rounded_up(corpus.learnt_quantile(0.99)))


def _metric_for(samples: Samples) -> str:
    """Returns what sampled answers are compared by with the records' own, or one that needs none of these."""
    answers = [_answer_in(sample) for sample in samples]
    if not all(answers):
        return "json-valid"
    return "json-equal" if all(map(_is_json, answers)) else "exact-match"


def _answer_in(sample: Sample) -> str:
    """Returns what a record answers last; "" where that is nothing."""
    if isinstance(sample, Completion):
        return sample.completion
    said = sample.messages[-1] if isinstance(sample, Conversation) else None
    return said.content if said and said.role == "assistant" else ""


def _is_json(text: str) -> bool:
    try:
        return isinstance(parse_json(text), dict | list)
    except ValueError:
        return False


def numbers_beside_texts(host: PluginHost, train: str, said: Guess) -> Guess | None:
    """Returns what reads records as texts with a number each, where that is what they are but nothing says so.

    Args:
        host: The plugins.
        train: A file of records, a folder or a pattern.
        said: What is said of them.

    Raises:
        DataError: As for `find_starting_point`.
    """
    if is_hub_dataset(train) or {"format", "reader", "columns"} & said.keys():
        return None
    guess = scored_texts(look_at_path(host, train))
    if guess is None:
        return None
    try:
        as_they_are = {dataset.format_name for dataset in open_path(host, train, said)}
    except UnknownFormatError:
        return guess
    return guess if as_they_are == {"text"} else None


def _objective_for(sample: Sample, own: Head) -> str:
    match sample:
        case Text() | LongText() if type(sample) in (Text, LongText) and own == "masked":
            return "masked-lm"
        case PreferencePair():
            return "dpo"
        case LabelledAnswer():
            return "kto"
    return "sft"


def _are_scored_pairs(samples: Samples) -> bool:
    return all(isinstance(sample, ScoredText) and is_pair(sample) for sample in samples)


def _targets_of(samples: Samples, *, vectors: bool) -> TextTargets | None:
    """Returns what is learnt of texts: their words' tags, two at least, their numbers, or labels that name classes.

    Those are two at least, or one that a text may lack, short, and seen several times in the mean.

    Args:
        samples: The records.
        vectors: Whether vectors are learnt of pairs with a number, as a model learns that gives texts such.
    """
    if isinstance(next(iter(samples)), SimilarTexts):
        return TextTargets("similar", negatives=RetrievalConfig.model_fields["negatives"].default)
    if vectors and _are_scored_pairs(samples):
        return TextTargets("scored_pairs")
    shape = shape_of(next(iter(samples)))
    if not shape.measured:
        return None
    if shape.kind == "tags":
        tags = {tag for sample in samples for tag in labels_in(sample)}
        alike = all(type(sample) in shape.samples for sample in samples)
        return TextTargets("tags", sorted(tags)) if alike and len(tags) > 1 else None
    most, found = min(_MOST_LABELS, len(samples) // _TIMES_SEEN), set[str]()
    for sample in samples:
        labels = labels_in(sample)
        found.update(labels)
        named = all(0 < len(label) <= _LABEL_LENGTH for label in labels)
        if type(sample) not in shape.samples or not named or len(found) > most:
            return None
    if shape.kind != "scores" and len(found) < (1 if shape.several else 2):
        return None
    return TextTargets(shape.kind, sorted(found))


def _laid_out(
    tokenizer: Tokenizer, samples: Samples, context: int, targets: TextTargets | None
) -> tuple[CorpusEstimate, str | None, Sequence[str]]:
    """Lays some of the records out; with graftkit's own chat template where the model's can't.

    What learns something of texts as wholes sees them alone.
    """
    if targets:
        encoder = Encoder(tokenizer, chat_template_of(tokenizer), context, rules=EncodingRules(targets=targets))
        return estimate_corpus(encoder, samples), None, ()
    encoder = Encoder(tokenizer, chat_template_of(tokenizer), context, rules=EncodingRules(report_dropped=True))
    corpus = estimate_corpus(encoder, samples)
    lacks = _CALLS & {*corpus.left_out} or not encoder.has_template
    if "chat" not in samples.counts() or not lacks or not tokenizer.special_tokens.keys() >= _TURN_TOKENS:
        return corpus, None, ()
    template = (package_files("graftkit.corpus") / _OWN_TEMPLATE).read_text(encoding="utf-8")
    other = tokenizer.with_chat_template(template)
    found = estimate_corpus(encoder.for_tokenizer(other, chat_template_of(other)), samples)
    if found.trouble or _CALLS & {*found.left_out}:
        return corpus, None, ()
    return found, template, corpus.left_out


def _laid_out_by_answer(
    tokenizer: Tokenizer, template: str | None, samples: Samples, context: int, corpus: CorpusEstimate
) -> CorpusEstimate | None:
    """Lays some of the records out answer by answer, where that keeps reasoning that is left out of conversations.

    Args:
        tokenizer: The model's tokenizer.
        template: graftkit's own chat template, where it takes the place of the model's.
        samples: The records.
        context: The tokens of an example at most.
        corpus: What laying out whole conversations came to.

    Returns:
        What it comes to; None where nothing is gained.
    """
    if "reasoning" not in corpus.left_out:
        return None
    used = tokenizer if template is None else tokenizer.with_chat_template(template)
    each = chat_template_of(used, options=ChatOptions(turns="each"))
    found = estimate_corpus(Encoder(used, each, context, rules=EncodingRules(report_dropped=True)), samples)
    return None if found.trouble or "reasoning" in found.left_out else found
