"""The plan of a run, which may go on with one that is in its folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from graftkit.flow.device import refuse_device
from graftkit.flow.planning.earlier_run import NO_RUN, EarlierRun
from graftkit.flow.planning.plan import make_plan
from graftkit.flow.planning.run_plan import RunPlan
from graftkit.flow.state.first_manifest import third_parties
from graftkit.host.guard import listed
from graftkit.host.host import PluginHost
from graftkit.host.process_state import ProcessState
from graftkit.recipe.load import LoadedRecipe

__all__ = ["plan_of_run", "settings_kept"]


def plan_of_run(loaded: LoadedRecipe, host: PluginHost, folder: Path | None, *, needs_metrics: bool = True) -> RunPlan:
    """Makes the plan of a run.

    Args:
        loaded: The recipe.
        host: The plugins.
        folder: Of the run that it may go on with: what that has settled is taken from it.
        needs_metrics: As for `bind`.
    """
    earlier = NO_RUN if folder is None else EarlierRun.read(folder)
    refuse = partial(refuse_device, loaded.recipe.training.device)
    return settings_kept(partial(make_plan, loaded, host, earlier, before_records=refuse, needs_metrics=needs_metrics))


def settings_kept(make: Callable[[], RunPlan]) -> RunPlan:
    """Makes a plan, and puts back what plugins change in the process meanwhile, as the guard does around one call.

    Readers, formats, tokenizers and models are asked too often for that.
    """
    state = ProcessState()
    try:
        planned = make()
    finally:
        changed = state.put_back()
    suspects = ", ".join(third_parties(planned))
    if not changed or not suspects:
        return planned
    told = f"{listed(changed)} changed while the request was judged, which core put back; in use was {suspects}"
    return replace(planned, notices=[*planned.notices, told])
