"""Gives a loaded model another vocabulary: its matrices grow or are rearranged, and new rows become trainable."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from graftkit.articles import with_article
from graftkit.errors import ModelError
from graftkit.interfaces.initializer import MatrixRole
from graftkit.interfaces.vocabulary import VocabularyChange
from graftkit.model.row_scale import row_scale, row_scale_of
from graftkit.model.rows import NewRowsEmbedding, NewRowsLinear, TrainedRows

__all__ = ["GrownVocabulary", "MakeRows", "check_growable", "grow", "rows_of_base"]

MakeRows = Callable[[torch.Tensor, MatrixRole], torch.Tensor]
"""Makes the new rows, `[new, hidden]`, from the base's matrix, float32 on the CPU, and what it is used for."""

_BY_LAYER = ("vocab_size_per_layer_input", "hidden_size_per_layer_input")
"""What a configuration says where each of its layers looks ids up in an embedding of its own, as Gemma 3n does."""


@dataclass(frozen=True, slots=True)
class GrownVocabulary:
    """A model's new rows.

    Attributes:
        change: What was done.
        embedding: The dotted path of the embedding.
        output: The dotted path of the output layer, or None where it is tied to the embedding.
        rows: The trained rows by the path of their matrix.
    """

    change: VocabularyChange
    embedding: str
    output: str | None
    rows: Mapping[str, TrainedRows]

    def parameters(self) -> dict[str, nn.Parameter]:
        """Returns what is trained, by matrix."""
        return {f"{path}.new_rows": trained.rows for path, trained in self.rows.items()}


def rows_of_base(change: VocabularyChange) -> MakeRows:
    """Returns what makes the base model's own rows of ids that have one, and zeros of the others: they are read then.

    Args:
        change: What becomes of the rows; every id of the base keeps its row.
    """

    def make(weight: torch.Tensor, role: MatrixRole) -> torch.Tensor:
        known = [id for id in change.ids if id < len(weight)]
        rows = torch.zeros(len(change.ids), weight.shape[1])
        rows[: len(known)] = weight[known]
        return rows

    return make


def grow(network: Any, change: VocabularyChange, make_rows: MakeRows, where: str = "") -> GrownVocabulary:
    """Puts embedding and output layer with trainable new rows in the place of the model's own; tied stay tied.

    Args:
        network: A transformers causal language model, its weights loaded.
        change: What becomes of the rows.
        make_rows: Makes the new rows.
        where: The model's reference, for errors.

    Raises:
        ModelError: The architecture's embedding or output layer is of a kind whose rows can't be told apart, or the
            change has rows that are neither new nor kept.
    """
    check_growable(network, where)
    old, head = network.get_input_embeddings(), network.get_output_embeddings()
    named = len(change.ids) + (len(old.weight) if change.kept is None else len(change.kept))
    if change.size > named:
        raise ModelError(
            f"the changed vocabulary has {change.size:,} rows, but only {named:,} are new or the base model's"
        )
    names = {id(module): path for path, module in network.named_modules()}
    embedding_path, head_path = names[id(old)], names[id(head)]
    tied = head.weight is old.weight
    if not change.ids:
        _rearrange(old, head, change, tied)
        network.config.get_text_config().vocab_size = change.size
        return GrownVocabulary(change, embedding_path, None if tied else head_path, {})
    trained = _trained(old.weight, change, make_rows, "tied" if tied else "input")
    embedding = NewRowsEmbedding(_rearranged(old.weight, change), trained, row_scale_of(old))
    network.set_submodule(embedding_path, embedding)
    rows = {embedding_path: trained}
    weight = embedding.weight
    if not tied:
        rows[head_path] = trained = _trained(head.weight, change, make_rows, "output")
        weight = nn.Parameter(_rearranged(head.weight, change), requires_grad=False)
    bias = None if head.bias is None else _rearranged(head.bias, change)
    network.set_submodule(head_path, NewRowsLinear(weight, trained, bias))
    network.config.get_text_config().vocab_size = change.size
    return GrownVocabulary(change, embedding_path, None if tied else head_path, rows)


def check_growable(network: Any, where: str = "") -> None:
    """Refuses a model whose vocabulary can't be changed; its weights may be on the meta device.

    Args:
        network: A transformers causal language model.
        where: The model's reference, for errors.

    Raises:
        ModelError: The architecture's embedding or output layer is of a kind whose rows can't be told apart, or it
            looks ids up in a second table, which would have no row for new ones.
    """
    old, head = network.get_input_embeddings(), network.get_output_embeddings()
    reason = ""
    if row_scale(old, torch.float32) is None or type(head) is not nn.Linear:
        classes = " and ".join(with_article(type(module).__name__) for module in (old, head))
        reason = f"its embedding and output layer are {classes}"
    elif all(getattr(network.config.get_text_config(), key, None) for key in _BY_LAYER):
        reason = "each of its layers has an embedding of its own"
    if reason:
        raise ModelError(
            f"the vocabulary of this architecture can't be changed: {reason}",
            where=where,
            hint="It keeps its vocabulary: no section 'tokenizer' in a recipe, and no adapter with rows of new tokens.",
        )


def _rearrange(embedding: nn.Embedding, head: nn.Linear, change: VocabularyChange, tied: bool) -> None:
    """Gives frozen matrices the rows of a vocabulary in which no id is new: some of the base's, in another order."""
    embedding.weight = nn.Parameter(_rearranged(embedding.weight, change), requires_grad=False)
    rows = embedding.weight if tied else nn.Parameter(_rearranged(head.weight, change), requires_grad=False)
    head.weight = rows
    head.bias = None if head.bias is None else nn.Parameter(_rearranged(head.bias, change), requires_grad=False)
    embedding.num_embeddings = head.out_features = change.size


def _trained(weight: torch.Tensor, change: VocabularyChange, make_rows: MakeRows, role: MatrixRole) -> TrainedRows:
    copied = weight.detach().to("cpu", torch.float32, copy=True)  # a plugin may change it
    rows = make_rows(copied, role)
    return TrainedRows(change.ids, rows.to(weight.device), change.size)


@torch.no_grad()
def _rearranged(old: torch.Tensor, change: VocabularyChange) -> torch.Tensor:
    """Returns `[size, ...]` with every kept row in its place and zeros elsewhere."""
    new = torch.zeros(change.size, *old.shape[1:], dtype=old.dtype, device=old.device)
    if change.kept is None:
        new[: len(old)] = old
        return new
    places = sorted(change.kept.items())
    new[[id for id, _ in places]] = old[[base for _, base in places]]
    return new
