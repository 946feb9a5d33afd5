"""The plan of a run, which may go on with one that is in its folder."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from graftkit.flow.device import refuse_device
from graftkit.flow.folder import ADAPTER_FROM
from graftkit.flow.plan import make_plan
from graftkit.flow.resume import chosen_of_run, day_of_run, revisions_of_run, settled_of_run
from graftkit.flow.run_plan import RunPlan
from graftkit.host.host import PluginHost
from graftkit.recipe.load import LoadedRecipe

__all__ = ["plan_of_run"]


def plan_of_run(loaded: LoadedRecipe, host: PluginHost, folder: Path | None) -> RunPlan:
    """Makes the plan of a run.

    Args:
        loaded: The recipe.
        host: The plugins.
        folder: Of the run that it may go on with: what that has settled is taken from it.
    """
    started, chosen, pinned, settled = None, None, None, None
    if folder is not None:
        started, chosen, pinned = day_of_run(folder), chosen_of_run(folder), revisions_of_run(folder)
        settled = settled_of_run(folder)
    refuse = partial(refuse_device, loaded.recipe.training.device)
    copy = None if folder is None else folder / ADAPTER_FROM
    return make_plan(
        loaded, host, started, before_records=refuse, chosen=chosen, pinned=pinned, settled=settled, origin_copy=copy
    )
