"""Puts an adapter in PEFT's format on a base model that is loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from graftkit.errors import FolderError, ModelError, TrainingError
from graftkit.flow.folders.adapter_folder import OF_BASE, PREFIX, AdapterFolder
from graftkit.flow.folders.adapter_state import read_state, state_from_peft
from graftkit.flow.planning.check_adapter import MERGED, OTHER_BASE, gives_output_own_rows
from graftkit.interfaces.adapter import Adapter
from graftkit.interfaces.tokenizer import Tokenizer
from graftkit.interfaces.vocabulary import VocabularyChange
from graftkit.model.adapt import AdaptedModel, adapt
from graftkit.model.grow import GrownVocabulary, grow, rows_of_base
from graftkit.model.head import head_modules, head_parameters, is_of_head
from graftkit.model.originals import FileOriginals
from graftkit.model.outer_layers import ties_output, untie, untied
from graftkit.model.whole import outer_names, put_whole, whole_parameters

__all__ = ["load_state", "load_tensors", "place_adapter"]


def place_adapter(
    folder: AdapterFolder,
    network: Any,
    adapter: Adapter,
    targets: Sequence[str],
    *,
    reference: str,
    config: Mapping[str, Any],
    tokenizer: Tokenizer,
    generation: Mapping[str, Any],
    processors: Mapping[str, Mapping[str, Any]],
    pairs: bool = False,
    change: VocabularyChange | None = None,
    originals: FileOriginals | None = None,
) -> AdaptedModel:
    """Puts an adapter on a base model: its tensors, whole modules, and rows of embeddings.

    Args:
        folder: The adapter.
        network: The base model, loaded; it is changed.
        adapter: The method.
        targets: What `check_layers` gave.
        reference: What opens the base model.
        config: The configuration of the result.
        tokenizer: Its tokenizer.
        generation: Its generation settings.
        processors: How images and sound become its inputs, if it is a multimodal model.
        pairs: Whether it scores pairs of texts.
        change: What its rows make of the embeddings.
        originals: As for `adapt`.

    Raises:
        FolderError: Its tensors are damaged.
        ModelError: They do not fit the model.
    """
    head = head_modules(network)
    folder = folder.knowing_head(lambda name: is_of_head(name, head))
    tensors = read_state(folder)
    own_rows = gives_output_own_rows(folder, network)
    _check_copies(folder, network, tensors)
    unties = put_whole(network, folder.saved.keys(), tied=_saves_one_matrix(folder, network, tensors))
    if own_rows and not unties:
        untie(network)
    if unties or own_rows:
        config = untied(config)
    whole = [*whole_parameters(network, folder.saved), *folder.head]
    state = state_from_peft(tensors, adapter, targets, folder.expert_layouts, whole)
    grown = grow(network, change, rows_of_base(change), reference) if change else None
    if grown:
        _ordered_rows(folder, grown, state)
    adapted = adapt(network, adapter, targets, seed=0, originals=originals)
    model = AdaptedModel(
        network,
        reference,
        config,
        tokenizer,
        adapter,
        adapted,
        grown,
        generation,
        saved_modules=list(folder.saved),
        unties=own_rows,
        head=head,
        processors=processors,
        pairs=pairs,
    )
    of_base = {name: parameter.detach() for name, parameter in head_parameters(network, head).items()}
    load_state(model, of_base | state, folder)
    return model


def load_tensors(folder: AdapterFolder, model: AdaptedModel, targets: Sequence[str]) -> None:
    """Gives an adapter that was put on a model the tensors of a folder.

    What else the model has of its own stays: new rows, and what the folder lacks of a head.

    Args:
        folder: The adapter.
        model: The model that it was put on.
        targets: The layers and stacks of experts that are adapted.

    Raises:
        FolderError: The tensors are damaged.
        ModelError: They do not fit the model.
    """
    tensors = read_state(folder)
    _check_copies(folder, model.network, tensors)
    _saves_one_matrix(folder, model.network, tensors)
    whole = [*whole_parameters(model.network, folder.saved), *folder.head]
    state = state_from_peft(tensors, model.adapter, targets, folder.expert_layouts, whole)
    if folder.rows and model.grown:
        _ordered_rows(folder, model.grown, state)
    own = {**model.row_parameters(), **head_parameters(model.network, model.head)}
    load_state(model, {name: parameter.detach() for name, parameter in own.items()} | state, folder)


def load_state(model: AdaptedModel, state: Mapping[str, torch.Tensor], folder: AdapterFolder) -> None:
    """Gives an adapter the state that an adapter's folder holds.

    Raises:
        ModelError: It does not fit the model.
    """
    try:
        model.load_adapter_state(state)
    except TrainingError as error:
        raise ModelError(error.message, where=error.where or str(folder.path), hint=OTHER_BASE) from None


def _saves_one_matrix(folder: AdapterFolder, network: nn.Module, tensors: Mapping[str, torch.Tensor]) -> bool:
    """Tells whether an adapter holds the same matrix for a model's embedding and its output layer.

    Raises:
        FolderError: It holds two, which PEFT would tie.
    """
    outer = outer_names(network)
    if outer is None or not folder.saved.keys() >= set(outer):
        return False
    same = torch.equal(*(tensors[f"{PREFIX}{name}"] for name in outer))
    if folder.ties_saved and ties_output(network) and not same:
        raise FolderError(
            f"it has another matrix for '{outer[1]}' than for '{outer[0]}', which 'ensure_weight_tying' says are one",
            where=str(folder.path),
            hint=MERGED,
        )
    return same


def _check_copies(folder: AdapterFolder, network: nn.Module, tensors: Mapping[str, torch.Tensor]) -> None:
    """Makes sure that what an adapter's folder has of the base model is what the base model has, rounded or not.

    Raises:
        ModelError: It is something else.
    """
    for name in folder.copies:
        own = network.get_parameter(name.replace(f".{OF_BASE}", ".")).detach().float().cpu()
        copy, near = tensors[f"{PREFIX}{name}"], 1e-6 * own.abs().max().item()
        if own.shape != copy.shape or not torch.allclose(own, copy, rtol=2**-7, atol=near):
            what = f"it holds '{name}', which is not what the base model has"
            raise ModelError(what, where=str(folder.path), hint=OTHER_BASE)


def _ordered_rows(folder: AdapterFolder, grown: GrownVocabulary, state: dict[str, torch.Tensor]) -> None:
    """Brings the rows of a folder's state into the order of a model's ids, each matrix with those of all of them.

    A matrix keeps what the model has at ids of which the folder has no row of it; one that shares the embedding's has
    none of its own.
    """
    own, places = grown.parameters(), {id: place for place, id in enumerate(grown.change.ids)}
    for matrix, parameter in own.items():
        ids = folder.rows.get(matrix.removesuffix(".new_rows"), ())
        rows = parameter.detach().cpu().clone()
        if ids:
            rows[[places[id] for id in ids]] = state[matrix]
        state[matrix] = rows
    for name in folder.rows:
        if f"{name}.new_rows" not in own:
            del state[f"{name}.new_rows"]
