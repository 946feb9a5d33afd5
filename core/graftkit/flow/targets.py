"""Which layers are adapted and how, and whether the weights are the architecture's, as far as the model can say."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from graftkit.errors import TargetError
from graftkit.interfaces.layer import LayerInfo
from graftkit.interfaces.model_source import BaseModelFiles
from graftkit.model.targets import match_targets
from graftkit.recipe.bind import BoundRecipe
from graftkit.suggest import nearest

if TYPE_CHECKING:
    from graftkit.flow.context import RunContext

__all__ = ["certain_targets", "chosen_targets", "forecast", "settle_targets"]

_ITEMSIZE = {"float32": 4, "bfloat16": 2}
"""Bytes of a number, by the dtype of the computation."""


def chosen_targets(bound: BoundRecipe, layers: Sequence[str]) -> list[str]:
    """Returns the layers that a recipe's adapter goes on, of those that there are.

    Raises:
        TargetError: A target matches no layer, or a pattern of the adapter's own holds for none of those it goes on.
    """
    where = bound.document.where
    targets = match_targets(bound.recipe.adapter.targets, layers, where(("adapter", "targets")))
    for field, pattern in bound.adapter.config.idle_patterns(targets):
        names = sorted({path.rpartition(".")[2] for path in targets})
        raise TargetError(
            f"the pattern '{pattern}' of adapter.{field} holds for no layer that is adapted",
            where=where(("adapter", field, pattern)),
            hint=f"{nearest(pattern, names)}The adapted layers end in: {', '.join(names)}. "
            "Of several patterns that match, the first holds.",
        )
    return targets


def certain_targets(bound: BoundRecipe, files: BaseModelFiles) -> list[str]:
    """Returns the layers that the patterns name among those of the model, built without memory for its weights.

    Raises:
        ModelError: The weights are not those of an architecture that can be loaded.
        TargetError: A target or a pattern of the adapter's own matches no layer.
    """
    from graftkit.model.load import check_base_model

    return chosen_targets(bound, [layer.path for layer in check_base_model(files)])


def forecast(bound: BoundRecipe, layers: Sequence[LayerInfo], targets: Sequence[str]) -> dict[str, int | None]:
    """Returns what a run will train and store, as the adapter's and the quantizer's own fields say it.

    Args:
        bound: The recipe.
        layers: The linear layers inside the blocks, all of which are frozen.
        targets: The dotted path of those that are adapted.

    Returns:
        The numbers that the adapter trains, new rows of the embeddings not among them, and the bytes of the frozen
        layers; None where one of them does not tell.
    """
    chosen, itemsize = set(targets), _ITEMSIZE[bound.recipe.training.dtype]
    adapter, quantizer = bound.adapter.config, bound.quantizer.config
    return {
        "adapter_parameters": _sum(adapter.trainable_parameters(layer) for layer in layers if layer.path in chosen),
        "frozen_linear_bytes": _sum(quantizer.stored_bytes(layer, itemsize) for layer in layers),
    }


def _sum(counts: Iterable[int | None]) -> int | None:
    known: list[int] = []
    for count in counts:
        if count is None:
            return None
        known.append(count)
    return sum(known)


def settle_targets(run: RunContext) -> None:
    """Puts the layers of the model itself in the place of what the file's names said, before rows are encoded.

    The manifest keeps what they are forecast to take.

    Raises:
        ModelError: The weights are not those of an architecture that can be loaded.
        TargetError: A target or a pattern of the adapter's own matches no layer of the model.
    """
    from graftkit.model.load import check_base_model

    bound, layers = run.request.bound, check_base_model(run.request.files)
    targets = chosen_targets(bound, [layer.path for layer in layers])
    run.request = replace(run.request, targets=targets)
    run.facts["forecast"] = forecast(bound, layers, targets)
