"""How several processes hold the frozen weights: each all of them, or each a part."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from graftkit.errors import ProcessError, RecipeError
from graftkit.flow.memory.parallel import choose_way, kept_for_good, sharers_of
from graftkit.flow.planning.sampled import refuse_sampling_of_parts
from graftkit.flow.state.context import RunContext
from graftkit.interfaces.layer import LayerInfo

if TYPE_CHECKING:
    from graftkit.training.sharing import SharingGroup, SharingProcesses

__all__ = ["share_weights", "sharing_of"]

_LARGE = LayerInfo("", "linear", 10**6, 10**6)


def share_weights(run: RunContext) -> None:
    """Has the processes keep the frozen weights among them from here on, where that is how they are held.

    Every process calls it at the same place of its flow.

    Raises:
        RecipeError: The recipe's adapter trains whole weights, of which every process needs all, or its objective
            samples answers.
        ProcessError: The processes come to different ways, or machines have different numbers of them.
    """
    if run.processes.count == 1:
        return
    way, reason = _way(run)
    here = run.processes.here
    (first, those), *others = run.processes.gather([way, here])
    for rank, (other, these) in enumerate(others, 1):
        if other != first or (other == "hybrid" and these != those):
            raise ProcessError(
                f"the process of rank {rank} (of {len(others) + 1}) holds frozen weights otherwise than rank 0's: "
                f"{other}, with {these} processes on its machine; there it is {first}, with {those}",
                hint="Say training.parallel in the recipe, and start as many processes on every machine.",
            )
    if way == "data":
        return
    _refuse_whole(run)
    refuse_sampling_of_parts(run.plan.bound, way)
    sharers = sharers_of(way, here, run.processes.count)
    if sharers == 1:
        return

    from graftkit.training.sharing import SharingProcesses

    run.processes = SharingProcesses(cast("SharingGroup", run.processes), sharers)
    run.notice("plan", f"the frozen weights are shared by {sharers} processes{reason}: each keeps a part")


def sharing_of(run: RunContext) -> SharingProcesses | None:
    """Returns the processes where they keep the frozen weights among them."""
    from graftkit.training.sharing import SharingProcesses

    return run.processes if isinstance(run.processes, SharingProcesses) else None


def _way(run: RunContext) -> tuple[str, str]:
    """Returns how frozen weights are held, and why where the recipe does not say."""
    options = run.plan.bound.recipe.training
    if options.parallel != "auto":
        return options.parallel, ""

    import torch

    from graftkit.flow.preparation.check_model import pick_device

    device, forecast = pick_device(options.device), run.plan.forecast
    frozen, trained = forecast["frozen_linear_bytes"], forecast["adapter_parameters"]
    if device.type != "cuda" or frozen is None or trained is None:
        return "data", ""
    room, kept = torch.cuda.get_device_properties(device).total_memory, kept_for_good(frozen, trained, 1)
    way = choose_way(frozen, trained, room, run.processes.here, run.processes.count)
    if way == "data":
        return way, ""
    return way, f", since they and what is trained take {kept / 1e9:,.1f} GB and the device has {room / 1e9:,.1f}"


def _refuse_whole(run: RunContext) -> None:
    bound = run.plan.bound
    trained = bound.adapter.config.trainable_parameters(_LARGE)
    if trained is not None and trained >= _LARGE.out_features * _LARGE.in_features:
        raise RecipeError(
            f"training.parallel is {bound.recipe.training.parallel}, but adapter {bound.recipe.adapter.use} trains "
            "whole weights, of which every process needs all",
            where=bound.document.where(("training", "parallel")),
            hint="Say parallel: data, or take another adapter, such as lora.",
        )
