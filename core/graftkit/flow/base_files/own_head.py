"""Which heads a base model has and can be given, by its own config.json, and the token that one masks texts by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from graftkit.errors import ModelError
from graftkit.interfaces.architecture import SCORING, Head, head_of, is_multimodal
from graftkit.interfaces.tokenizer import NamedTokens, Tokenizer

__all__ = ["check_head", "does", "mask_token", "named_head", "refuse_head"]

_HEADS: Mapping[Head, str] = {
    "language": "a language model's own head",
    "sequence": "a head on sequences",
    "token": "a head on tokens",
    "masked": "the head that fills in masked tokens",
    "embedding": "vectors of whole sequences",
}


_DOES: Mapping[Head, str] = {
    "sequence": "scores whole sequences",
    "token": "scores each token",
    "masked": "fills in masked tokens",
    "embedding": "gives sequences vectors",
}


def does(head: Head) -> str:
    """Returns what a model with a head that is no language model's does, in words.

    Args:
        head: The head.
    """
    return _DOES[head]


def named_head(head: Head) -> str:
    """Returns what a head is called in words.

    Args:
        head: The head.
    """
    return _HEADS[head]


def check_head(config: Mapping[str, Any], head: Head, objective: str, reference: str) -> None:
    """Refuses a base model that an objective can't train.

    Args:
        config: Its config.json.
        head: The head that the objective learns by.
        objective: What a recipe calls the objective.
        reference: What a recipe calls the model.

    Raises:
        ModelError: It is a classifier, and the objective trains a language model; or no such head can be put on it.
    """
    if head == "language":
        if head_of(config) != "embedding":  # a body alone is one where its output layer may be tied
            refuse_head(config, reference, f"the objective {objective} trains language models")
        return
    if is_multimodal(config):
        raise ModelError(
            f"the objective {objective} puts a head on models of text alone, and this one has towers beside it",
            where=reference,
            hint="Give its language model alone, as transformers saves it.",
        )
    own, named = head_of(config), (config.get("architectures") or [""])[0]
    if {own, head} == SCORING:
        raise ModelError(
            f"the model {_DOES[own]} ({named}), and the objective {objective} trains {_HEADS[head]}",
            where=reference,
            hint="Give the model that it was made from, or one without a head, as AutoModel saves it.",
        )


def refuse_head(config: Mapping[str, Any], reference: str, why: str) -> None:
    """Refuses a base model that is no causal language model by its own config.json.

    Raises:
        ModelError: It is none.
    """
    head, named = head_of(config), (config.get("architectures") or [""])[0]
    if head in SCORING:
        raise ModelError(
            f"the model {_DOES[head]} ({named}), and {why}",
            where=reference,
            hint="Such models are trained with objective: token-classification."
            if head == "token"
            else "Such models are trained with objective: classification, multi-label-classification, regression or "
            "reward.",
        )
    if head == "embedding":
        raise ModelError(
            f"the model gives sequences vectors ({named}), and {why}",
            where=reference,
            hint="Such models are trained with objective: embedding.",
        )
    if head == "masked":
        raise ModelError(
            f"the model fills in masked tokens ({named}), and is no causal language model: {why}",
            where=reference,
            hint="Such models are trained with objective: masked-lm, classification, token-classification or "
            "embedding.",
        )


def mask_token(tokenizer: Tokenizer, where: str, rows: int | None = None) -> int:
    """Returns the id of a tokenizer's mask token.

    Args:
        tokenizer: The tokenizer.
        where: What the error names.
        rows: How many rows the model's embedding has, where that is known.

    Raises:
        ModelError: It has none, or the embedding has no row for it.
    """
    named: object = tokenizer.named_tokens if isinstance(tokenizer, NamedTokens) else None
    text = named.get("mask_token") if isinstance(named, Mapping) else None
    found = tokenizer.special_tokens.get(text) if isinstance(text, str) else None
    if found is None:
        raise ModelError("its tokenizer names no mask token, which masked-lm puts in the place of others", where=where)
    if rows is not None and found >= rows:
        raise ModelError(
            f"the mask token {text!r} has the id {found}; the model's embedding has {rows:,} rows, none for it",
            where=where,
            hint="Tokenizer and weights do not belong together: take both from the same model.",
        )
    return found
