"""Gives a run's model the run's vocabulary: rows made by the recipe's initializer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from graftkit.errors import PluginError
from graftkit.flow.context import RunContext
from graftkit.flow.vocabulary import Vocabulary
from graftkit.interfaces.initializer import Initializer, MatrixRole, NewRows
from graftkit.interfaces.tokenizer import ROLES, Tokenizer
from graftkit.interfaces.vocabulary import VocabularyChange
from graftkit.model.grow import GrownVocabulary, grow

__all__ = ["changed_config", "grow_vocabulary"]


def grow_vocabulary(run: RunContext, network: Any) -> GrownVocabulary:
    """Makes the new rows and puts them in the model.

    Raises:
        ModelError: The architecture's embeddings can't be changed.
        PluginError: The initializer made something else than rows.
    """
    choice, change = run.request.bound.initializer, run.vocabulary.change
    assert choice is not None and change is not None
    initializer: Initializer = run.host.registry.create(choice.offer, choice.config)

    def make(weight: torch.Tensor, role: MatrixRole) -> torch.Tensor:
        rows = initializer.rows(_new_rows(run.vocabulary, change, weight, role))
        return _checked(rows, (len(change.ids), weight.shape[1]), choice.use)

    return grow(network, change, make, run.request.files.reference)


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


def _checked(rows: torch.Tensor, shape: tuple[int, int], name: str) -> torch.Tensor:
    if tuple(rows.shape) != shape or not torch.isfinite(rows).all():
        raise PluginError(
            f"the initializer '{name}' made rows {list(rows.shape)} for {list(shape)}, or not all of them finite",
            where="tokenizer.embedding_init",
        )
    return rows.detach().float().clone()


def changed_config(
    config: Mapping[str, Any], change: VocabularyChange | None, tokenizer: Tokenizer
) -> Mapping[str, Any]:
    """Returns the model's configuration with the vocabulary's size, and the roles' ids where they moved."""
    if change is None:
        return config
    ids = {f"{role}_token_id": tokenizer.role_token(role) for role in ROLES if role != "unk"}
    moved = ids if change.moves_ids else {}
    return {**config, "vocab_size": change.size, **moved}
