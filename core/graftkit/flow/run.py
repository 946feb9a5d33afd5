"""Runs a recipe, or goes on with a run: what is done before its stages and after them, however they end."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from graftkit.arguments import check_flags, check_path
from graftkit.errors import FolderError, GraftkitError, RequestError, StorageError
from graftkit.flow.chain import run_stages
from graftkit.flow.device import refuse_torch_settings
from graftkit.flow.events import Notice, OnEvent, Planned, RunFailed, RunFinished, ignore
from graftkit.flow.exports.record_proof import complete_recorded
from graftkit.flow.folders.folder import ClaimedFolder, claim, claim_again, default_folder, forget_checkpoints
from graftkit.flow.plan_of_run import plan_of_run, prepared
from graftkit.flow.planning.inputs_in_run import refuse_inputs_in, refuse_paths_in
from graftkit.flow.planning.run_plan import RunPlan
from graftkit.flow.planning.unsettled import refuse_unsettled
from graftkit.flow.preparation.corpus import TOKENS
from graftkit.flow.records.handed_records import (
    RECORDS,
    Handed,
    Rows,
    keep_records,
    naming_rows,
    rows_of,
    same_records,
)
from graftkit.flow.run_result import RunResult
from graftkit.flow.state.cancel import CancelToken, check_follower
from graftkit.flow.state.context import RunContext, describe_error
from graftkit.flow.state.resume import Resumed, find_run, telling_versions
from graftkit.host.guard import is_stop, naming_plugins
from graftkit.host.host import PluginHost
from graftkit.host.lifecycle import RunStatus
from graftkit.interfaces.offline import no_network_if
from graftkit.recipe.document import KeyPath
from graftkit.recipe.load import LoadedRecipe, RecipeSource, load_recipe, recipe_name
from graftkit.report.run_manifest import RunManifest
from graftkit.training.processes import ALONE, Processes

__all__ = ["go_on", "run"]


def run(
    recipe: RecipeSource,
    *,
    out: str | os.PathLike[str] | None = None,
    overrides: Sequence[str] = (),
    overwrite: bool = False,
    resume: bool = False,
    host: PluginHost | None = None,
    on_event: OnEvent | None = None,
    cancel: CancelToken | None = None,
    processes: Processes = ALONE,
    train: Rows | None = None,
    holdout: Rows | None = None,
    offline: bool = False,
) -> RunResult:
    """Runs a recipe: tokenizer, corpus, base model, adapter, training, evaluation, exports, report.

    It prints nothing and installs no signal or logging handlers.

    Args:
        recipe: A recipe, a mapping of its form, or a file's path.
        out: The run's folder; `runs/NAME` of the recipe's file when left out.
        overrides: "section.key=value", each as `--set` takes it.
        overwrite: Whether a run that is in the folder may be replaced; it is deleted once the new one has finished.
        resume: Whether to go on with the run in the folder, from its last checkpoint; without one there, start.
            The result is the same, bit for bit, as if it had never stopped. One that has finished is trained further
            where the recipe now says more steps or epochs, and gets the exports that the recipe now names besides.
        host: The plugins; those that installed distributions announce when left out.
        on_event: Called with what happens; see `graftkit.flow.events`.
        cancel: Stops the run when asked to.
        processes: The processes that train together; this one's rank is 0, and `graftkit.flow.follow.follow` is called
            in each of the others.
        train: Records to learn from: a list of them, or anything that yields them once. The recipe's `data.train` then
            names none, and may say how they are read (`{format: preference}`). They are kept in the run's folder, in
            `records/`, and "train:12" in an error is the twelfth.
        holdout: Holdout records, likewise.
        offline: Whether nothing is fetched: what is named as a hub's and not on this machine is refused.

    Raises:
        RequestError: The request is wrong; nothing is left behind unless records had been encoded by then.
        RunError: The run failed; its folder says how far it came.
        Cancelled: It was stopped; its folder says how far it came.
    """
    check_flags(overwrite=overwrite, resume=resume, offline=offline)
    check_follower(on_event, cancel)
    _check_processes(processes)
    refuse_torch_settings()
    given = Path(check_path(out, "out")) if out is not None else default_folder(recipe_name(recipe))
    folder = given.absolute()  # the program may change its current folder while the run goes on
    rows = rows_of(train, holdout)
    if rows and processes.count > 1:
        raise RequestError("records can be handed in only where one process trains", hint="Write them to files.")
    with (
        no_network_if(offline),
        naming_plugins(),
        telling_versions(folder if resume else None),
        _records_in(folder, rows, partial(load_recipe, recipe, overrides), overwrite, resume) as (files, claimed),
    ):
        loaded, host = prepared(recipe, overrides, host, files)
        on_event, cancel = on_event or ignore, cancel or CancelToken()
        return _run(loaded, host, folder, overwrite, resume, on_event, cancel, processes=processes, claimed=claimed)


@contextmanager
def _records_in(
    folder: Path, rows: Mapping[str, Rows], load: Callable[[Handed], LoadedRecipe], overwrite: bool, resume: bool
) -> Iterator[tuple[Handed, ClaimedFolder | None]]:
    """Puts records that are handed in into a run's folder, which is claimed for that; back goes what refuses the run.

    Gives:
        The files, and the folder where it is claimed already.
    """
    if not rows:
        yield {}, None
        return
    if resume and RunManifest.read(folder):
        files = same_records(rows, folder / RECORDS)
        with naming_rows(files):
            yield files, None
        return
    if overwrite:  # what the folder holds is moved away before the recipe's other inputs are opened
        refuse_paths_in(folder, load({key: folder / RECORDS / key for key in rows}).recipe, rows)
    claimed = claim(folder, overwrite=overwrite)
    try:
        files = keep_records(rows, folder / RECORDS)
        with naming_rows(files):
            yield files, claimed
    finally:
        if claimed.lock >= 0:  # nothing has run
            claimed.give_back()


def go_on(
    recipe: RecipeSource,
    folder: Path,
    known: RunManifest,
    *,
    asked: str | None = None,
    host: PluginHost | None = None,
    on_event: OnEvent | None = None,
    cancel: CancelToken | None = None,
) -> RunResult:
    """Goes on with a run by a recipe that was made of its manifest.

    Args:
        recipe: The recipe.
        folder: The run's folder.
        known: The manifest.
        asked: The export that is asked for by its name: it is written again where its files are not as they were.
        host: As for `run`.
        on_event: As for `run`.
        cancel: As for `run`.

    Raises:
        FolderError: The manifest is another one by now.
        GraftkitError: As for `run`.
    """
    folder = folder.absolute()
    with naming_plugins(), telling_versions(folder):
        loaded, host = prepared(recipe, (), host)
        for place, section in enumerate(loaded.recipe.export):
            if section.folder == asked:  # no key of a recipe's
                loaded.document.origins["export", place] = "--to"
        return _run(loaded, host, folder, False, True, on_event or ignore, cancel or CancelToken(), known, asked=asked)


def _run(
    loaded: LoadedRecipe,
    host: PluginHost,
    folder: Path,
    overwrite: bool,
    resume: bool,
    on_event: OnEvent,
    cancel: CancelToken,
    known: RunManifest | None = None,
    processes: Processes = ALONE,
    claimed: ClaimedFolder | None = None,
    asked: str | None = None,
) -> RunResult:
    planned = plan_of_run(loaded, host, folder if resume else None, unused=_unused(loaded, asked))
    if processes.count > 1:
        refuse_unsettled(planned.bound)
    resumed = _find(folder, planned, asked) if resume else None
    if overwrite and not resumed and claimed is None:
        refuse_inputs_in(folder, planned)
    claimed = claimed or (claim_again(folder) if resumed else claim(folder, overwrite=overwrite))
    try:
        if resumed:
            _refuse_changed(folder, known or resumed.manifest)
        hooks = host.hooks_of_run((choice.registered, choice.config) for choice in planned.bound.callbacks)
        context = RunContext(planned, host, claimed, on_event, cancel, resumed, processes, hooks)
    except BaseException:
        claimed.give_back()
        raise
    try:
        if on_event is not ignore:
            context.emit(Planned(planned.to_json()))
        with context.naming_plugins():
            run_stages(context)
        context.finish("finished")
    except BaseException as error:
        if isinstance(error, RequestError) and (resumed or not (folder / TOKENS).exists()):
            context.end("failed", error)
            _tell_of_end(context, error)
            if resumed:
                resumed.manifest.write(folder)
            claimed.give_back(context.files.left_by_hooks(context.manifest))
        else:
            _close(context, "interrupted" if is_stop(error) else "failed", error)
            claimed.release()
        _tell_of_replaced(error, claimed)
        with suppress(Exception):  # what listens must not hide the error
            context.emit(RunFailed(str(folder), describe_error(error)))
        raise
    _forget(context)
    claimed.keep()
    context.broadcast("graftkit_run_finished")
    result = RunResult(claimed.path, context.manifest.to_json())
    context.emit(RunFinished(str(result.folder), result.manifest))
    return result


def _unused(loaded: LoadedRecipe, asked: str | None) -> list[KeyPath]:
    """Returns what of a recipe is not used where nothing but an export is asked of a finished run."""
    if asked is None:
        return []
    others: list[KeyPath] = [
        ("export", place) for place, entry in enumerate(loaded.recipe.export) if entry.folder != asked
    ]
    return [("evaluation", "metrics"), ("plugins",), *others]


def _find(folder: Path, planned: RunPlan, asked: str | None) -> Resumed | None:
    """Returns the run to go on with; in one that finished and was killed then, older checkpoints go first.

    So is written first what a kill has left undone of a proof that is recorded.
    """
    complete_recorded(folder)
    manifest = RunManifest.read(folder)
    if manifest is not None and manifest.status == "finished":
        claimed = claim_again(folder)
        with suppress(StorageError):
            forget_checkpoints(folder, manifest.exported.step if manifest.exported else None)
        claimed.keep()
    return find_run(folder, planned.bound.resolved(), asked)


def _refuse_changed(folder: Path, known: RunManifest) -> None:
    """Makes sure that the run in a folder, which is claimed now, is as it was when it was read.

    Raises:
        FolderError: Another command has gone on with it meanwhile.
    """
    if RunManifest.read(folder) != known:
        raise FolderError("another command has changed the run in it meanwhile", where=str(folder), hint="Try again.")


def _forget(run: RunContext) -> None:
    """Deletes what only a run that was stopped needs; this one has finished, whatever the system says to that."""
    try:
        forget_checkpoints(run.folder, run.manifest.exported.step if run.manifest.exported else None)
    except StorageError as error:
        run.emit(Notice("report", f"the checkpoints are not needed any more and were not deleted: {error}"))


def _check_processes(processes: Processes) -> None:
    """Makes sure that there are processes where some are handed in: they may be of any class.

    Raises:
        RequestError: There are none.
    """
    if not all(isinstance(getattr(processes, name, None), int) for name in ("rank", "count", "here")):
        told = f"it is of the type {type(processes).__name__}, and tells no rank and count of processes"
        raise RequestError(told, where="processes", hint="Give what has them, or leave it out.")


def _tell_of_replaced(error: BaseException, claimed: ClaimedFolder) -> None:
    if claimed.replaced:
        error.add_note(f"The run that was there before is kept in {claimed.replaced}.")


def _close(context: RunContext, status: RunStatus, error: BaseException) -> None:
    """Says in the folder how far the run came; a disk that refuses even that must not hide the first error."""
    with suppress(GraftkitError, OSError, ValueError):
        context.finish(status, error)
    _tell_of_end(context, error)


def _tell_of_end(context: RunContext, error: BaseException) -> None:
    """Calls the last hook; whatever raises there must not hide the first error."""
    try:
        context.broadcast("graftkit_run_finished")
    except GraftkitError as second:
        error.add_note(f"Then {second.where}: {second.message}" if second.where else f"Then {second}")
