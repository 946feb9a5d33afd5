"""Checks a recipe and plans its run, from files alone: before a folder is made, before torch is imported."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from graftkit.flow.folders.adapter_folder import AdapterFolder
from graftkit.flow.planning.continued_adapter import filled_from_folder, told_of_origin
from graftkit.flow.planning.earlier_run import NO_RUN, EarlierRun
from graftkit.flow.planning.head import refuse_with_head, told_of_several
from graftkit.flow.planning.learnt import Encoding, Learnt, plan_encoding, what_is_learnt
from graftkit.flow.planning.likely_targets import likely_forecast, likely_targets
from graftkit.flow.planning.opened_base import OpenedBase, PlannedTokenizer, open_base, plan_tokenizer
from graftkit.flow.planning.plan_notices import (
    told_of_absent,
    told_of_losses,
    told_of_own_code,
    told_of_records,
    told_of_words,
)
from graftkit.flow.planning.plan_teacher import open_teacher
from graftkit.flow.planning.read_records import read_records
from graftkit.flow.planning.run_plan import RunPlan, seen_an_epoch
from graftkit.flow.planning.unsettled import unsettled
from graftkit.flow.planning.vectors import told_of_few_compared, told_of_prompts, told_of_texts
from graftkit.flow.records.chat import chat_options, must_be_passed
from graftkit.flow.records.estimate import CorpusEstimate, estimate_corpus
from graftkit.flow.records.training_numbers import (
    FEWEST_SAID,
    choose_training,
    estimate_steps,
    long_warmup,
    never_falls,
    too_short,
)
from graftkit.host.host import PluginHost
from graftkit.recipe.bind import BoundRecipe, bind
from graftkit.recipe.document import KeyPath
from graftkit.recipe.load import LoadedRecipe
from graftkit.recipe.without_effect import without_effect

__all__ = ["make_plan"]


def make_plan(
    loaded: LoadedRecipe,
    host: PluginHost,
    earlier: EarlierRun = NO_RUN,
    *,
    before_records: Callable[[], None] = lambda: None,
    unused: Collection[KeyPath] = (),
) -> RunPlan:
    """Checks a recipe and plans its run.

    Each step takes what the steps before it found, and refuses what does not hold; records, which take longest to read,
    come after all that needs none of them.

    Args:
        loaded: The recipe.
        host: The plugins.
        earlier: What the run that goes on has settled.
        before_records: Called once recipe, model and tokenizer hold, before records are read; it may refuse, too.
        unused: As for `bind`.

    Raises:
        RequestError: Something in it is wrong; see `graftkit.errors` for the kinds.
    """
    loaded, origin = filled_from_folder(loaded, host, earlier.adapter_copy)
    bound = bind(loaded, host, unused=unused)
    refuse_with_head(bound, origin)
    base = open_base(bound, host, origin)
    targets = likely_targets(bound, base.files)
    tokenizer = plan_tokenizer(bound, host, base, origin)
    before_records()
    records = read_records(bound, host, earlier.revisions)
    learnt = what_is_learnt(bound, records, base, tokenizer, origin)
    encoding = plan_encoding(learnt, tokenizer, earlier.day)
    teacher = open_teacher(learnt.bound, host, tokenizer.known, encoding.rows, encoding.length, tokenizer.request)
    differences = encoding.differences(learnt)
    numbers = _with_numbers(learnt, encoding, earlier.chosen)
    notices = [*_told(base, origin, tokenizer, learnt, encoding, differences, numbers), *host.notices]
    wholes = bool(bound.recipe.adapter.modules_to_save or (origin and origin.saved))
    planned = RunPlan(
        bound=numbers.bound,
        source=base.source,
        files=learnt.files,
        backend=tokenizer.backend_of_base,
        tokenizer=tokenizer.of_base,
        vocabulary=tokenizer.request,
        today=encoding.today,
        encoder=encoding.encoder,
        targets=targets,
        samples=records.samples,
        datasets=records.datasets,
        shares=records.shares,
        notices=notices,
        forecast=likely_forecast(numbers.bound, learnt.files, targets, wholes=wholes),
        chosen=numbers.chosen,
        corpus=numbers.corpus,
        origin=origin,
        head=learnt.head,
        teacher=teacher,
    )
    asked = unsettled(planned.bound.recipe)
    return planned.with_settled({key: found for key, found in earlier.settled.items() if key in asked})


@dataclass(frozen=True, slots=True)
class _Numbers:
    """The numbers of a training.

    Attributes:
        bound: The recipe, with those that it leaves out.
        chosen: Those.
        corpus: What a sample of the records says of all of them; None where no number needs it.
    """

    bound: BoundRecipe
    chosen: Mapping[str, Any]
    corpus: CorpusEstimate | None


def _with_numbers(learnt: Learnt, encoding: Encoding, earlier: Mapping[str, Any]) -> _Numbers:
    """Chooses the numbers of a training that the recipe leaves out.

    Where it leaves out none, records are looked at only for steps that may be too few.
    """
    bound, recipe = learnt.bound, learnt.bound.recipe
    said = recipe.training.model_fields_set
    if (recipe.training.steps or 0) >= FEWEST_SAID and {"tokens_per_step", "learning_rate"} <= said:
        return _Numbers(bound, {}, None)
    corpus = _estimate(learnt, encoding)
    config = bound.objective_config
    rate_scale = bound.adapter.config.rate_scale * config.rate_scale
    chosen = choose_training(recipe, corpus, learnt.files, rate_scale, config.examples_per_step, config.repeats)
    chosen |= {key: value for key, value in earlier.items() if key in chosen}
    return _Numbers(bound.with_values({f"training.{key}": value for key, value in chosen.items()}), chosen, corpus)


def _estimate(learnt: Learnt, encoding: Encoding) -> CorpusEstimate:
    return estimate_corpus(encoding.encoder, learnt.records.samples.train, seen_an_epoch(learnt.records.shares))


def _told(
    base: OpenedBase,
    origin: AdapterFolder | None,
    tokenizer: PlannedTokenizer,
    learnt: Learnt,
    encoding: Encoding,
    differences: Sequence[str],
    numbers: _Numbers,
) -> list[str]:
    """Returns what the user should know of the recipe and of all that it names."""
    bound, records, vocabulary = numbers.bound, learnt.records, tokenizer.request
    samples = records.samples
    trains_rows = bool(vocabulary and (vocabulary.section or vocabulary.change))
    laid_out_by = encoding.template if learnt.chats else None
    corpus = numbers.corpus
    estimated = estimate_steps(bound.recipe, corpus, bound.objective_config.repeats) if corpus else None
    steps = bound.recipe.training.steps or (estimated.steps if estimated else 0)
    files, of_base, beside, brought = learnt.files, tokenizer.of_base, tokenizer.beside, tokenizer.brought
    return [
        *bound.document.notices,
        *without_effect(
            bound, samples.train.counts().keys() | samples.holdout.counts().keys(), trains_rows=trains_rows
        ),
        *told_of_own_code(base.own.config),
        *told_of_absent(bound),
        *told_of_prompts(bound, base.own),
        *told_of_texts(bound, base.own, tokenizer.known, encoding.length),
        *told_of_words(bound, tokenizer.known),
        *(told_of_origin(origin, bound, files, of_base, beside, brought) if origin else []),
        *told_of_several(bound, base.own.config, origin),
        *encoding.joined,
        *told_of_records(bound, records, learnt.labels, differences),
        *([told] if bound.exports and (told := must_be_passed(chat_options(bound), laid_out_by)) else []),
        *([told] if estimated and (told := too_short(bound.recipe, estimated)) else []),
        *told_of_few_compared(bound, lambda: corpus or _estimate(learnt, encoding)),
        *([told] if steps and (told := long_warmup(bound.recipe, steps)) else []),
        *([told] if steps and (told := never_falls(bound.recipe, steps)) else []),
        *tokenizer.rowless,
        *told_of_losses(tokenizer.known, vocabulary, extends=bound.objective_config.head == "language"),
    ]
