"""What encodes records as a recipe says: by which chat template, and up to which length."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from graftkit.corpus.encode import Encoder
from graftkit.corpus.encoding_rules import EncodingRules
from graftkit.corpus.template import ChatTemplate
from graftkit.corpus.text_targets import TextTargets
from graftkit.errors import DataError, RecipeError
from graftkit.interfaces.objective_config import EmbeddingConfig, RetrievalConfig, SampledConfig
from graftkit.interfaces.regular_file import read_regular
from graftkit.interfaces.tokenizer import Tokenizer
from graftkit.model.context import context_length
from graftkit.recipe.bind import BoundRecipe

__all__ = ["encoder_of", "longest_example", "template_of"]

_MAX_TEMPLATE = 1 << 20
"""The most bytes of a file with a chat template; of its characters fewer are allowed, which is told then."""


def encoder_of(
    bound: BoundRecipe,
    tokenizer: Tokenizer,
    template: ChatTemplate | None,
    length: int,
    rows: int | None,
    labels: Sequence[str],
    token_types: int,
) -> Encoder:
    """Returns what encodes records as the recipe says.

    Args:
        bound: The recipe.
        tokenizer: The model's tokenizer.
        template: What lays conversations out; None where there is no chat template.
        length: How many tokens an example may have.
        rows: How many rows the model's embedding has, where that is known.
        labels: The labels of texts in the order of their numbers.
        token_types: Of how many types of tokens the model has embeddings.
    """
    data, objective = bound.recipe.data, bound.objective_config
    targets = TextTargets(objective.learns_from, labels) if objective.judges_texts else None
    if isinstance(objective, EmbeddingConfig):
        prompts = objective.query_prompt, objective.document_prompt
        negatives = objective.negatives if isinstance(objective, RetrievalConfig) else 0
        targets = TextTargets(objective.learns_from, negatives=negatives, prompts=prompts)
    rules = EncodingRules(
        report_dropped=data.dropped == "report",
        overflow=data.overflow,
        parse_special_tokens=data.special_tokens == "parse",
        targets=targets,
        token_types=token_types if targets else 0,
        whole_texts=objective.head == "masked",
        asks=isinstance(objective, SampledConfig),
    )
    return Encoder(tokenizer, template, length, rows, rules)


def longest_example(bound: BoundRecipe, config: Mapping[str, Any]) -> int:
    """Returns how many tokens an example may have: what the recipe says, within the model's context.

    Args:
        bound: The recipe.
        config: The model's config.json.

    Raises:
        RecipeError: The recipe asks for more than the model's context.
    """
    context = context_length(config)
    asked = bound.recipe.data.max_length
    if context is None:
        return bound.recipe.max_length
    if asked is not None and asked > context:
        raise RecipeError(
            f"data.max_length is {asked}; the model's context is {context} tokens",
            where=bound.document.where(("data", "max_length")),
            hint=f"Set it to {context} at most, or leave it out.",
        )
    return min(bound.recipe.max_length, context)


def template_of(bound: BoundRecipe) -> str | None:
    """Returns the chat template that the recipe gives in place of the tokenizer's own, or None.

    Raises:
        DataError: Its file can't be read.
    """
    section = bound.recipe.data.chat_template if bound.objective_config.lays_out else None
    path = section.path if section else None
    if path is None:
        return None
    where = bound.document.where(("data", "chat_template"))
    try:
        text = read_regular(Path(path), _MAX_TEMPLATE).decode()
    except (OSError, ValueError) as error:
        named = "not UTF-8" if isinstance(error, UnicodeDecodeError) else "no file can have this name"
        reason = error.strerror if isinstance(error, OSError) else named
        raise DataError(f"the chat template {path} can't be read: {reason}", where=where) from None
    template = text.replace("\r\n", "\n").replace("\r", "\n")
    if not template.strip():
        raise DataError(f"the chat template {path} is empty", where=where, hint="Leave it out to use the model's own.")
    return template
