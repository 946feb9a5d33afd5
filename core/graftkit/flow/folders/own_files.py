"""Which files in a run's folder the run itself has written, and which are somebody else's."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from graftkit.errors import GraftkitError
from graftkit.flow.folders.export_manifest import EXPORT_MANIFEST, ExportManifest
from graftkit.flow.folders.listed_files import with_replaced
from graftkit.report.run_manifest import RunManifest
from graftkit.store.file_hashes import is_another
from graftkit.store.temporaries import TEMPORARY

__all__ = [
    "ADAPTER_FROM",
    "CHECKPOINTS",
    "LOCK",
    "OWN",
    "REPORT",
    "WRITTEN_INTO",
    "answers_file",
    "files_below",
    "folders_in_place_of_files",
    "is_runs_own",
    "listed_in",
    "others_files",
]

LOCK = ".graftkit.lock"
"""A name that nobody else gives a file: it is removed."""

CHECKPOINTS = "checkpoints"

REPORT = "report.html"

ADAPTER_FROM = "adapter-from"
"""Where a run keeps the adapter that its training went on with: it goes on without the folder that this lay in."""


def answers_file(when: str) -> str:
    """Returns the name of the file with the answers "before" or "after" training."""
    return f"answers-{when}.json"


OWN = re.compile(
    r"manifest\.json|\.graftkit\.lock|records|tokenizer|vocabulary\.json|tokens|teacher|checkpoints|adapter|adapter-from"
    r"|exports"
    r"|(probes|reference|start)\.safetensors|metrics\.jsonl|answers-(before|after)\.json|holdout-worst\.json"
    rf"|report\.html|report-sections\.json|\.(tokens|teacher)\.partial|{TEMPORARY.pattern}"
)
"""What a run writes at the top of its folder; a plugin's files are known from the manifest."""

_OWN_PATHS = (
    r"manifest\.json|\.graftkit\.lock|vocabulary\.json|(probes|reference|start)\.safetensors|metrics\.jsonl"
    r"|answers-(before|after)\.json|holdout-worst\.json|report\.html|report-sections\.json"
    r"|records/((train|holdout)\.jsonl|\.(train|holdout)\.words\.json)"
    r"|(tokens|teacher)/(train|holdout)\.safetensors"
    r"|adapter/adapter\.(safetensors|json)"
    r"|adapter-from/(adapter_config\.json|adapter_model\.safetensors|graftkit\.json)"
    r"|checkpoints/step-\d{8}/(state\.safetensors|checkpoint\.json)"
)
"""The paths of the files that a run itself writes; those of tokenizers, exporters and hooks are listed in manifests."""

_OWN_FILES = re.compile(rf"{_OWN_PATHS}|\.(tokens|teacher)\.partial/.*|(.*/)?{TEMPORARY.pattern}(/.*)?")
"""Those paths, and those of what a run has while it writes them."""

WRITTEN_INTO = re.compile(r"checkpoints/step-\d{8}|\.(tokens|teacher)\.partial/.*")
"""The paths of what a run that goes on writes into, or removes parts of: through a link it would do so elsewhere."""

_EDITABLE = re.compile(rf"report\.html|exports/[^/]+/(?!{re.escape(EXPORT_MANIFEST)}$).+")
"""The paths of what is made to be shown: the report, and the files of exports, which may be edited for that."""

_WITH_A_TOKENIZER = ("tokenizer/", f"{ADAPTER_FROM}/")
"""The folders of a run in which a tokenizer is saved, whose backend alone knows the files' names."""


def is_runs_own(name: str) -> bool:
    """Tells whether a path in a run's folder is that of a file which a run writes, of its tokenizer or of an export."""
    own = (*_WITH_A_TOKENIZER, "exports/")
    return name.startswith(own) or (name != LOCK and _OWN_FILES.fullmatch(name) is not None)


def folders_in_place_of_files(path: Path) -> Iterator[str]:
    """Yields the relative paths of folders that have the name of a file which a run itself writes."""
    for place, folders, _ in os.walk(path):
        for name in sorted(folders):
            relative = (Path(place) / name).relative_to(path).as_posix()
            if re.fullmatch(_OWN_PATHS, relative):
                yield relative


def others_files(path: Path, manifest: RunManifest) -> list[str]:
    """Returns the relative paths of what the run in a folder did not write: files, and links, which aren't followed.

    What a run wrote is listed in its manifest or has one of its own names; what an export is made of, in the export's.
    A run that was killed before it could list a tokenizer's files may have written any of those. A report, or
    a file of an export, that is another one than the manifests list was edited, and is its user's.
    """
    listed = {*manifest.artifacts, *manifest.written}
    for folder in _WITH_A_TOKENIZER:
        if not any(name.startswith(folder) for name in listed):
            listed |= {name for name in files_below(path) if name.startswith(folder)}
    in_exports = dict[str, Any]()
    for export in (path / "exports").glob(f"*/{EXPORT_MANIFEST}"):
        folder = f"exports/{export.parent.name}"
        listed.add(f"{folder}/{EXPORT_MANIFEST}")
        in_exports |= {f"{folder}/{name}": facts for name, facts in listed_in(export.parent).items()}
    vouched = {name: facts.model_dump() for name, facts in manifest.kept.items()} | manifest.artifacts
    in_run = with_replaced(vouched, manifest.replacing, path)
    lists = (in_exports, {name: facts for name, facts in in_run.items() if _EDITABLE.fullmatch(name)})
    return sorted(
        name
        for name in files_below(path)
        if not (name in listed or name in in_exports or _OWN_FILES.fullmatch(name)) or _is_edited(path, name, lists)
    )


def _is_edited(path: Path, name: str, lists: Iterable[Mapping[str, Any]]) -> bool:
    """Tells whether a file is another one than each list that has a hash of it says."""
    hashes = [facts for facts in (files.get(name) for files in lists) if isinstance(facts, Mapping) and facts]
    return bool(hashes) and all(is_another(path / name, facts) for facts in hashes)


def listed_in(export: Path) -> dict[str, Any]:
    """Returns the facts of each file that an export's own manifest lists; none where that can't be read.

    Args:
        export: The export's folder.
    """
    try:
        return ExportManifest.read(export, ()).files_in(export)
    except GraftkitError:
        return {}


def files_below(folder: Path) -> Iterator[str]:
    """Yields the relative paths of all files and links below a folder."""
    for place, folders, files in os.walk(folder):
        for name in [*files, *(name for name in folders if (Path(place) / name).is_symlink())]:
            yield (Path(place) / name).relative_to(folder).as_posix()
