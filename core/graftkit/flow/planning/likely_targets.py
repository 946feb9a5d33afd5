"""Which layers are adapted, and what that takes, as far as the names and shapes of a file's tensors say."""

from __future__ import annotations

from collections.abc import Mapping

from graftkit.errors import TargetError
from graftkit.flow.planning.targets import certain_targets, chosen_targets, forecast
from graftkit.interfaces.architecture import is_multimodal
from graftkit.interfaces.layer import LayerInfo
from graftkit.interfaces.model_source import BaseModelFiles
from graftkit.model.targets import likely_embedding, likely_layers, likely_output, names_are_certain
from graftkit.recipe.bind import BoundRecipe

__all__ = ["likely_forecast", "likely_targets"]


def likely_targets(bound: BoundRecipe, files: BaseModelFiles) -> list[str]:
    """Returns the layers that the patterns name among the file's tensors.

    Args:
        bound: The recipe.
        files: The base model.

    Raises:
        TargetError: A pattern matches no layer, and the file's names are those of the model.
    """
    if is_multimodal(files.config):  # names don't tell a tower's layers from the language model's
        return certain_targets(bound, files)
    try:
        return chosen_targets(bound, _likely_infos(files), outer=_likely_outer(files))
    except TargetError:
        if names_are_certain(files.tensors):
            raise
        return certain_targets(bound, files)


def likely_forecast(
    bound: BoundRecipe, files: BaseModelFiles, targets: list[str], *, wholes: bool
) -> Mapping[str, int | None]:
    """Returns what the file's names and shapes say; nothing where the layers have other names than its tensors.

    Which parameters whole modules have, where there are any, the model itself says.

    Args:
        bound: The recipe.
        files: The base model.
        targets: The layers that are adapted.
        wholes: Whether there are any such modules.
    """
    if not names_are_certain(files.tensors):
        return {"adapter_parameters": None, "frozen_linear_bytes": None}
    found = forecast(bound, _likely_infos(files), targets, outer=_likely_outer(files))
    return {**found, "adapter_parameters": None} if wholes else found


def _likely_outer(files: BaseModelFiles) -> list[LayerInfo]:
    """Returns what the file's names and shapes say of its embedding and its output layer."""
    embedding, output = likely_embedding(files.tensors), likely_output(files.tensors)
    found = [LayerInfo(embedding[0], "embedding", embedding[1][1], embedding[1][0])] if embedding else []
    if output:
        found.append(LayerInfo(output[0], "linear", *output[1], f"{output[0]}.bias" in files.tensors))
    return found


def _likely_infos(files: BaseModelFiles) -> list[LayerInfo]:
    """Returns what the file's names and shapes say of its linear layers."""
    return [
        LayerInfo(path, "linear", *shape, f"{path}.bias" in files.tensors, files.tensors[f"{path}.weight"].given_bytes)
        for path, shape in likely_layers(files.tensors).items()
    ]
