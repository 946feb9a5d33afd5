"""Finds out from where a run goes on, and refuses where it would become another run."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path, PurePosixPath
from typing import Any

from graftkit._version import __version__
from graftkit.articles import counted
from graftkit.errors import FolderError, RecipeError, RequestError, TrainingError
from graftkit.flow.folders.listed_files import is_changed, vouched_checkpoints
from graftkit.flow.folders.own_files import CHECKPOINTS
from graftkit.option_names import option
from graftkit.recipe.schema.recipe import with_defaults
from graftkit.report.model_card import CARD
from graftkit.report.run_manifest import RunManifest

__all__ = [
    "Resumed",
    "check_state",
    "find_run",
    "telling_versions",
]

_FREE = frozenset(
    {"export", "proof", "plugins", "memory"}
    | {f"training.{key}" for key in ("checkpoint_every", "keep_checkpoints", "device", "parallel")}
    | {f"training.{key}" for key in ("divergence_factor", "divergence_window")}
    | {f"evaluation.{key}" for key in ("patience", "min_delta", "exported")}
)
"""What may differ when a run goes on: none of it changes what a step computes, but for a device's rounding."""

_RATE = frozenset(f"training.{key}" for key in ("learning_rate", "max_grad_norm", "warmup", "warmup_steps"))
"""What may differ, too, when a run goes on that failed since its loss had gone wrong."""

_LENGTH = ("epochs", "steps")
"""Keys of `training` that may differ, too, when a run goes on that has finished."""


@dataclass(frozen=True, slots=True)
class Resumed:
    """A run that goes on.

    Attributes:
        manifest: What its manifest said when it stopped.
        back_to: The last step that it may go on after, where its loss had gone wrong and it trains otherwise now.
        damaged: The export that is asked for by its name and is in the manifest, where its files are not those that
            were written; None else.
        asked: The export that is asked for by its name, of a run that has finished; None where a recipe says what is.
    """

    manifest: RunManifest
    back_to: int | None = None
    damaged: str | None = None
    asked: str | None = None

    def is_told(self, message: str) -> bool:
        """Tells whether the finished run told something already that is not of the export which is asked for alone."""
        return self.asked is not None and message in self.manifest.notices and self.asked not in message

    @property
    def finished(self) -> bool:
        """Whether it had finished."""
        return self.manifest.status == "finished"

    def only_exports(self, recipe: Mapping[str, Any]) -> bool:
        """Whether it had finished, and a recipe asks of it nothing but other exports."""
        return self.finished and not _trains_further(self.manifest, recipe)

    @property
    def trained_steps(self) -> int | None:
        """How many steps the last run in the folder took that finished; None where none has."""
        return _steps(self.manifest)

    @property
    def planned_steps(self) -> int | None:
        """How many steps that run planned, on whose schedule it trained; it took fewer where it stopped early."""
        if not self.finished:
            found = self.manifest.continued[-1].get("planned") if self.manifest.continued else None
        else:
            found = self.manifest.exported.planned if self.manifest.exported else None
        return found if isinstance(found, int) else self.trained_steps

    @property
    def made_by_others(self) -> str:
        """What says that the run was made by other versions than these; empty where it wasn't."""
        return _made_by_others(self.manifest)


@contextmanager
def telling_versions(folder: Path | None) -> Iterator[None]:
    """Says first of a refusal that the run was made by other versions, where it was: the recipe is not to blame then.

    Args:
        folder: The folder of the run that goes on, or None where none does.
    """
    manifest = _unfinished(folder)  # before the run that goes on writes its own
    others = _made_by_others(manifest) if manifest else ""
    try:
        yield
    except (RequestError, TrainingError) as error:
        if not others or others in error.message:
            raise
        advice = f"Go on with the versions that made it, or start anew with {option('overwrite')}."
        told = type(error)(f"{others}: {error.message}", where=error.where, hint=f"{advice} {error.hint}".rstrip())
        for note in getattr(error, "__notes__", []):
            told.add_note(note)
        raise told from error


def _unfinished(folder: Path | None) -> RunManifest | None:
    try:
        manifest = RunManifest.read(folder) if folder else None
    except FolderError:  # damaged, which has been said
        return None
    return manifest if manifest and manifest.status != "finished" else None


def _made_by_others(manifest: RunManifest) -> str:
    """Says which versions a run was made by, graftkit's own first, where they are not the present ones.

    Those of libraries are among them: another torch may round otherwise.
    """
    libraries = {name: text for name, text in manifest.environment.items() if name not in ("python", "system")}
    made = {"graftkit": manifest.graftkit} | dict(_distributions(manifest.providers)) | libraries
    changed = [f"{name} {old} (this is {now})" for name, old in made.items() if (now := _present(name)) != old]
    return f"the run was made by {', '.join(changed)}" if changed else ""


def _distributions(providers: Any) -> Iterator[tuple[str, str]]:
    """Yields name and version of the distribution of each provider that a manifest names, but graftkit's own."""
    if isinstance(providers, Mapping) and isinstance(providers.get("distribution"), str):
        if providers["distribution"] not in ("", "graftkit"):
            yield providers["distribution"], str(providers.get("version", ""))
    elif isinstance(providers, Mapping | list):
        for inner in providers.values() if isinstance(providers, Mapping) else providers:
            yield from _distributions(inner)


def _present(distribution: str) -> str:
    if distribution == "graftkit":
        return __version__
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "not installed"


def find_run(folder: Path, recipe: Mapping[str, Any], asked: str | None = None) -> Resumed | None:
    """Returns the run in a folder that `recipe` goes on with; None where there is none yet.

    One that has finished goes on where the recipe now says more steps, or other exports, or one could not be proved.

    Args:
        folder: The folder.
        recipe: The recipe, as a manifest has it.
        asked: The export that is asked for by its name, whether or not the run has it already.

    Raises:
        FolderError: The run there has finished and the recipe asks for nothing more, or for more steps although the
            optimizer's state is gone; or its manifest is damaged.
        RecipeError: It was started with another recipe, or took more steps than the recipe says.
    """
    manifest = RunManifest.read(folder)
    if manifest is None:
        return None
    finished = manifest.status == "finished"
    free = _FREE | {f"training.{key}" for key in _LENGTH} if finished else _FREE
    if manifest.failure:
        free |= _RATE
    differing = list(_differences(with_defaults(manifest.recipe), recipe, free))
    if differing:
        raise RecipeError(
            f"the run was started with another recipe: {'; '.join(differing[:3])}",
            where=str(folder),
            hint=f"Resume with the same recipe, or start anew with {option('overwrite')}.",
        )
    if finished:
        _check_continued(folder, manifest, recipe, asked)
    damaged = asked if finished and asked in manifest.exports and _is_damaged(folder, manifest, asked) else None
    return Resumed(manifest, _back_to(manifest, recipe), damaged, asked if finished else None)


def _is_damaged(folder: Path, manifest: RunManifest, export: str) -> bool:
    """Tells whether a file of an export is missing, or another one than was written; its card may be another."""
    files = (name for name in manifest.artifacts if name.startswith(f"exports/{export}/"))
    return any(is_changed(folder, manifest, name) for name in files if PurePosixPath(name).name != CARD)


def _back_to(manifest: RunManifest, recipe: Mapping[str, Any]) -> int | None:
    """Returns the last step to go on after, where the loss had gone wrong and the run trains otherwise now."""
    failure = manifest.failure
    if failure is None or next(_differences(with_defaults(manifest.recipe), recipe, _FREE), None) is None:
        return failure.back_to if failure else None
    return failure.good if failure.back_to is None else min(failure.good, failure.back_to)


def _steps(manifest: RunManifest) -> int | None:
    if manifest.status != "finished":
        found = manifest.continued[-1].get("steps") if manifest.continued else None
    else:
        found = manifest.training.get("steps")
    return found if isinstance(found, int) else None


def _check_continued(folder: Path, manifest: RunManifest, recipe: Mapping[str, Any], asked: str | None) -> None:
    """Refuses where a finished run has nothing to go on with, or nothing to go on from."""
    taken, now = _steps(manifest), recipe["training"]
    if taken is None:
        raise FolderError("its manifest is damaged: it does not say how many steps were taken", where=str(folder))
    longer = _trains_further(manifest, recipe)
    unproved = set(manifest.unproved) - (set(manifest.put_off) if recipe["proof"] == "later" else set())
    if not (longer or unproved or asked) and manifest.recipe.get("export") == recipe["export"]:
        prove = f"`toolkit verify {shlex.quote(str(folder))}` proves its exports; " if manifest.put_off else ""
        key, more = ("steps", 2 * taken) if now["epochs"] is None else ("epochs", 2 * now["epochs"])
        raise FolderError(
            f"the run in it has finished, after {counted(taken, 'step')}: there is nothing to resume",
            where=str(folder),
            hint=f"{prove}`toolkit export {shlex.quote(str(folder))} --to NAME` adds an export; more {key}, such as "
            f"--set training.{key}={more}, train it further; {option('out')} starts another run elsewhere, "
            f"{option('overwrite')} anew.",
        )
    if longer and now["steps"] is not None and now["steps"] < taken:
        raise RecipeError(
            f"training.steps is {now['steps']}, but the run in {folder} has finished after {taken}",
            hint=f"Say more steps than those, or start anew with {option('overwrite')}.",
        )
    if longer and now["steps"] != taken:
        check_state(folder, taken, manifest)


def _trains_further(manifest: RunManifest, recipe: Mapping[str, Any]) -> bool:
    """Tells whether a recipe takes more steps than a finished run: it says more, or waits longer before it stops."""
    training, evaluation = manifest.recipe.get("training") or {}, manifest.recipe.get("evaluation") or {}
    now = recipe.get("evaluation") or {}
    if any(training.get(key) != recipe["training"][key] for key in _LENGTH):
        return True
    early = manifest.exported is not None and bool(manifest.exported.stopped_early)
    return early and any(evaluation.get(key) != now.get(key) for key in ("patience", "min_delta"))


def check_state(folder: Path, taken: int, manifest: RunManifest) -> None:
    """Refuses to train a finished run further whose optimizer's state is gone.

    Args:
        folder: The run's folder.
        taken: How many steps it took.
        manifest: What its manifest says.

    Raises:
        FolderError: There is no whole checkpoint of its last step.
    """
    from graftkit.training.checkpoint import latest_checkpoint

    found = latest_checkpoint(folder / CHECKPOINTS, vouched_checkpoints(manifest))
    if found is None or found[0] < taken:
        raise FolderError(
            f"the run can't be trained further: the optimizer's state after its {taken} steps is not in {CHECKPOINTS}/",
            where=str(folder),
            hint=f"Put the folder back if it was moved, or train anew with {option('out')} or {option('overwrite')}.",
        )


def _differences(old: Any, new: Any, free: Collection[str], path: str = "") -> Iterator[str]:
    if path in free:
        return
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        if old.keys() == new.keys() and path.count(".") and list(old) != list(new):  # of patterns, the first holds
            yield f"the order in {path} was {', '.join(old)} and is {', '.join(new)}"
        keys = old.keys() | new.keys()
        if "." not in path:  # a section's keys; those of deeper mappings, as a template's arguments, are the user's own
            keys -= {key for key in new.keys() - old.keys() if not new[key]}  # of a later version, and not used
        for key in sorted(keys):
            yield from _differences(old.get(key), new.get(key), free, f"{path}.{key}" if path else key)
    elif old != new:
        yield f"{path} was {old!r} and is {new!r}"
