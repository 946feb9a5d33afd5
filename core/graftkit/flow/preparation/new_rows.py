"""Gives a run's model the run's vocabulary: rows made by the recipe's initializer, or those of an adapter's folder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from graftkit.errors import ModelError
from graftkit.flow.planning.vocabulary import Vocabulary
from graftkit.flow.state.context import RunContext
from graftkit.interfaces.architecture import is_multimodal, text_settings
from graftkit.interfaces.initializer import Initializer, MatrixRole, NewRows
from graftkit.interfaces.tokenizer import ROLES, Tokenizer
from graftkit.interfaces.vocabulary import VocabularyChange
from graftkit.model.grow import GrownVocabulary, grow, rows_of_base

__all__ = ["changed_config", "grow_vocabulary"]

_MEDIA_TOKEN = ("_token_id", "_token_index")
"""How keys of a multimodal config.json end that name a token."""


def grow_vocabulary(run: RunContext, network: Any) -> GrownVocabulary:
    """Makes the new rows and puts them in the model; those of an adapter's folder are read after that.

    Raises:
        ModelError: The architecture's embeddings can't be changed.
        PluginCallError: The initializer made something else than rows.
    """
    choice, change, asked = run.plan.bound.initializer, run.vocabulary.change, run.plan.vocabulary
    assert change is not None and asked is not None
    if asked.section is None:
        return grow(network, change, rows_of_base(change), run.plan.files.reference)
    assert choice is not None
    initializer: Initializer = run.host.registry.create(choice.registered, choice.config)

    def make(weight: torch.Tensor, role: MatrixRole) -> torch.Tensor:
        rows = initializer.rows(_new_rows(run.vocabulary, change, weight, role))
        return rows.detach().float().clone()

    return grow(network, change, make, run.plan.files.reference)


def _new_rows(vocabulary: Vocabulary, change: VocabularyChange, weight: torch.Tensor, role: MatrixRole) -> NewRows:
    known = min(vocabulary.base.vocab_size, len(weight))
    kept = change.kept if change.kept is not None else {id: id for id in range(known)}
    return NewRows(
        weight=weight,
        role=role,
        ids=change.ids,
        parts=change.parts,
        base=vocabulary.base,
        tokenizer=vocabulary.tokenizer,
        kept=dict(kept),
        texts=vocabulary.texts,
    )


def changed_config(
    config: Mapping[str, Any], change: VocabularyChange | None, tokenizer: Tokenizer
) -> Mapping[str, Any]:
    """Returns the model's configuration with the vocabulary's size, and the roles' ids where they moved.

    Raises:
        ModelError: Tokens that stand for images or sound would have another meaning.
    """
    if change is None:
        return config
    ids = {f"{role}_token_id": tokenizer.role_token(role) for role in ROLES if role != "unk"}
    moved = ids if change.moves_ids else {}
    changed = {"vocab_size": change.size, **moved}
    if is_multimodal(config):
        _check_media_tokens(config, change)
    text = text_settings(config)
    if text is config:
        return {**config, **changed}
    outside = {key: value for key, value in changed.items() if key in config}
    return {**config, **outside, "text_config": {**text, **changed}}


def _check_media_tokens(config: Mapping[str, Any], change: VocabularyChange) -> None:
    """Refuses what would move the tokens that stand for images or sound: config.json names them by their ids."""
    taken = [key for key, id in config.items() if key.endswith(_MEDIA_TOKEN) and id in change.ids]
    if change.moves_ids or taken:
        what = f"{', '.join(sorted(taken))} would be a new token" if taken else "its tokens for media would move"
        raise ModelError(
            f"the vocabulary of this {config['model_type']} model can't be changed so: {what}",
            where="tokenizer",
            hint="Extend the base's tokenizer, or give the language model alone.",
        )
