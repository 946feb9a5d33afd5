"""Checks a recipe and plans its run, from files alone: before a folder is made, before torch is imported."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from graftkit.corpus.encode import Encoder
from graftkit.corpus.split import Split
from graftkit.corpus.tokenizer_template import chat_template_of
from graftkit.errors import TargetError
from graftkit.flow.base_files.open_model import check_fits, embedding_rows, load_tokenizer, open_model
from graftkit.flow.base_files.own_head import mask_token
from graftkit.flow.planning.continued_adapter import (
    filled_from_folder,
    folder_vocabulary,
    other_tokenizer,
    told_of_origin,
)
from graftkit.flow.planning.head import (
    head_facts,
    labels_in_order,
    refuse_with_head,
    told_of_pairs,
    told_of_several,
    with_facts,
    with_objective_of,
    with_run_head,
)
from graftkit.flow.planning.plan_notices import told_of_losses, told_of_own_code, told_of_records
from graftkit.flow.planning.plan_teacher import open_teacher
from graftkit.flow.planning.read_records import read_records
from graftkit.flow.planning.run_plan import RunPlan, chats, seen_an_epoch
from graftkit.flow.planning.sampled import refuse_sampled, refuse_unanswered
from graftkit.flow.planning.saved_tokenizer import check_saved
from graftkit.flow.planning.targets import certain_targets, chosen_targets, forecast
from graftkit.flow.planning.unsettled import unsettled
from graftkit.flow.planning.vectors import told_of_few_compared, told_of_prompts, told_of_texts
from graftkit.flow.planning.vocabulary import carrying, plan_vocabulary
from graftkit.flow.records.chat import chat_options, check_arguments, check_end_of_turn, must_be_passed
from graftkit.flow.records.estimate import (
    FEWEST_SAID,
    CorpusEstimate,
    choose_training,
    estimate_corpus,
    estimate_steps,
    long_warmup,
    too_short,
)
from graftkit.flow.records.record_encoder import encoder_of, longest_example, template_of
from graftkit.flow.records.template_check import check_template
from graftkit.host.host import PluginHost
from graftkit.interfaces.architecture import is_multimodal, token_types
from graftkit.interfaces.layer import LayerInfo
from graftkit.interfaces.model_source import BaseModelFiles
from graftkit.model.targets import likely_embedding, likely_layers, likely_output, names_are_certain
from graftkit.recipe.bind import BoundRecipe, bind
from graftkit.recipe.load import LoadedRecipe
from graftkit.recipe.without_effect import without_effect
from graftkit.report.run_manifest import SettledKey
from graftkit.training.order import DatasetShare
from graftkit.vocabulary.losses import check_promises

__all__ = ["make_plan"]


def make_plan(
    loaded: LoadedRecipe,
    host: PluginHost,
    started: date | None = None,
    before_records: Callable[[], None] = lambda: None,
    chosen: Mapping[str, Any] | None = None,
    pinned: Mapping[str, str] | None = None,
    settled: Mapping[str, SettledKey] | None = None,
    origin_copy: Path | None = None,
    needs_metrics: bool = True,
) -> RunPlan:
    """Checks a recipe and plans its run.

    Args:
        loaded: The recipe.
        host: The plugins.
        started: The day of the run that goes on, which stays its day unless the recipe says one; None where none does.
        before_records: Called once recipe, model and tokenizer hold, before records are read; it may refuse, too.
        chosen: What was chosen for the run that goes on, which holds for it; None where none does.
        pinned: The commits of the hub's data sets that the run which goes on took; see `RunPlan.revisions`.
        settled: What keys that say `auto` came to in the run that goes on.
        origin_copy: As `kept` for `filled_from_folder`.
        needs_metrics: As for `bind`.

    Raises:
        RequestError: Something in it is wrong; see `graftkit.errors` for the kinds.
    """
    loaded, origin = filled_from_folder(loaded, host, origin_copy)
    bound = bind(loaded, host, needs_metrics=needs_metrics)
    recipe = bound.recipe
    where = bound.document.where
    refuse_with_head(bound, origin)
    source, own_files = open_model(host, recipe.model.path, recipe.model.use, where(("model",)))
    files = with_run_head(bound, own_files, origin)
    targets = _likely_targets(bound, files)
    backend = host.registry.resolve("tokenizer", files.tokenizer_backend)
    template = template_of(bound)
    tokenizer = carrying(template, load_tokenizer(files, host.registry.create(backend)))
    rowless = check_fits(files, tokenizer)
    beside = other_tokenizer(origin, host, tokenizer) if origin else None
    brought = folder_vocabulary(origin, bound, files, backend, tokenizer, beside, template) if origin else None
    vocabulary = brought or plan_vocabulary(bound, host, backend, tokenizer.vocab_size, template)
    before_records()
    records = read_records(bound, host, pinned)
    samples, shares = records.samples, records.shares
    labels = labels_in_order(bound, records.labels, own_files.config, str(records.datasets[0].source), origin)
    bound = with_objective_of(bound, records)
    known, made_by = tokenizer, backend
    if vocabulary and vocabulary.replacement:
        known, made_by = vocabulary.replacement, vocabulary.registered
    check_promises(known)
    check_saved(known, host.registry.create(made_by))
    head = head_facts(bound, labels, known, files.config, pairs=records.pairs)
    files = with_facts(files, head)
    today = recipe.data.date or started or date.today()
    trained = vocabulary.rows(files) if vocabulary else embedding_rows(files)
    template_in_use, length = chat_template_of(known, today, chat_options(bound)), longest_example(bound, files.config)
    refuse_sampled(bound, length)
    refuse_unanswered(bound, records.unanswered)
    teacher = open_teacher(bound, host, known, trained, length, vocabulary)
    encoder = encoder_of(bound, known, template_in_use, length, trained, labels, token_types(files.config))
    joined = told_of_pairs(encoder) if head and head.pairs else []
    if encoder.whole_texts:
        mask_token(known, files.reference, trained)
    check_arguments(bound, template_in_use)
    check_end_of_turn(bound, encoder.tokenizer)
    differences = check_template(encoder, samples) if chats(bound, samples) else []
    bound, chosen, corpus = _with_numbers(bound, files, encoder, samples, shares, chosen)
    estimated = estimate_steps(bound.recipe, corpus, bound.objective_config.repeats) if corpus else None
    steps = bound.recipe.training.steps or (estimated.steps if estimated else 0)
    kept = {key: found for key, found in (settled or {}).items() if key in unsettled(bound.recipe)}
    laid_out_by = template_in_use if chats(bound, samples) else None
    notices = [
        *bound.document.notices,
        *without_effect(
            bound,
            samples.train.counts().keys() | samples.holdout.counts().keys(),
            trains_rows=bool(vocabulary and (vocabulary.section or vocabulary.change)),
        ),
        *told_of_own_code(own_files.config),
        *told_of_prompts(bound, own_files),
        *told_of_texts(bound, own_files, known, length),
        *(told_of_origin(origin, bound, files, tokenizer, beside, brought) if origin else []),
        *told_of_several(bound, own_files.config, origin),
        *joined,
        *told_of_records(bound, records, labels, differences),
        *([told] if bound.exports and (told := must_be_passed(chat_options(bound), laid_out_by)) else []),
        *([told] if estimated and (told := too_short(bound.recipe, estimated)) else []),
        *told_of_few_compared(bound, lambda: corpus or estimate_corpus(encoder, samples.train, seen_an_epoch(shares))),
        *([told] if steps and (told := long_warmup(bound.recipe, steps)) else []),
        *([] if vocabulary else rowless),
        *told_of_losses(known, vocabulary, extends=bound.objective_config.head == "language"),
        *host.notices,
    ]
    return RunPlan(
        bound,
        source,
        files,
        backend,
        tokenizer,
        vocabulary,
        today,
        encoder,
        targets,
        samples,
        records.datasets,
        shares,
        notices,
        _forecast(bound, files, targets, wholes=bool(recipe.adapter.modules_to_save or (origin and origin.saved))),
        chosen=chosen,
        corpus=corpus,
        origin=origin,
        head=head,
        teacher=teacher,
    ).with_settled(kept)


def _with_numbers(
    bound: BoundRecipe,
    files: BaseModelFiles,
    encoder: Encoder,
    samples: Split,
    shares: Sequence[DatasetShare],
    earlier: Mapping[str, Any] | None,
) -> tuple[BoundRecipe, Mapping[str, Any], CorpusEstimate | None]:
    """Returns the recipe with the numbers of a training that it leaves out, those numbers, and what they are from.

    Where it leaves out none, records are looked at only for steps that may be too few.
    """
    recipe = bound.recipe
    said = recipe.training.model_fields_set
    if (recipe.training.steps or 0) >= FEWEST_SAID and {"tokens_per_step", "learning_rate"} <= said:
        return bound, {}, None
    corpus = estimate_corpus(encoder, samples.train, seen_an_epoch(shares))
    config = bound.objective_config
    rate_scale = bound.adapter.config.rate_scale * config.rate_scale
    chosen = choose_training(recipe, corpus, files, rate_scale, config.examples_per_step, config.repeats)
    chosen |= {key: value for key, value in (earlier or {}).items() if key in chosen}
    return bound.with_values({f"training.{key}": value for key, value in chosen.items()}), chosen, corpus


def _likely_targets(bound: BoundRecipe, files: BaseModelFiles) -> list[str]:
    """Returns the layers that the patterns name among the file's tensors.

    Raises:
        TargetError: A pattern matches no layer, and the file's names are those of the model.
    """
    if is_multimodal(files.config):  # names don't tell a tower's layers from the language model's
        return certain_targets(bound, files)
    try:
        return chosen_targets(bound, _likely_infos(files), outer=_likely_outer(files))
    except TargetError:
        if names_are_certain(files.tensors):
            raise
        return certain_targets(bound, files)


def _forecast(
    bound: BoundRecipe, files: BaseModelFiles, targets: list[str], *, wholes: bool
) -> Mapping[str, int | None]:
    """Returns what the file's names and shapes say; nothing where the layers have other names than its tensors.

    Which parameters whole modules have, where there are any, the model itself says.
    """
    if not names_are_certain(files.tensors):
        return {"adapter_parameters": None, "frozen_linear_bytes": None}
    found = forecast(bound, _likely_infos(files), targets, outer=_likely_outer(files))
    return {**found, "adapter_parameters": None} if wholes else found


def _likely_outer(files: BaseModelFiles) -> list[LayerInfo]:
    """Returns what the file's names and shapes say of its embedding and its output layer."""
    embedding, output = likely_embedding(files.tensors), likely_output(files.tensors)
    found = [LayerInfo(embedding[0], "embedding", embedding[1][1], embedding[1][0])] if embedding else []
    if output:
        found.append(LayerInfo(output[0], "linear", *output[1], f"{output[0]}.bias" in files.tensors))
    return found


def _likely_infos(files: BaseModelFiles) -> list[LayerInfo]:
    """Returns what the file's names and shapes say of its linear layers."""
    return [
        LayerInfo(path, "linear", *shape, f"{path}.bias" in files.tensors, files.tensors[f"{path}.weight"].given_bytes)
        for path, shape in likely_layers(files.tensors).items()
    ]
