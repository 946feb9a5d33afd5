"""Which layers are adapted and how, and whether the weights are the architecture's, as far as the model can say."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from math import prod
from typing import TYPE_CHECKING

from graftkit.errors import RecipeError, TargetError
from graftkit.flow.planning.continued_adapter import check_targets
from graftkit.flow.planning.named_fields import listed_labels
from graftkit.flow.planning.run_plan import WholeModules
from graftkit.flow.planning.whole_modules import named_wholes
from graftkit.interfaces.layer import LayerInfo
from graftkit.interfaces.model_source import BaseModelFiles
from graftkit.model.targets import match_targets, refusal_of
from graftkit.recipe.bind import BoundRecipe
from graftkit.suggest import nearest

if TYPE_CHECKING:
    from graftkit.flow.folders.adapter_folder import AdapterFolder
    from graftkit.flow.planning.run_plan import RunPlan
    from graftkit.interfaces.vocabulary import VocabularyChange
    from graftkit.model.experts import StackInfo
    from graftkit.model.model_plan import ModelPlan

__all__ = ["certain_targets", "chosen_targets", "forecast", "settle_targets"]

_ITEMSIZE = {"float32": 4, "bfloat16": 2, "auto": 4}
"""Bytes of a number, by the dtype of the computation; at most, until that is settled."""


def chosen_targets(
    bound: BoundRecipe, layers: Sequence[LayerInfo], stacks: Sequence[StackInfo] = (), outer: Sequence[LayerInfo] = ()
) -> list[str]:
    """Returns the layers that a recipe's adapter goes on, of those that there are; stacks of experts come last.

    Args:
        bound: The recipe.
        layers: The linear layers inside the blocks.
        stacks: The stacks of experts.
        outer: The embedding and the output layer, where they can be adapted.

    Raises:
        TargetError: A target matches no layer, or none that the adapter can go on, or a pattern of the adapter's own
            holds for none of those it goes on.
    """
    where, config = bound.document.where, bound.adapter.config
    first = {layer.path: layer for layer in (*layers, *outer)} | {stack.path: stack.layers()[0] for stack in stacks}
    refused = {path: reason for path, layer in first.items() if (reason := refusal_of(config, layer))}
    paths, experts = [layer.path for layer in layers], [stack.path for stack in stacks]
    chosen: set[str] = set()
    for target in bound.recipe.adapter.targets:
        named = match_targets(
            [target], paths, where(("adapter", "targets")), experts=experts, outer=[layer.path for layer in outer]
        )
        possible = [path for path in named if path not in refused]
        if not possible:
            raise TargetError(
                f"the adapter '{bound.adapter.use}' can go on no layer that the target '{target}' names: "
                f"{named[0]} is refused since {refused[named[0]]}",
                where=where(("adapter", "targets")),
                hint=_possible(first.keys() - refused.keys()),
            )
        chosen.update(possible)
    targets = [path for path in first if path in chosen]
    for field, pattern in config.idle_patterns(targets):
        names = sorted({path.rpartition(".")[2] for path in targets})
        raise TargetError(
            f"the pattern '{pattern}' of adapter.{field} holds for no layer that is adapted",
            where=where(("adapter", field, pattern)),
            hint=f"{nearest(pattern, names)}The adapted layers end in: {', '.join(names)}. "
            "Of several patterns that match, the first holds.",
        )
    return targets


def _possible(paths: Iterable[str]) -> str:
    names = sorted({path.rpartition(".")[2] for path in paths})
    return f"It can go on layers that end in: {', '.join(names)}." if names else "Take another adapter: lora."


def certain_targets(bound: BoundRecipe, files: BaseModelFiles) -> list[str]:
    """Returns the layers that the patterns name among those of the model, built without memory for its weights.

    Stacks of experts come last.

    Raises:
        ModelError: The weights are not those of an architecture that can be loaded.
        TargetError: A target or a pattern of the adapter's own matches no layer.
    """
    from graftkit.model.model_plan import plan_base_model

    return _matched(bound, plan_base_model(files))


def forecast(
    bound: BoundRecipe,
    layers: Sequence[LayerInfo],
    targets: Sequence[str],
    stacks: Sequence[StackInfo] = (),
    outer: Sequence[LayerInfo] = (),
) -> dict[str, int | None]:
    """Returns what a run will train and store, as the adapter's and the quantizer's own fields say it.

    Args:
        bound: The recipe.
        layers: The linear layers inside the blocks, all of which are frozen.
        targets: The dotted path of those that are adapted, and of the stacks of experts that are.
        stacks: The stacks of experts, all of which are frozen.
        outer: The embedding and the output layer, which are not quantized.

    Returns:
        The numbers that the adapter trains, new rows of the embeddings not among them, and the bytes of the frozen
        layers inside the blocks; None where one of them does not tell.
    """
    chosen, itemsize = set(targets), _ITEMSIZE[bound.recipe.training.dtype]
    adapter, quantizer = bound.adapter.config, bound.quantizer.config
    frozen = {layer: layer.path for layer in layers} | {e: stack.path for stack in stacks for e in stack.layers()}
    owners = frozen | {layer: layer.path for layer in outer}
    return {
        "adapter_parameters": _sum(adapter.trainable_parameters(e) for e, path in owners.items() if path in chosen),
        "frozen_linear_bytes": _sum(quantizer.stored_bytes(layer, itemsize) for layer in frozen),
    }


def _sum(counts: Iterable[int | None]) -> int | None:
    known: list[int] = []
    for count in counts:
        if count is None:
            return None
        known.append(count)
    return sum(known)


def settle_targets(plan: RunPlan, change: VocabularyChange | None) -> RunPlan:
    """Returns the plan with the layers of the model itself in the place of what the file's names said.

    Args:
        plan: The plan.
        change: What becomes of the rows of the embeddings, or None where the vocabulary stays.

    Raises:
        ModelError: The weights are not those of an architecture that can be loaded, or its vocabulary can't be changed
            as the recipe asks.
        TargetError: A target or a pattern of the adapter's own matches no layer of the model.
    """
    from graftkit.flow.planning.check_adapter import gives_output_own_rows
    from graftkit.model.grow import check_growable
    from graftkit.model.head import is_of_head
    from graftkit.model.model_plan import plan_base_model
    from graftkit.model.outer_layers import ties_output
    from graftkit.model.whole import outer_names

    bound, planned = plan.bound, plan_base_model(plan.files)
    if plan.origin and planned.head:
        plan = replace(plan, origin=plan.origin.knowing_head(lambda name: is_of_head(name, planned.head)))
    if change:
        check_growable(planned.skeleton, plan.files.reference)
    targets = _matched(bound, planned)
    check_targets(plan, targets, planned)
    origin = plan.origin
    whole = WholeModules(origin.saved, origin.ties_saved) if origin else named_wholes(bound, planned, targets)
    _refuse_changed_rows(plan, {*(outer_names(planned.skeleton) or ())} & whole.shapes.keys())
    outer = [layer.path for layer in planned.outer if layer.path in targets]
    if change and outer:
        raise TargetError(
            f"the vocabulary changes, and with it the rows of '{outer[0]}', which can't be adapted then",
            where=bound.document.where(("adapter", "targets")),
            hint="Leave it out of adapter.targets: the rows of new tokens are trained as a whole.",
        )
    own_rows = plan.origin is not None and gives_output_own_rows(plan.origin, planned.skeleton)
    stacks = {stack.path for stack in planned.stacks}
    dense = ["the experts of this architecture can't be quantized: they stay dense and frozen"]
    return replace(
        plan,
        targets=targets,
        expert_targets=[t for t in targets if t in stacks],
        unties=own_rows or (bool(outer) and ties_output(planned.skeleton)),
        whole=whole,
        forecast=_with_wholes(whole, planned, forecast(bound, planned.layers, targets, planned.stacks, planned.outer)),
        notices=[
            *plan.notices,
            *(dense if planned.dense_experts else []),
            *_of_head(planned, plan.origin),
            *_order_of_scores(plan),
        ],
    )


def _refuse_changed_rows(plan: RunPlan, matrices: Collection[str]) -> None:
    """Refuses another vocabulary where embedding or output layer are trained as wholes.

    Raises:
        RecipeError: The recipe asks for one.
    """
    if not matrices or not plan.vocabulary or not plan.vocabulary.section:
        return
    hint = "Leave it out of adapter.modules_to_save: the rows of new tokens are trained anyway."
    if plan.origin:
        hint = "Export the adapter first (toolkit export ADAPTER --to merged), and change that model's vocabulary."
    raise RecipeError(
        f"tokenizer: the vocabulary changes, and with it the rows of '{min(matrices)}', which is trained as a whole",
        where=plan.bound.document.where(("tokenizer",)),
        hint=hint,
    )


def _with_wholes(whole: WholeModules, planned: ModelPlan, forecast: dict[str, int | None]) -> dict[str, int | None]:
    """Counts whole modules among what an adapter trains."""
    from graftkit.model.whole import whole_parameters

    known, shapes = forecast["adapter_parameters"], whole.shapes
    if not shapes or known is None:
        return forecast
    trained = whole_parameters(planned.skeleton, shapes) if whole.tied else shapes
    return {**forecast, "adapter_parameters": known + sum(prod(shapes[name]) for name in trained)}


def _of_head(planned: ModelPlan, origin: AdapterFolder | None) -> Iterator[str]:
    """Says what becomes of the base model's own head where the run has another, or its adapter brings one."""
    if planned.unused:
        some = f"{len(planned.unused):,} of the base model's tensors, such as '{planned.unused[0]}'"
        yield f"{some}, belong to a head that is not trained here, and are not used"
    brought = origin.head if origin else {}
    if brought:
        yield f"training goes on with the adapter's own head: {', '.join(brought)}"
    if lacking := [name for name in planned.new if name not in brought]:
        yield f"the base model has no {', '.join(lacking)}: the head starts anew"


def _order_of_scores(plan: RunPlan) -> Iterator[str]:
    """Says which label each score of an adapter's head is taken to be of, where only its maker knows."""
    labels = plan.head.labels if plan.head else []
    if not plan.origin or not plan.origin.head or plan.origin.manifest or not labels:
        return
    if not getattr(plan.bound.objective_config, "labels", None):
        yield (
            "the adapter does not say which label each of its scores is of: they are taken to be of "
            f"{listed_labels(labels)}, in this order; objective.labels says otherwise"
        )


def _matched(bound: BoundRecipe, planned: ModelPlan) -> list[str]:
    return chosen_targets(bound, planned.layers, planned.stacks, planned.outer)
