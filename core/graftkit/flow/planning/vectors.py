"""How a run makes vectors of texts: by which pooling, behind which prompts, compared with how many others."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from graftkit.errors import DataError
from graftkit.flow.base_files.sentence_settings import (
    compared_by,
    default_prompt_of,
    lowers_case,
    numbers_kept,
    pooling_of,
    pooling_of_adapter,
    prompts_of,
    text_limits,
)
from graftkit.flow.folders.adapter_folder import AdapterFolder
from graftkit.flow.records.estimate import CorpusEstimate
from graftkit.flow.records.training_numbers import estimate_steps
from graftkit.interfaces.architecture import PooledBy
from graftkit.interfaces.model_source import BaseModelFiles
from graftkit.interfaces.objective_config import EmbeddingConfig, SimilarityConfig
from graftkit.interfaces.scores import SCORE
from graftkit.interfaces.tokenizer import Tokenizer
from graftkit.recipe.bind import BoundRecipe
from graftkit.store.token_store import TokenStore
from graftkit.visible import one_line

__all__ = ["own_pooling", "refuse_alike", "told_of_few_compared", "told_of_holdout", "told_of_prompts", "told_of_texts"]

_SHOWN_PROMPTS = 3

_FEW = 8
"""Queries of a step below which hardly any documents are compared with each."""


def own_pooling(files: BaseModelFiles, origin: AdapterFolder | None) -> PooledBy:
    """Returns what vectors are made of where the recipe says `auto`.

    Args:
        files: The base model.
        origin: The adapter that training goes on with, if any, whose own way goes before the base model's.

    Raises:
        ModelError: The base model's files ask for something that graftkit does not know.
        FolderError: The adapter's do.
    """
    if origin is None:
        return pooling_of(files)
    trained = origin.manifest.head if origin.manifest else None
    return (trained and trained.pooled_by) or pooling_of_adapter(origin.path, files)


def told_of_prompts(bound: BoundRecipe, files: BaseModelFiles) -> list[str]:
    """Returns notices where the base model's authors put something before texts, and the recipe says nothing of it.

    And where they compare vectors otherwise than by their cosine, which is learnt.
    """
    config = bound.objective_config
    said = {"query_prompt", "document_prompt"} & config.model_fields_set
    if not isinstance(config, EmbeddingConfig):
        return []
    compared = compared_by(files)
    told = (
        [
            f"the base model's sentence-transformers files compare vectors by {one_line(compared, 40)}: here their "
            "cosine is learnt, and exports compare by it"
        ]
        if compared
        else []
    )
    known, default = {} if said else prompts_of(files), default_prompt_of(files)
    if not known:
        return told
    listed = ", ".join(
        f"{text!r:.60} ({name[:40]}{', unless asked otherwise' if name == default else ''})"
        for name, text in list(known.items())[:_SHOWN_PROMPTS]
    )
    return [
        *told,
        f"the base model's sentence-transformers files put a prompt before texts: {listed}; the recipe puts none: "
        "objective.query_prompt and objective.document_prompt do",
    ]


def told_of_texts(bound: BoundRecipe, files: BaseModelFiles, tokenizer: Tokenizer, length: int) -> list[str]:
    """Returns notices where the base model's authors cut or write texts otherwise before the model sees them.

    And where they cut vectors.

    Args:
        bound: The recipe.
        files: The base model.
        tokenizer: What texts become tokens by.
        length: How many tokens of a text are learnt at most.
    """
    if not isinstance(bound.objective_config, EmbeddingConfig):
        return []
    limits, told = text_limits(files), list[str]()
    limit = limits.get("max_seq_length") or limits.get("model_max_length") or length
    if limit < length:
        told.append(
            f"the base model's sentence-transformers files cut texts after {limit:,} tokens, and here {length:,} are "
            f"learnt: data.max_length: {limit} does as they do"
        )
    kept = limits.get("model_max_length", length)
    if bound.exports and kept < length:
        told.append(
            f"whoever loads a merged export cuts texts after {kept:,} tokens, as model_max_length in the base model's "
            f"tokenizer_config.json says, and here {length:,} are learnt: raise it there, or lower data.max_length"
        )
    if lowers_case(files) and tokenizer.encode(_CAPITALS) != tokenizer.encode(_CAPITALS.lower()):
        told.append(
            "the base model's sentence-transformers files write texts in lower case (do_lower_case), which its "
            'tokenizer.json does not: texts are learnt as they are. Put {"type": "Lowercase"} first in the '
            '"normalizer" there, and exports do so, too'
        )
    numbers = numbers_kept(files)
    if numbers:
        told.append(
            f"the base model's sentence-transformers files keep the first {numbers:,} numbers of a vector "
            f"(truncate_dim), and exports all of them: objective.dimensions: [{numbers}] has these do as well"
        )
    return told


def refuse_alike(bound: BoundRecipe, store: TokenStore, where: str) -> None:
    """Refuses texts of which there is nothing to compare: documents with the same tokens do not count for a query.

    Args:
        bound: The recipe.
        store: The tokens that are learnt from; as a rule two examples of them are looked at.
        where: The records, for errors.

    Raises:
        DataError: All queries are the same tokens, or all documents, or all pairs; as what cuts them off leaves them.
    """
    if not isinstance(bound.objective_config, EmbeddingConfig):
        return
    pairs = isinstance(bound.objective_config, SimilarityConfig)
    seen: dict[str, set[bytes]] = {"pairs": set()} if pairs else {"queries": set(), "documents": set()}
    for example in store:
        query, *documents = (part.ids.tobytes() for part in example.sequences)
        # a negative tells a query from nothing else, and still counts for it
        found = {"pairs": [query + documents[0]], "queries": [query, *documents[1:]], "documents": documents}
        for name, texts in seen.items():
            texts.update(found[name] if len(texts) < 2 else ())
        if all(len(texts) > 1 for texts in seen.values()):
            return
    alike = next(name for name, texts in reversed(seen.items()) if len(texts) < 2)
    raise DataError(
        f"all {alike} are the same tokens, and have the same vectors: there is nothing to learn",
        where=where,
        hint="Texts are cut off after data.max_length tokens: raise it where they begin alike.",
    )


def told_of_holdout(bound: BoundRecipe, store: TokenStore) -> list[str]:
    """Returns a notice where what is held out has one number alone, by which nothing is measured.

    Args:
        bound: The recipe.
        store: The holdout examples.
    """
    numbers = store.by_example.get(SCORE)
    if not isinstance(bound.objective_config, SimilarityConfig) or numbers is None or len(np.unique(numbers)) != 1:
        return []
    return [
        f"all that is held out has the number {numbers[0]:g}: the loss there is 0 whatever is learnt, and there is no "
        "rank correlation: hold out more, or other records (data.holdout)"
    ]


_CAPITALS = "A Text With CAPITALS"
"""What a tokenizer that writes lower case gives the tokens of the same in lower case."""


def told_of_few_compared(bound: BoundRecipe, corpus: Callable[[], CorpusEstimate]) -> list[str]:
    """Returns a notice where the steps of an objective that compares texts have few examples.

    Args:
        bound: The recipe.
        corpus: Says how long its records are.
    """
    if not isinstance(bound.objective_config, EmbeddingConfig):
        return []
    examples = estimate_steps(bound.recipe, corpus()).examples
    if examples >= _FEW:
        return []
    similar = isinstance(bound.objective_config, SimilarityConfig)
    compared = "pair is compared with the others" if similar else "query is compared with the documents"
    return [
        f"a step has about {examples:.2g} examples, and each {compared} of its step alone: "
        "raise training.tokens_per_step, which takes no memory"
    ]
