"""Adds an export to a finished run: the run goes on with one more export in its recipe, and no step more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from graftkit.errors import FolderError, RecipeError
from graftkit.flow.events import OnEvent
from graftkit.flow.exports.asked_export import asked_export
from graftkit.flow.exports.record_proof import complete_recorded
from graftkit.flow.run import go_on
from graftkit.flow.run_result import RunResult
from graftkit.flow.state.cancel import CancelToken
from graftkit.host.host import PluginHost
from graftkit.recipe.assignment import read_assignments
from graftkit.recipe.schema.providers import ExportSection
from graftkit.redact import HIDDEN
from graftkit.report.run_manifest import RunManifest

__all__ = ["add_export"]


def add_export(
    folder: Path,
    name: str,
    options: Sequence[str] = (),
    *,
    proof: Literal["now", "later"] | None = None,
    host: PluginHost | None = None,
    on_event: OnEvent | None = None,
    cancel: CancelToken | None = None,
) -> RunResult:
    """Writes an export of a finished run, and proves it unless that is put off.

    One that is there as it is asked for stays; where its files are missing or changed, it is written again.

    Args:
        folder: The run's folder.
        name: The exporter.
        options: The exporter's fields, each "key=value".
        proof: When it is proved; as the run's recipe says when left out.
        host: The plugins.
        on_event: As for `run`.
        cancel: As for `run`.

    Raises:
        FolderError: It holds no run, or one that has not finished, or another command changes it meanwhile.
        ProviderError: There is no such exporter.
        RecipeError: The run's recipe can't be made again from its manifest, or the exporter has no such field or value.
        ExportError: The export failed; the run, and the old exports, are as they were.
    """
    complete_recorded(folder)
    manifest = RunManifest.read(folder)
    if manifest is None:
        raise FolderError(
            "there is no run in it",
            where=str(folder),
            hint="Give the folder of a run, as runs/NAME, or of an adapter, with an adapter_config.json.",
        )
    if manifest.status != "finished":
        hint = "Finish it first: toolkit run RECIPE --out FOLDER --resume."
        raise FolderError(f"the run in it has not finished (it is {manifest.status})", where=str(folder), hint=hint)
    recipe = _recipe(manifest, folder)
    asked_export(host or PluginHost(), name, options)
    new = {"use": name} | read_assignments(options, "--set")
    place = ExportSection.model_validate({"use": name}).folder if "name" not in new else new["name"]
    others = [entry for entry in recipe["export"] if ExportSection.model_validate(entry).folder != place]
    recipe["export"] = [*others, new]
    recipe |= {"proof": proof} if proof else {}
    return go_on(recipe, folder, manifest, asked=place, host=host, on_event=on_event, cancel=cancel)


def _recipe(manifest: RunManifest, folder: Path) -> dict[str, Any]:
    """Returns the recipe that a run was started with, but for what it chose itself, which it chooses again.

    Raises:
        RecipeError: It says a secret, which no manifest keeps.
    """
    if HIDDEN in str(manifest.recipe):
        raise RecipeError(
            "the run's recipe has a secret, which its manifest does not keep",
            where=str(folder),
            hint="Say the recipe itself: toolkit run RECIPE --out FOLDER --resume --set 'export=[NAME]'.",
        )
    training: Mapping[str, Any] = manifest.recipe["training"]
    kept = {key: value for key, value in training.items() if key not in manifest.chosen}
    return {**manifest.recipe, "training": kept, "export": list(manifest.recipe["export"])}
