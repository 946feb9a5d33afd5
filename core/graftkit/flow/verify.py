"""Proves an export again: every file's hash, then what it computes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graftkit.errors import ExportError, FolderError
from graftkit.flow.cancel import CancelToken
from graftkit.flow.events import Notice, OnEvent
from graftkit.flow.export_manifest import (
    EXPORT_MANIFEST,
    ExportManifest,
    check_listed,
    listed_by_the_run,
    refuse_bad_files,
    refuse_foreign_code,
)
from graftkit.report.run_manifest import MANIFEST, places_of, run_around
from graftkit.store.files import file_facts

__all__ = ["Verified", "check_files", "verify"]


@dataclass(frozen=True, slots=True)
class Verified:
    """An export that computes what was trained.

    Attributes:
        folder: The export.
        proof: What its proof gave, as JSON: `status`, `max_abs_diff`, `tolerance`, `covers` and more.
        hashes_of: The lists of hashes that its files were compared with: its own, which whoever changed files may have
            changed, too, and that of the run around it, where there is one.
        notices: What whoever relies on it should know.
    """

    folder: Path
    proof: Mapping[str, Any]
    hashes_of: Sequence[str]
    notices: Sequence[str] = ()

    def to_json(self) -> dict[str, Any]:
        """Returns it as JSON: the proof, and what was compared."""
        return {**self.proof, "hashes_of": list(self.hashes_of)}


def verify(
    export: str | os.PathLike[str],
    *,
    disable: Iterable[str] = (),
    on_event: OnEvent | None = None,
    cancel: CancelToken | None = None,
) -> Verified:
    """Proves an export that a run left: every file's hash, then its logits, loaded in a process of its own.

    Args:
        export: Its folder, within the run's, or beside what it was proved with.
        disable: Plugins to leave out, besides those that the run's recipe does.
        on_event: Called with `Notice`s, in this thread.
        cancel: Stops the proof when asked to.

    Raises:
        FolderError: It is no export, or what it is proved with is not beside it.
        ExportError: A file is missing, new or changed; it computes something else; or it can't be proved here.
        Cancelled: It was stopped.
    """
    folder, notices = Path(export), list[str]()

    def notice(message: str) -> None:
        notices.append(message)
        if on_event:
            on_event(Notice("verify", message))

    listed_in = check_files(folder)

    from graftkit.flow.export import prove
    from graftkit.flow.probes import PROBES_FILE

    beside = [place.parent.parent / PROBES_FILE for place in places_of(folder)]
    probes = next((path for path in beside if path.is_file()), None)
    if probes is None:
        raise FolderError(
            f"the run's {PROBES_FILE} is not beside it",
            where=str(folder),
            hint="Verify it inside the run's folder.",
        )
    run = run_around(folder)
    if run is not None:  # with other probes the proof would be of something else
        own = {name: facts for name, facts in run.artifacts.items() if name.startswith(probes.stem)}
        check_listed(probes.parent, own)
    left_out = run.left_out if run else []
    for name in left_out:
        notice(f"{name} is left out, as the run's recipe says")
    poll = (cancel or CancelToken()).poll
    proof = prove(folder, probes, poll, disable=[*disable, *left_out], report=notice)
    if proof["status"] != "proved":
        raise ExportError(
            f"it could not be proved: {proof['reason']}",
            where=str(folder),
            hint="Its files are those that were written; nothing says that they compute what was trained.",
        )
    told = ExportManifest.read(folder, ()).unproved
    if told:
        notice(f"when it was written, {told}. That it is proved now is kept by `--resume` or another `toolkit export`")
    return Verified(folder, proof, listed_in, notices)


def check_files(folder: Path) -> list[str]:
    """Compares every file with the lists of hashes that there are, and returns the lists' names.

    An export's own list is as trustworthy as the export. The run's manifest, two folders above, is another witness.

    Raises:
        FolderError: It is no export, or a manifest is damaged.
        ExportError: A file is missing, new or changed.
    """
    if not (folder / EXPORT_MANIFEST).is_file():
        raise FolderError(f"no export of graftkit's: it has no {EXPORT_MANIFEST}", where=str(folder))
    refuse_foreign_code(folder)
    refuse_bad_files(folder)
    try:
        found = file_facts(folder)
    except OSError as error:  # a device, a page of memory, a disk that fails
        raise ExportError(f"a file can't be read: {error.strerror}", where=error.filename or str(folder)) from error
    own = ExportManifest.read(folder, ("files",)).files
    _compare(folder, {**own, EXPORT_MANIFEST: found[EXPORT_MANIFEST]}, found, EXPORT_MANIFEST)
    of_the_run = listed_by_the_run(folder)
    if not of_the_run:
        return [EXPORT_MANIFEST]
    _compare(folder, of_the_run, found, f"the run's {MANIFEST}")
    return [EXPORT_MANIFEST, f"the run's {MANIFEST}"]


def _compare(folder: Path, listed: Mapping[str, Any], found: Mapping[str, Any], where: str) -> None:
    for name in sorted(listed.keys() | found.keys()):
        if listed.get(name) != found.get(name):
            state = "missing" if name not in found else "new" if name not in listed else "changed"
            raise ExportError(f"the file {name} is {state} since it was exported, says {where}", where=str(folder))
