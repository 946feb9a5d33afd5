"""Compares an adapter in PEFT's format with the base model that it goes on, before a weight is loaded."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import torch

from graftkit.errors import FolderError, ModelError
from graftkit.flow.folders.adapter_folder import NEW_ROWS, PREFIX, AdapterFolder
from graftkit.flow.folders.adapter_state import read_state
from graftkit.model.head import is_of_head
from graftkit.model.model_plan import ModelPlan
from graftkit.model.outer_layers import ties_output
from graftkit.model.parts import tower_tensors
from graftkit.model.peft_targets import peft_targets
from graftkit.model.targets import refusal_of
from graftkit.model.whole import outer_names

__all__ = [
    "MERGED",
    "OTHER_BASE",
    "check_head",
    "check_layers",
    "gives_output_own_rows",
    "unties_output",
    "whole_refusal",
]

MERGED = "Merge it with peft's merge_and_unload, and give graftkit the merged model."
"""What to do about an adapter that goes on no model here."""

OTHER_BASE = "Is this the base model that it was trained on? Name another with --base."
"""What to ask oneself about an adapter that does not fit its base model."""

_OLD_NAMES = (
    "If it was saved with an earlier transformers, whose layers had other names, load it with peft and save it."
)
"""What to do about an adapter of a multimodal model from before transformers 4.52."""


def check_layers(folder: AdapterFolder, planned: ModelPlan) -> list[str]:
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
        hint = MERGED if there else f"{OTHER_BASE} {_OLD_NAMES}"
        raise ModelError(f"the adapter has tensors for '{unknown[0]}', {what}", where=where, hint=hint)
    for layer in (*planned.layers, *planned.outer):
        reason = refusal_of(folder.config, layer) if layer.path in held else None
        if reason:
            what = f"the adapter has tensors for '{layer.path}', on which it can't go here: {reason}"
            raise ModelError(what, where=where, hint=MERGED)
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
            hint=f"The files do not belong together, or {OTHER_BASE[0].lower()}{OTHER_BASE[1:]}",
        )
    return [layer for layer in (*known, *stacks) if layer in held or layer in stacks]


def _check_outer(folder: AdapterFolder, paths: Sequence[str], planned: ModelPlan) -> None:
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
        raise ModelError(f"the adapter has {what}", where=str(folder.path), hint=MERGED)


def _check_saved(folder: AdapterFolder, planned: ModelPlan) -> None:
    """Refuses whole parameters that the model lacks, has in another shape, or keeps frozen.

    Raises:
        ModelError: There is such a one.
    """
    where = str(folder.path)
    refusal = whole_refusal(planned, folder.layers)
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
        what, hint = refusal(name), MERGED
        if not what and name not in shapes:
            what, hint = "no parameter of the model", OTHER_BASE
        if what:
            raise ModelError(f"'modules_to_save' holds '{name}', {what}", where=where, hint=hint)
        if shape != shapes[name]:
            raise ModelError(
                f"'modules_to_save' holds '{name}' as {list(shape)}, the base model has {list(shapes[name])}",
                where=where,
                hint=f"{OTHER_BASE} If its vocabulary was enlarged, give the enlarged base.",
            )


def whole_refusal(planned: ModelPlan, adapted: Collection[str]) -> Callable[[str], str]:
    """Returns what says of a parameter why it can't be trained as a whole; "" where it can.

    Args:
        planned: The model.
        adapted: The dotted paths of the layers that are adapted.
    """
    frozen = [*(layer.path for layer in planned.layers), *(stack.path for stack in planned.stacks)]
    outer = [layer.path for layer in planned.outer if layer.path in adapted]
    towers = tower_tensors(planned.skeleton)

    def refusal(name: str) -> str:
        if any(name == path or name.startswith(f"{path}.") for path in frozen):
            return "a linear layer inside the blocks, which graftkit keeps frozen"
        if any(name.startswith(f"{path}.") for path in outer):
            return "which the adapter adapts as well"
        return "a part of the model that no text runs through" if name in towers else ""

    return refusal


def _check_rows(folder: AdapterFolder, planned: ModelPlan) -> None:
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
        raise ModelError(f"the adapter has trained rows of {what}", where=where, hint=OTHER_BASE)
    both = sorted({f"{path}.weight" for path in paths} & folder.saved.keys())
    if both:
        what = f"trained rows, and '{both[0]}' as a whole: graftkit takes one"
        raise ModelError(f"the adapter has {what}", where=where, hint=MERGED)
    there = planned.skeleton.get_input_embeddings().num_embeddings
    new = {id for ids in folder.rows.values() for id in ids if id >= there}
    shared = ties_output(planned.skeleton) and not gives_output_own_rows(folder, planned.skeleton)
    for path in paths[: 1 if shared else 2]:
        if lacking := sorted(new.difference(folder.rows.get(path, ()))):
            raise ModelError(
                f"the adapter has rows for {len(new)} tokens, but none for '{path}' at {lacking[0]:,}",
                where=where,
                hint=OTHER_BASE,
            )


def check_head(folder: AdapterFolder, planned: ModelPlan) -> None:
    """Refuses an adapter for a head of which neither it nor the base model has all tensors: they would be random.

    Raises:
        ModelError: There is such a tensor.
    """
    lacking = sorted(set(planned.new) - folder.saved.keys())
    if lacking:
        what = f"neither the adapter nor the base model has '{lacking[0]}' of the head, which it was trained with"
        raise ModelError(what, where=str(folder.path), hint=OTHER_BASE)


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


def unties_output(folder: AdapterFolder, planned: ModelPlan) -> bool:
    """Tells whether an adapter makes an output layer another matrix than the embedding, to which the model ties it.

    Args:
        folder: The adapter.
        planned: The base model, without memory for its weights.

    Raises:
        FolderError: As for `gives_output_own_rows`.
    """
    adapted = any(layer.path in folder.layers for layer in planned.outer)
    return (adapted and ties_output(planned.skeleton)) or gives_output_own_rows(folder, planned.skeleton)
