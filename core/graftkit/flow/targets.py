"""Which layers are adapted, and whether the weights are the architecture's: what only the model itself can say."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from graftkit.interfaces.model_source import BaseModelFiles
from graftkit.model.targets import match_targets
from graftkit.recipe.bind import BoundRecipe

if TYPE_CHECKING:
    from graftkit.flow.context import RunContext

__all__ = ["certain_targets", "settle_targets"]


def certain_targets(bound: BoundRecipe, files: BaseModelFiles) -> list[str]:
    """Returns the layers that the patterns name among those of the model, built without memory for its weights.

    Raises:
        ModelError: The weights are not those of an architecture that can be loaded.
        TargetError: A pattern matches no layer.
    """
    from graftkit.model.load import check_base_model

    layers = [layer.path for layer in check_base_model(files)]
    return match_targets(bound.recipe.adapter.targets, layers, bound.document.where(("adapter", "targets")))


def settle_targets(run: RunContext) -> None:
    """Puts the layers of the model itself in the place of what the file's names said, before rows are encoded.

    Raises:
        ModelError: The weights are not those of an architecture that can be loaded.
        TargetError: A pattern matches no layer of the model.
    """
    run.request = replace(run.request, targets=certain_targets(run.request.bound, run.request.files))
