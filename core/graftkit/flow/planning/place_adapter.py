"""Puts an adapter in PEFT's format on a base model that is loaded."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from graftkit.errors import FolderError, ModelError, TrainingError
from graftkit.flow.folders.adapter_folder import NEW_ROWS, OF_BASE, PREFIX, AdapterFolder
from graftkit.interfaces.adapter import Adapter
from graftkit.interfaces.peft_experts import ExpertLayout
from graftkit.interfaces.tokenizer import Tokenizer
from graftkit.interfaces.vocabulary import VocabularyChange
from graftkit.model.adapt import AdaptedModel, adapt
from graftkit.model.grow import GrownVocabulary, grow, rows_of_base
from graftkit.model.head import head_modules, head_parameters, is_of_head
from graftkit.model.load import Loader
from graftkit.model.originals import FileOriginals
from graftkit.model.outer_layers import ties_output, untie, untied
from graftkit.model.parts import tower_tensors
from graftkit.model.peft_targets import peft_targets
from graftkit.model.targets import refusal_of
from graftkit.model.whole import outer_names, put_whole, whole_parameters
from graftkit.store.files import sha256_of

__all__ = [
    "check_head",
    "check_layers",
    "gives_output_own_rows",
    "load_state",
    "load_tensors",
    "place_adapter",
    "read_state",
    "saved_names",
    "state_from_peft",
    "unties_output",
]

_MERGED = "Merge it with peft's merge_and_unload, and give graftkit the merged model."
_OTHER_BASE = "Is this the base model that it was trained on? Name another with --base."


def state_from_peft(
    tensors: Mapping[str, torch.Tensor],
    adapter: Adapter,
    targets: Sequence[str],
    layouts: Mapping[str, ExpertLayout] | None = None,
    whole: Iterable[str] = (),
) -> dict[str, torch.Tensor]:
    """Returns what `AdaptedModel.adapter_state` gives from PEFT's tensors: the adapter's, new rows, whole parameters.

    Args:
        tensors: The tensors of an adapter_model.safetensors.
        adapter: The adapter that has its method.
        targets: The dotted paths of the adapted layers, and of stacks of experts.
        layouts: Where the tensors of each of those stacks lie.
        whole: The names of the whole parameters.

    Raises:
        ModelError: There is no tensor of a layer.
    """
    state = {name: tensors[f"{PREFIX}{name}"] for name in whole}
    layouts, names = layouts or {}, sorted(tensors)
    for layer in dict.fromkeys(target for target in targets if target not in layouts):
        below = [name for name in _below(names, f"{PREFIX}{layer}.") if not name.startswith(OF_BASE)]
        own = {name: tensors[f"{PREFIX}{layer}.{name}"] for name in below}
        if not own:
            raise ModelError(f"it has no tensor of the layer '{layer[:120]}', which its manifest names")
        state |= {f"{layer}.{name}": value for name, value in adapter.from_peft(own).items()}
    for stack, layout in layouts.items():
        try:
            experts = list(layout.split(tensors))
        except (LookupError, ValueError) as error:
            raise ModelError(f"it has no tensors of the experts '{stack[:120]}': {error}") from None
        for expert, own in enumerate(experts):
            state |= {f"{stack}.{expert}.{name}": value for name, value in adapter.from_peft(own).items()}
    for key, value in tensors.items():
        if key.endswith(NEW_ROWS):
            state[f"{key.removeprefix(PREFIX).removesuffix(NEW_ROWS)}.new_rows"] = value
    return state


def saved_names(tensors: Iterable[str], layers: Collection[str], layouts: Mapping[str, ExpertLayout]) -> list[str]:
    """Returns the names of whole parameters among PEFT's names of tensors: what belongs to no layer, and is no new row.

    Args:
        tensors: The names.
        layers: The dotted paths of the adapted layers.
        layouts: Where the tensors of adapted stacks of experts lie.
    """
    held = {name for layout in layouts.values() for name in layout.names}
    names = [name.removeprefix(PREFIX) for name in tensors if name not in held and not name.endswith(NEW_ROWS)]
    adapted = set(layers)
    return [name for name in names if adapted.isdisjoint(accumulate(name.split("."), "{}.{}".format))]


def _below(names: Sequence[str], prefix: str) -> Iterator[str]:
    """Yields what follows a prefix in those of sorted names that begin with it."""
    for place in range(bisect_left(names, prefix), len(names)):
        if not names[place].startswith(prefix):
            break
        yield names[place].removeprefix(prefix)


def check_layers(folder: AdapterFolder, planned: Loader) -> list[str]:
    """Compares the layers of an adapter's tensors with the model's, and with those that PEFT would adapt.

    Args:
        folder: The adapter.
        planned: The base model, without memory for its weights.

    Returns:
        The adapted layers in the model's order, stacks of experts last.

    Raises:
        ModelError: The model lacks a layer or a whole parameter, or has one of that name that can't be adapted.
        FolderError: adapter_config.json names layers of which there is no tensor, or not all of which there are.
    """
    folder = folder.knowing_head(lambda name: is_of_head(name, planned.head))
    where, held = str(folder.path), set(folder.layers)
    linear = [layer.path for layer in planned.layers]
    outer = [layer.path for layer in planned.outer]
    known = [*linear, *outer]
    unknown = sorted(held - set(known))
    if unknown:
        there = unknown[0] in {name for name, _ in planned.skeleton.named_modules()}
        what = (
            "which is no linear layer inside the blocks, the embedding or the output layer: graftkit adapts no other"
            if there
            else "which the model lacks"
        )
        hint = _MERGED if there else _OTHER_BASE
        raise ModelError(f"the adapter has tensors for '{unknown[0]}', {what}", where=where, hint=hint)
    for layer in (*planned.layers, *planned.outer):
        reason = refusal_of(folder.config, layer) if layer.path in held else None
        if reason:
            what = f"the adapter has tensors for '{layer.path}', on which it can't go here: {reason}"
            raise ModelError(what, where=where, hint=_MERGED)
    on_outer = [path for path in outer if path in held]
    if on_outer:
        _check_outer(folder, on_outer, planned)
    _check_saved(folder, planned)
    _check_rows(folder, planned)
    stacks = folder.expert_layouts
    try:
        meant = peft_targets(folder.fields, linear, outer)
    except ValueError as error:
        raise FolderError(str(error), where=where) from None
    if meant != held:
        missing, left_over = sorted(meant - held), sorted(held - meant)
        what = f"{len(missing)} layers without tensors" if missing else f"no {len(left_over)} layers that have tensors"
        raise FolderError(
            f"its adapter_config.json names {what}, such as {(missing or left_over)[0]}",
            where=where,
            hint=f"The files do not belong together, or {_OTHER_BASE[0].lower()}{_OTHER_BASE[1:]}",
        )
    return [layer for layer in (*known, *stacks) if layer in held or layer in stacks]


def check_head(folder: AdapterFolder, planned: Loader) -> None:
    """Refuses an adapter for a head of which neither it nor the base model has all tensors: they would be random.

    Raises:
        ModelError: There is such a tensor.
    """
    lacking = sorted(set(planned.new) - folder.saved.keys())
    if lacking:
        what = f"neither the adapter nor the base model has '{lacking[0]}' of the head, which it was trained with"
        raise ModelError(what, where=str(folder.path), hint=_OTHER_BASE)


def _check_outer(folder: AdapterFolder, paths: Sequence[str], planned: Loader) -> None:
    """Refuses what an adapter on the embedding or the output layer has besides that graftkit does not compute.

    Raises:
        ModelError: It has rows of new tokens as well, or ties the adapters of the two layers.
    """
    what = ""
    if folder.rows:
        what = f"rows of new tokens, and tensors for '{paths[0]}', which has such rows: graftkit takes one"
    elif folder.fields.get("ensure_weight_tying") and ties_output(planned.skeleton):
        what = f"one update for embedding and output layer ('ensure_weight_tying'), '{paths[0]}': graftkit has two"
    if what:
        raise ModelError(f"the adapter has {what}", where=str(folder.path), hint=_MERGED)


def _check_rows(folder: AdapterFolder, planned: Loader) -> None:
    """Refuses trained rows of what is no matrix of the vocabulary, or too few of one that lacks these ids.

    Raises:
        ModelError: There are such.
        FolderError: As for `gives_output_own_rows`.
    """
    if not folder.rows:
        return
    where, outer = str(folder.path), outer_names(planned.skeleton)
    paths = [name.removesuffix(".weight") for name in outer or ()]
    odd = sorted(folder.rows.keys() - {*paths})
    if odd:
        what = f"'{odd[0][:120]}', which is neither its embedding nor its output layer"
        raise ModelError(f"the adapter has trained rows of {what}", where=where, hint=_OTHER_BASE)
    both = sorted({f"{path}.weight" for path in paths} & folder.saved.keys())
    if both:
        what = f"trained rows, and '{both[0]}' as a whole: graftkit takes one"
        raise ModelError(f"the adapter has {what}", where=where, hint=_MERGED)
    there = planned.skeleton.get_input_embeddings().num_embeddings
    new = {id for ids in folder.rows.values() for id in ids if id >= there}
    shared = ties_output(planned.skeleton) and not gives_output_own_rows(folder, planned.skeleton)
    for path in paths[: 1 if shared else 2]:
        if lacking := sorted(new.difference(folder.rows.get(path, ()))):
            raise ModelError(
                f"the adapter has rows for {len(new)} tokens, but none for '{path}' at {lacking[0]:,}",
                where=where,
                hint=_OTHER_BASE,
            )


def _check_saved(folder: AdapterFolder, planned: Loader) -> None:
    """Refuses whole parameters that the model lacks, has in another shape, or keeps frozen.

    Raises:
        ModelError: There is such a one.
    """
    where = str(folder.path)
    frozen = [*(layer.path for layer in planned.layers), *(stack.path for stack in planned.stacks)]
    adapted = [layer.path for layer in planned.outer if layer.path in folder.layers]
    towers = tower_tensors(planned.skeleton)
    shapes = {name: tuple(p.shape) for name, p in planned.skeleton.named_parameters(remove_duplicate=False)}
    for name, shape in folder.head.items():
        if shape != shapes.get(name):
            raise ModelError(
                f"its head has '{name}' as {list(shape)}, this run's has {list(shapes.get(name, ()))}: it is one for "
                "another number of labels, or of another base model",
                where=where,
                hint="Go on with records of the labels that it was trained on, or train a new adapter.",
            )
    for name, shape in folder.saved.items():
        what, hint = "", _MERGED
        if any(name == path or name.startswith(f"{path}.") for path in frozen):
            what = "a linear layer inside the blocks, which graftkit keeps frozen"
        elif any(name.startswith(f"{path}.") for path in adapted):
            what = "which the adapter adapts as well"
        elif name in towers:
            what = "a part of the model that no text runs through"
        elif name not in shapes:
            what, hint = "no parameter of the model", _OTHER_BASE
        if what:
            raise ModelError(f"'modules_to_save' holds '{name}', {what}", where=where, hint=hint)
        if shape != shapes[name]:
            raise ModelError(
                f"'modules_to_save' holds '{name}' as {list(shape)}, the base model has {list(shapes[name])}",
                where=where,
                hint=f"{_OTHER_BASE} If its vocabulary was enlarged, give the enlarged base.",
            )


def gives_output_own_rows(folder: AdapterFolder, model: Any) -> bool:
    """Tells whether an adapter's rows untie a model's output layer from its embedding, as PEFT does.

    PEFT lets both share the rows where `trainable_token_indices` names the embedding alone, or the same list of ids for
    both (`set_additional_trainable_tokens` in its utils/other.py); else each has its own.

    Args:
        folder: The adapter.
        model: The base model; its weights may be on the meta device.

    Raises:
        FolderError: The lists are the same, and the rows are not: PEFT would use the embedding's and drop the others.
    """
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    if head is None or head.weight is not embedding.weight:
        return False
    names = {id(module): path for path, module in model.named_modules()}
    of_embedding, of_output = names[id(embedding)], names[id(head)]
    if of_output not in folder.rows or folder.rows.get(of_embedding) != folder.rows[of_output]:
        return of_output in folder.rows
    state = read_state(folder)
    if not torch.equal(*(state[f"{PREFIX}{matrix}{NEW_ROWS}"] for matrix in (of_embedding, of_output))):
        raise FolderError(
            f"it has other rows for '{of_output}' than for '{of_embedding}', which the base model ties, under the same "
            "ids: PEFT ties such rows, and drops the output layer's",
            where=str(folder.path),
            hint="Train it on a base whose config.json says tie_word_embeddings: false, or with one of them alone.",
        )
    return False


def unties_output(folder: AdapterFolder, planned: Loader) -> bool:
    """Tells whether an adapter makes an output layer another matrix than the embedding, to which the model ties it.

    Args:
        folder: The adapter.
        planned: The base model, without memory for its weights.

    Raises:
        FolderError: As for `gives_output_own_rows`.
    """
    adapted = any(layer.path in folder.layers for layer in planned.outer)
    return (adapted and ties_output(planned.skeleton)) or gives_output_own_rows(folder, planned.skeleton)


def read_state(folder: AdapterFolder) -> dict[str, torch.Tensor]:
    """Reads an adapter's tensors, float32 on the CPU.

    Raises:
        FolderError: They are damaged, or others than those that were there when the folder was read.
    """
    from safetensors.torch import load_file

    try:
        if sha256_of(folder.tensors) != folder.files[folder.tensors.name]:
            what = "the file has changed since it was checked"
            raise FolderError(what, where=str(folder.tensors), hint="Start again.")
        tensors: dict[str, torch.Tensor] = load_file(folder.tensors)
    except (OSError, ValueError, SafetensorError) as error:
        raise FolderError(f"it is damaged: {error}", where=str(folder.tensors)) from None
    for name, tensor in tensors.items():
        if not tensor.is_floating_point() or not torch.isfinite(tensor.float()).all():
            what = (
                "numbers that are not finite" if tensor.is_floating_point() else f"numbers of the type {tensor.dtype}"
            )
            raise FolderError(f"its tensor '{name[:120]}' has {what}", where=str(folder.tensors))
    return {name: tensor.float() for name, tensor in tensors.items()}


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
    )
    of_base = {name: parameter.detach() for name, parameter in head_parameters(network, head).items()}
    load_state(model, of_base | state, folder)
    return model


def load_state(model: AdaptedModel, state: Mapping[str, torch.Tensor], folder: AdapterFolder) -> None:
    """Gives an adapter the state that an adapter's folder holds.

    Raises:
        ModelError: It does not fit the model.
    """
    try:
        model.load_adapter_state(state)
    except TrainingError as error:
        raise ModelError(error.message, where=error.where or str(folder.path), hint=_OTHER_BASE) from None


def load_tensors(folder: AdapterFolder, model: AdaptedModel, targets: Sequence[str]) -> None:
    """Gives an adapter that was put on a model the tensors of a folder.

    What else the model has of its own stays: new rows, and what the folder lacks of a head.

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
            hint=_MERGED,
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
            raise ModelError(what, where=str(folder.path), hint=_OTHER_BASE)


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
