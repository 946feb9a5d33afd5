"""What a run puts on its base model besides an adapter: the head that its objective learns by."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from copy import copy
from dataclasses import replace
from typing import Any

from graftkit.corpus.encode import Encoder
from graftkit.errors import DataError, RecipeError
from graftkit.flow.base_files.own_head import check_head, named_head
from graftkit.flow.base_files.sentence_settings import own_prompts, pooling_of
from graftkit.flow.folders.adapter_folder import AdapterFolder
from graftkit.flow.planning.named_fields import NamedFields, listed_labels
from graftkit.flow.planning.read_records import ReadRecords
from graftkit.flow.planning.vectors import own_pooling
from graftkit.interfaces.architecture import (
    EMBEDDING_POOLING,
    EMBEDDING_PROMPTS,
    SEVERAL_LABELS,
    Head,
    head_of,
    labels_of,
    with_head,
)
from graftkit.interfaces.model_source import BaseModelFiles
from graftkit.interfaces.objective_config import EmbeddingConfig
from graftkit.interfaces.tokenizer import Tokenizer
from graftkit.recipe.bind import BoundRecipe
from graftkit.report.run_manifest import HeadFacts

__all__ = [
    "NUMBER",
    "config_of_objective",
    "head_facts",
    "labels_in_order",
    "own_labels",
    "refuse_answers",
    "refuse_with_head",
    "scored_of",
    "told_of_pairs",
    "told_of_several",
    "with_facts",
    "with_objective_of",
    "with_own_vectors",
    "with_run_head",
]


def with_run_head(bound: BoundRecipe, files: BaseModelFiles, origin: AdapterFolder | None = None) -> BaseModelFiles:
    """Returns the base model's files, whose configuration asks for the head that a recipe's objective learns by.

    Args:
        bound: The recipe.
        files: The base model.
        origin: The adapter that training goes on with, if any: vectors are made as its were, unless the recipe says.

    Raises:
        ModelError: The model is a classifier, and the objective trains a language model; or no head can be put on it.
    """
    config = config_of_objective(bound, files, origin)
    return files if config is files.config else _with_config(files, config)


def config_of_objective(
    bound: BoundRecipe, files: BaseModelFiles, origin: AdapterFolder | None = None
) -> Mapping[str, Any]:
    """Returns a base model's configuration that asks for the head that a recipe's objective learns by.

    Args:
        bound: The recipe.
        files: The base model; its own configuration is returned where it asks for just that.
        origin: As for `with_run_head`.

    Raises:
        ModelError: As for `with_run_head`.
    """
    head, objective = bound.objective_config.head, bound.objective.use
    config, reference = files.config, files.reference
    check_head(config, head, objective, reference)
    if head == "language":
        return _of_language(config)
    if isinstance(bound.objective_config, EmbeddingConfig):
        asked, prompts = bound.objective_config.pooling, bound.objective_config.prompts
        pooled_by = own_pooling(files, origin) if asked == "auto" else asked
        return with_head(config, head, pooled_by=pooled_by, prompts=prompts)
    return with_head(config, head)


def with_own_vectors(files: BaseModelFiles, *, headless: bool = False) -> BaseModelFiles:
    """Returns the files of a model without a head, whose configuration says how its vectors are made.

    Args:
        files: The model; returned as it is where it has a head.
        headless: Whether a language model, or one that fills in masked tokens, is taken for its body alone.

    Raises:
        ModelError: Its files ask for something that graftkit does not know.
    """
    if head_of(files.config) not in ("embedding", *(("language", "masked") if headless else ())):
        return files
    return _with_config(
        files, with_head(files.config, "embedding", pooled_by=pooling_of(files), prompts=own_prompts(files))
    )


def with_facts(files: BaseModelFiles, facts: HeadFacts | None) -> BaseModelFiles:
    """Returns a base model's files whose configuration asks for the head that a manifest names.

    Where it names none, that is a language model's.
    """
    if facts is None:
        own = _of_language(files.config)
        return files if own is files.config else _with_config(files, own)
    config = with_head(
        files.config,
        facts.kind,
        facts.labels,
        facts.pad,
        several=facts.several,
        pooled_by=facts.pooled_by,
        prompts=facts.prompts or {},  # and not those of the base model
    )
    return _with_config(files, config)


def _of_language(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns a configuration; of a model without a head that of a language model, whose output layer may be tied."""
    return with_head(config, "language") if head_of(config) == "embedding" else config


def _with_config(files: BaseModelFiles, config: Mapping[str, Any]) -> BaseModelFiles:
    """Returns the same files with another configuration, of a subclass of their own class: what they offer stays."""
    own = type(files)
    # a copy of such files, where they are a frozen dataclass, is given each of its fields: its own `config` is left
    said = property(lambda _: config, lambda _, value: None)
    changed = type(own.__name__, (own,), {"__slots__": (), "__module__": own.__module__, "config": said})
    found = copy(files)
    object.__setattr__(found, "__class__", changed)
    return found


def head_facts(
    bound: BoundRecipe,
    labels: Sequence[str],
    tokenizer: Tokenizer,
    config: Mapping[str, Any],
    *,
    pairs: bool = False,
) -> HeadFacts | None:
    """Returns what manifests say of the head; None for a language model's own.

    Args:
        bound: The recipe, whose objective says of what kind the head is.
        config: The base model's config.json with that head.
        labels: What its outputs stand for.
        tokenizer: What names the token of padding.
        pairs: Whether records have two texts each.
    """
    head = bound.objective_config.head
    if head == "language":
        return None
    learnt = bound.objective_config
    said: dict[str, Any] = {"several": learnt.learns_from == "label_sets"}
    if head == "embedding":
        said |= {"pooled_by": config[EMBEDDING_POOLING], "prompts": config[EMBEDDING_PROMPTS]}
    else:
        said |= {"pairs": pairs and learnt.judges_texts}
    facts = HeadFacts(kind=head, labels=list(labels), pad=tokenizer.role_token("pad"))
    return facts.model_copy(update={name: value for name, value in said.items() if value})


def _head_of_adapter(origin: AdapterFolder, head: Head) -> Head | None:
    """Returns the head that an adapter was trained with; None where nothing says so, or it goes on with this one, too.

    That of a language model goes on with a head on it, whose body is called the same. A body alone is not.
    """
    if origin.manifest and origin.manifest.head:
        return origin.manifest.head.kind
    return "language" if head == "embedding" and origin.fields.get("task_type") == "CAUSAL_LM" else None


def labels_in_order(
    bound: BoundRecipe,
    found: Collection[str],
    config: Mapping[str, Any],
    where: str,
    origin: AdapterFolder | None = None,
) -> list[str]:
    """Returns the labels in the order of their numbers: the recipe's, the base model's own, or sorted.

    The one output of a head that learns a number is called `NUMBER`.

    Args:
        bound: The recipe.
        found: The labels that the records have.
        config: The base model's config.json, which has an order where that is a classifier of just these labels.
        where: The records, for errors.
        origin: The adapter that training goes on with, if any, whose head has an order, where graftkit trained it.

    Raises:
        DataError: There are none, or one alone where a text has one.
        RecipeError: The recipe lists others, or another order than the base model or the adapter has; or one of these
            is a classifier of other labels, or has several outputs where one is learnt.
    """
    learns_from = bound.objective_config.learns_from
    if bound.objective_config.head == "sequence" and learns_from in ("scores", "pairs"):
        _refuse_several_outputs(bound, config, origin)
    if learns_from == "scores":
        return [NUMBER]
    if not bound.objective_config.names_labels:
        return []
    if not found:
        raise DataError("no record has a label: there is nothing to tell apart", where=where)
    if learns_from != "label_sets" and len(found) < 2:
        one = "word has the tag" if learns_from == "tags" else "record has the label"
        raise DataError(f"every {one} {next(iter(found))!r:.60}: there is nothing to tell apart", where=where)
    try:
        order = list(bound.objective_config.label_order(found))
    except ValueError as error:
        raise RecipeError(str(error), where=bound.document.where(("objective", "labels"))) from None
    of_adapter = origin.manifest.head.labels if origin and origin.manifest and origin.manifest.head else []
    own, whose = of_adapter or own_labels(config), "adapter" if of_adapter else "base model"
    if not own or own == order:
        return order
    said, theirs = listed_labels(order), listed_labels(own)
    if sorted(own) != sorted(order):
        raise RecipeError(
            f"the {whose} is a classifier of other labels ({theirs}) than the records' ({said})",
            where=bound.document.where(("adapter", "from") if of_adapter else ("model",)),
            hint="Name the records' labels as it does"
            + (", or train a new adapter." if of_adapter else ", or give the model that it was made from."),
        )
    if getattr(bound.objective_config, "labels", None):
        raise RecipeError(
            f"objective.labels says {said}, and the {whose}, a classifier of these, {theirs}",
            where=bound.document.where(("objective", "labels")),
            hint=f"Leave labels out, and they keep the {whose}'s order.",
        )
    return list(own)


def _refuse_several_outputs(bound: BoundRecipe, config: Mapping[str, Any], origin: AdapterFolder | None) -> None:
    """Refuses a head of several outputs where one is learnt.

    Raises:
        RecipeError: The base model has such a head, or the adapter.
    """
    trained = origin.manifest.head if origin and origin.manifest else None
    outputs = len(trained.labels if trained else scored_of(config).labels)
    if outputs > 1:
        whose, where = ("adapter", ("adapter", "from")) if trained else ("base model", ("model",))
        raise RecipeError(
            f"the {whose}'s head has {outputs:,} outputs, and that of the objective {bound.objective.use} has one",
            where=bound.document.where(where),
            hint="Train a new adapter." if trained else "Give the model that it was made from.",
        )


def with_objective_of(bound: BoundRecipe, records: ReadRecords) -> BoundRecipe:
    """Returns a recipe whose objective has what follows from the training records, such as balanced weights of labels.

    Raises:
        RecipeError: Its fields do not hold for these records.
        PluginCallError: They are a plugin's, and give something else than is due.
    """
    settled = NamedFields(bound).for_records(*records.label_counts())
    return replace(bound, choices={**bound.choices, ("objective",): replace(bound.objective, config=settled)})


def told_of_pairs(encoder: Encoder) -> list[str]:
    """Returns a notice where nothing says where the second text of a pair begins.

    Raises:
        DataError: The tokenizer does not say how it joins the two.
    """
    if encoder.texts.pair_layout.between or encoder.rules.token_types:
        return []
    return [
        "the tokenizer puts nothing between the two texts of a pair, and the model has no token types: the second text "
        "follows the first at once. To set them apart, begin it with a word or a blank line"
    ]


def told_of_several(bound: BoundRecipe, config: Mapping[str, Any], origin: AdapterFolder | None) -> list[str]:
    """Returns a notice where a classifier that judges each label by itself learns something else, or vice versa.

    Args:
        bound: The recipe.
        config: The base model's own config.json.
        origin: The adapter that training goes on with, if any.
    """
    learns_from = bound.objective_config.learns_from
    trained = origin.manifest.head if origin and origin.manifest else None
    whose = "adapter" if trained else "base model"
    judges_each = trained.several if trained else config.get("problem_type") == SEVERAL_LABELS
    if learns_from == "labels" and judges_each:
        return [f"the {whose} judges each label by itself (multi_label_classification); it learns to give a text one"]
    if learns_from in ("scores", "pairs") and bound.objective_config.head == "sequence" and judges_each:
        return [f"the {whose} judges a label by itself (multi_label_classification); it learns to give a text a number"]
    if learns_from == "label_sets" and not judges_each and len(trained.labels if trained else labels_of(config)) > 1:
        return [f"the {whose} gives a text one label; it learns to judge each label by itself"]
    return []


NUMBER = "score"
"""What config.json calls the one output of a head that learns a number; that of a reward model has no name."""


def scored_of(config: Mapping[str, Any], outputs: int = 0) -> HeadFacts:
    """Returns the head that a config.json says, and what its scores are of.

    Labels without names are transformers' "LABEL_0" and so on; a single score without one has none, unless a text may
    have several labels.

    Args:
        config: The config.json.
        outputs: How many scores it has; as many as the config.json says when 0.
    """
    kind, own = head_of(config), own_labels(config)
    count = outputs or len(labels_of(config))
    several = kind == "sequence" and config.get("problem_type") == SEVERAL_LABELS
    unnamed = [f"LABEL_{number}" for number in range(count)] if count > 1 or several else []
    return HeadFacts(
        kind=kind,
        labels=own if len(own) == count else unnamed,
        several=several,
        pooled_by=config.get(EMBEDDING_POOLING) if kind == "embedding" else None,
        prompts=config.get(EMBEDDING_PROMPTS) if kind == "embedding" else None,
    )


def own_labels(config: Mapping[str, Any]) -> list[str]:
    """Returns the labels of a classifier in its order; none where it is none, or has no names for them."""
    own = labels_of(config)
    return [] if own == [f"LABEL_{number}" for number in range(len(own))] else own


def refuse_answers(bound: BoundRecipe) -> None:
    """Refuses answers of a model whose head writes none.

    Raises:
        RecipeError: The recipe asks for some.
    """
    if bound.objective_config.head != "language" and bound.recipe.evaluation.answers:
        raise RecipeError(
            f"evaluation.answers: the objective {bound.objective.use} is of a model which writes no answers",
            where=bound.document.where(("evaluation", "answers")),
            hint="Leave it out: the objective's own metrics of the holdout records are reported.",
        )


def refuse_with_head(bound: BoundRecipe, origin: AdapterFolder | None) -> None:
    """Refuses what a recipe asks for that its head can't do, or the one of its adapter: before any work is done.

    Args:
        bound: The recipe.
        origin: The adapter that training is to go on with, if any.

    Raises:
        RecipeError: There is such a thing.
    """
    head: Head = bound.objective_config.head
    recipe, where = bound.recipe, bound.document.where
    trained = _head_of_adapter(origin, head) if origin else None
    if trained and trained != head:
        raise RecipeError(
            f"adapter.from: the adapter was trained with {named_head(trained)}, and the objective "
            f"{bound.objective.use} trains {named_head(head)}",
            where=where(("adapter", "from")),
            hint="Go on with the objective that it was trained by, or export it first (toolkit export ADAPTER --to "
            "merged), and train a new adapter on the merged model.",
        )
    if head == "language":
        return
    refuse_answers(bound)
    if origin and origin.rows:
        raise RecipeError(
            f"adapter.from: the adapter has trained rows of {', '.join(sorted(origin.rows))}, and the objective "
            f"{bound.objective.use} is learnt with the base model's own vocabulary",
            where=where(("adapter", "from")),
            hint="Export it first (toolkit export ADAPTER --to merged), and train the head on the merged model.",
        )
    if recipe.tokenizer is not None:
        raise RecipeError(
            f"tokenizer: the objective {bound.objective.use} is learnt with the base model's own vocabulary",
            where=where(("tokenizer",)),
            hint="Of a decoder, train the vocabulary in a run of its own, and then the head on the merged model; give "
            "an encoder its tokens before the run, with add_tokens and resize_token_embeddings of transformers.",
        )
