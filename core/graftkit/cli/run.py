"""`toolkit run`: the whole flow."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from graftkit.cli.options import disable_option, host_of, json_option, offline_option, recipe_arguments
from graftkit.cli.processes import joined, place_of, start
from graftkit.cli.progress import show_progress
from graftkit.cli.signals import cancel_on_signals
from graftkit.cli.streams import output_to_stderr
from graftkit.cli.terminal import json_line
from graftkit.errors import Cancelled, FolderError, FolderInUseError, GraftkitError, ProcessError, RunError
from graftkit.flow.folders.folder import default_folder
from graftkit.flow.follow import follow
from graftkit.flow.run import run
from graftkit.flow.run_result import RunResult
from graftkit.flow.state.resume import telling_versions
from graftkit.recipe.load import recipe_name
from graftkit.report.next_commands import next_commands
from graftkit.report.run_manifest import MergeFacts, RunManifest, required
from graftkit.report.summary import (
    exported_text,
    merge_rows,
    merge_text,
    metric_columns,
    metric_rows,
    proof_text,
    training_seconds,
    vocabulary_text,
)
from graftkit.training.processes import ALONE
from graftkit.visible import one_line

__all__ = ["command", "export_lines", "naming_as_given", "summary"]


@click.command("run")
@recipe_arguments
@click.option("--out", type=click.Path(), help="The run's folder; runs/NAME when left out.")
@click.option("--overwrite", is_flag=True, help="Replace the run that is in the folder, once this one has finished.")
@click.option("--resume", is_flag=True, help="Go on with the run in the folder; start if there is none.")
@click.option(
    "--processes",
    type=click.IntRange(1, 64),
    default=1,
    help="Train with so many processes on this machine, which torchrun starts; with GPUs, one for each.",
)
@disable_option
@offline_option
@json_option
def command(
    recipe: str,
    overrides: tuple[str, ...],
    out: str | None,
    overwrite: bool,
    resume: bool,
    processes: int,
    disable: tuple[str, ...],
    as_json: bool,
) -> None:
    """Run a RECIPE: train an adapter on frozen weights, evaluate, export, prove."""
    if overwrite and resume:
        raise click.UsageError("--overwrite starts anew and --resume goes on: say one of them")
    place = place_of(os.environ)
    if processes > 1 and place is not None:
        raise click.UsageError("torchrun has started this process: --processes is for a command that it has not")
    same = ["run", recipe, *(["--out", out] if out is not None else [])]
    same += [word for assignment in overrides for word in ("--set", assignment)]
    same += [word for name in disable for word in ("--disable-plugin", name)]
    folder = Path(out) if out is not None else default_folder(recipe_name(recipe))
    if processes > 1:
        flags = {"--overwrite": overwrite, "--resume": resume, "--json": as_json}
        replaced = None
        with suppress(FolderError):  # it is told by the processes
            replaced = RunManifest.read(folder) if overwrite else None
        code = start(processes, [*same, *(flag for flag, given in flags.items() if given)])
        if code == 0:
            _refuse_unfinished(folder, replaced)
        sys.exit(code)
    again = ["toolkit", *same, *(["--processes", str(place.count)] if place and place.here_alone else []), "--resume"]
    with (
        output_to_stderr(),
        naming_as_given(folder),
        _telling_what_helps(folder, shlex.join(again)),
        cancel_on_signals(silent=place is not None and place.rank > 0) as cancel,
        show_progress() as on_event,
    ):
        with telling_versions(folder if resume else None):
            host = host_of(recipe, overrides, disable)
        result = None
        with joined(place, cancel) if place else nullcontext(ALONE) as group:
            if group.rank:
                follow(recipe, folder, group, overrides=overrides, resume=resume, host=host, cancel=cancel)
                return
            result = run(
                recipe,
                out=out,
                overrides=overrides,
                overwrite=overwrite,
                resume=resume,
                host=host,
                on_event=on_event,
                cancel=cancel,
                processes=group,
            )
    if result is None:  # another process has said why
        return
    result = replace(result, folder=folder)
    if as_json:
        click.echo(json_line(result.to_json()))
    else:
        click.echo(summary(result))


def _refuse_unfinished(folder: Path, replaced: RunManifest | None) -> None:
    """Makes sure that processes which have all ended well have left a finished run.

    Args:
        folder: The run's folder.
        replaced: The run that was in it before, where it was to be replaced.

    Raises:
        ProcessError: They have not: something has ended one of them with exit code 0.
    """
    found = RunManifest.read(folder)
    if found is None or found.status != "finished" or found == replaced:
        raise ProcessError(
            f"all processes have ended without an error, and have left no finished run in {folder}",
            hint="A plugin, or what was started, ended one of them with exit code 0. Go on with --resume.",
        )


@contextmanager
def naming_as_given(folder: Path) -> Iterator[None]:
    """Names a run's folder, and what lies in it, in errors as the user has named it: a run itself keeps its whole path.

    Args:
        folder: The folder as the user has named it.
    """
    whole = str(folder.absolute())
    try:
        yield
    except GraftkitError as error:
        inner = error.where.removeprefix(whole)
        if error.where.startswith(whole) and inner[:1] in ("", os.sep):
            error.where = f"{folder}{inner}"
        raise


@contextmanager
def _telling_what_helps(folder: Path, go_on: str) -> Iterator[None]:
    """Adds to what stops a run, or refuses its folder, the commands that help with the run in the folder.

    Args:
        folder: The run's folder.
        go_on: The command that goes on with it.
    """
    try:
        yield
    except FolderInUseError:
        raise  # it says what there is to do: nothing goes on with a run that is going on
    except (Cancelled, RunError, KeyboardInterrupt, FolderError) as error:
        with suppress(FolderError):
            if isinstance(error, FolderError) and isinstance(error.__cause__, OSError):
                raise  # the system refuses the folder to any command
            manifest = RunManifest.read(folder)
            if manifest and manifest.status != "finished":
                error.add_note(f"Go on with the run in {folder}: {go_on}")
            elif manifest and isinstance(error, FolderError):
                error.add_note(
                    f"Add an export to the run in {folder}: toolkit export {shlex.quote(str(folder))} --to NAME"
                )
                said = "steps" if manifest.recipe["training"].get("epochs") is None else "epochs"
                error.add_note(f"Train it further: {go_on} --set training.{said}=MORE")
        raise


def summary(result: RunResult) -> str:
    """Returns what a run came to, and the commands that come next."""
    manifest, folder = RunManifest.from_json(result.manifest), result.folder
    parameters = required(manifest.parameters, "parameters")
    lines = [""]
    rows = metric_rows(manifest)
    if rows:
        lines += [_row("", *metric_columns(manifest)), *(_row(*row) for row in rows), ""]
    lines.append(
        f"trained {parameters.trainable:,} of {parameters.total:,} parameters "
        f"({parameters.trainable_share:.2%}) in {training_seconds(manifest):.0f} s of training"
    )
    if exported_text(manifest):
        lines.append(exported_text(manifest))
    if vocabulary_text(manifest):
        lines.append(vocabulary_text(manifest))
    for name, facts in manifest.exports.items():
        lines += export_lines(folder / "exports" / name, facts.proof, facts.merge)
    lines += [f"report  {one_line(str(folder / 'report.html'))}", "", "Next:"]
    lines += [f"  {command}" for command in next_commands(folder, manifest)]
    return "\n".join(lines)


def export_lines(folder: Path, proof: Mapping[str, Any], merge: MergeFacts | None) -> list[str]:
    """Returns what is said of an export: its proof, and what its adapter was merged onto, with what was measured."""
    lines = [f"export  {one_line(str(folder))}", f"        {proof_text(proof)}"]
    if merge and merge_text(merge):
        on = f" (on {merge.measured_on})" if merge.scores else ""
        lines.append(f"        {merge_text(merge)}{on}")
        lines += [
            "        " + f"{name:24}" + "".join(f"{v:>15}" for v in values) for name, *values in merge_rows(merge)
        ]
    return lines


def _row(name: str, *values: str) -> str:
    return f"{name:28}" + "".join(f"{value:>12}" for value in values)
