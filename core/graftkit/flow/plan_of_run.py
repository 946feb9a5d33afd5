"""Plans: of a recipe, and of a run that may go on with one which is in its folder."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType

from graftkit.arguments import check_flags, check_is
from graftkit.flow.device import refuse_device
from graftkit.flow.planning.earlier_run import NO_RUN, EarlierRun
from graftkit.flow.planning.plan import make_plan
from graftkit.flow.planning.run_plan import RunPlan
from graftkit.flow.records.handed_records import (
    Handed,
    KeptForAPlan,
    Rows,
    as_handed,
    handed_for_a_plan,
    naming_rows,
)
from graftkit.flow.state.first_manifest import third_parties
from graftkit.host.guard import listed, naming_plugins
from graftkit.host.host import PluginHost
from graftkit.host.process_state import ProcessState
from graftkit.interfaces.offline import no_network_if
from graftkit.recipe.document import KeyPath
from graftkit.recipe.load import LoadedRecipe, RecipeSource, load_recipe

__all__ = ["plan", "plan_of_run", "prepared"]


def plan(
    recipe: RecipeSource,
    *,
    overrides: Sequence[str] = (),
    host: PluginHost | None = None,
    as_run: bool = False,
    train: Rows | None = None,
    holdout: Rows | None = None,
    offline: bool = False,
) -> RunPlan:
    """Checks a recipe without running it: every name resolved, every record read, no weight loaded.

    Args:
        recipe: A recipe, a mapping of its form, or a file's path.
        overrides: "section.key=value", each as `--set` takes it.
        host: The plugins; those that installed distributions announce when left out.
        as_run: Whether to check as well what `run` refuses here before it encodes a record, which takes torch: that the
            device is there, the architecture and its layers, the new vocabulary, that each export can be written.
        train: As for `run`; kept in a temporary file as long as the plan is.
        holdout: Likewise.
        offline: As for `run`.

    Raises:
        RequestError: Something in it is wrong.
    """
    check_flags(as_run=as_run, offline=offline)
    kept = handed_for_a_plan(train, holdout)
    files = kept.files if kept else {}
    with no_network_if(offline), naming_plugins(), naming_rows(files):
        loaded, host = prepared(recipe, overrides, host, files)
        if not as_run:
            return _with_handed(_settings_kept(partial(make_plan, loaded, host)), kept)

        def made() -> RunPlan:
            from graftkit.flow.preflight import check_as_run

            planned = make_plan(loaded, host, before_records=lambda: refuse_device(loaded.recipe.training.device))
            return check_as_run(planned, host)

        return _with_handed(_settings_kept(made), kept)


def _with_handed(planned: RunPlan, kept: KeptForAPlan | None) -> RunPlan:
    """Returns a plan that keeps the records that were handed in, and names them as they were."""
    if kept is None:
        return planned
    return replace(planned, handed=kept, notices=[as_handed(notice, kept.files) for notice in planned.notices])


def plan_of_run(
    loaded: LoadedRecipe, host: PluginHost, folder: Path | None, *, unused: Collection[KeyPath] = ()
) -> RunPlan:
    """Makes the plan of a run.

    Args:
        loaded: The recipe.
        host: The plugins.
        folder: Of the run that it may go on with: what that has settled is taken from it.
        unused: As for `bind`.
    """
    earlier = NO_RUN if folder is None else EarlierRun.read(folder)
    refuse = partial(refuse_device, loaded.recipe.training.device)
    return _settings_kept(partial(make_plan, loaded, host, earlier, before_records=refuse, unused=unused))


def prepared(
    recipe: RecipeSource,
    overrides: Sequence[str],
    host: PluginHost | None,
    records: Handed = MappingProxyType({}),
) -> tuple[LoadedRecipe, PluginHost]:
    """Returns a recipe, read, and the plugins that it is run with.

    Args:
        recipe: The recipe.
        overrides: As for `run`.
        host: The plugins; those that installed distributions announce, without those that it leaves out, when None.
        records: The files of records that a program has handed in.

    Raises:
        RecipeError: It can't be read, or says what no recipe may.
    """
    if host is not None:
        check_is(host, PluginHost, "host")
    loaded = load_recipe(recipe, overrides, records)
    return loaded, host or PluginHost(disable=loaded.recipe.plugins.disable)


def _settings_kept(make: Callable[[], RunPlan]) -> RunPlan:
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
