"""Proves an export again: every file's hash, then what it computes. A proof that it did not have is recorded."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graftkit.arguments import check_path, check_texts
from graftkit.errors import ExportError, FolderError
from graftkit.flow.base_files.recreate import InstalledProviders
from graftkit.flow.events import Notice, OnEvent
from graftkit.flow.exports.proof_forks import ProofForks
from graftkit.flow.exports.record_proof import Proving, complete_recorded, record_proof
from graftkit.flow.folders.export_manifest import EXPORT_MANIFEST, ExportManifest, for_people, loadable
from graftkit.flow.folders.listed_files import check_listed, listed_by_the_run, outer_folder
from graftkit.flow.folders.refused_files import refuse_bad_export
from graftkit.flow.memory.measured_memory import StagePeak, measured_memory
from graftkit.flow.state.cancel import CancelToken, check_follower
from graftkit.host.host import PluginHost
from graftkit.interfaces.exporter import Exporter
from graftkit.interfaces.regular_file import read_regular
from graftkit.option_names import option
from graftkit.redact import without_secrets
from graftkit.report.run_manifest import MANIFEST, RunManifest, required
from graftkit.report.run_of_folder import places_of, run_around
from graftkit.store.file_hashes import file_facts, is_another

__all__ = ["Verified", "check_files", "verify", "verify_run"]


@dataclass(frozen=True, slots=True)
class Verified:
    """An export that computes what was trained.

    Attributes:
        folder: The export.
        proof: What its proof gave, as JSON: `status`, `max_abs_diff`, `tolerance`, `covers` and more.
        hashes_of: The lists of hashes that its files were compared with: its own, which whoever changed files may have
            changed, too, and that of the run around it, where there is one.
        notices: What whoever relies on it should know.
        recorded: Whether the proof was recorded: nothing said before that it is proved.
    """

    folder: Path
    proof: Mapping[str, Any]
    hashes_of: Sequence[str]
    notices: Sequence[str] = ()
    recorded: bool = False

    def to_json(self) -> dict[str, Any]:
        """Returns it as JSON: the proof, what was compared, and whether it was recorded."""
        return {**self.proof, "hashes_of": list(self.hashes_of), "recorded": self.recorded}


def verify_run(
    run: str | os.PathLike[str],
    *,
    disable: Iterable[str] = (),
    on_event: OnEvent | None = None,
    cancel: CancelToken | None = None,
) -> dict[str, Verified]:
    """Proves all exports of a run, one after the other, as `verify` does each.

    One that fails does not keep the others from being proved; its error comes last.

    Args:
        run: The run's folder.
        disable: As for `verify`.
        on_event: As for `verify`.
        cancel: As for `verify`.

    Returns:
        What was found of each, by its name.

    Raises:
        FolderError: There is no run in it, it has not finished, or it has no exports; or as for `verify`.
        ExportError: As for `verify`, of the first that failed; notes name the others.
        StorageError: As for `verify`.
        Cancelled: It was stopped.
    """
    folder, disable = Path(check_path(run, "run")), check_texts(disable, "disable")
    check_follower(on_event, cancel)
    found, failed = dict[str, Verified](), list[ExportError | FolderError]()
    names = _exports_of(folder)

    from graftkit.flow.exports.proof_process import forks_for

    left_out = [*disable, *required(RunManifest.read(folder), MANIFEST).left_out]
    with forks_for(_exporters(folder, names, left_out), left_out) as forks:
        for name in names:
            try:
                export = Path(check_path(folder / "exports" / name, "run"))
                found[name] = _verify(export, disable, on_event, cancel, forks)
            except (ExportError, FolderError) as error:
                failed.append(error)
    for other in failed[1:]:
        failed[0].add_note(f"{other.where}: {other.message}")
    if failed:
        raise failed[0]
    return found


def _exporters(folder: Path, names: Sequence[str], disable: Iterable[str]) -> list[Exporter]:
    """Makes what wrote the exports of a run, as far as that can be made: why one can't, its own proof says."""
    installed, found = InstalledProviders(PluginHost(disable=disable)), list[Exporter]()
    for name in names:
        with suppress(Exception):
            facts = ExportManifest.read(folder / "exports" / name, ("exporter",)).exporter
            found.append(installed.make("exporter", facts))
    return found


def _exports_of(folder: Path) -> list[str]:
    """Returns the names of a finished run's exports.

    Raises:
        FolderError: There are none.
    """
    manifest = RunManifest.read(folder)
    if manifest is None:
        hint = "Name the folder of a run, or RUN/exports/NAME."
        raise FolderError("there is neither a run nor an export in it", where=str(folder), hint=hint)
    if manifest.status != "finished":
        hint = "Finish it first: toolkit run RECIPE --out FOLDER --resume."
        raise FolderError(f"the run in it has not finished (it is {manifest.status})", where=str(folder), hint=hint)
    if not manifest.exports:
        hint = "Add one: toolkit export RUN --to NAME."
        raise FolderError("the run in it has no exports", where=str(folder), hint=hint)
    odd = next((name for name in manifest.exports if name != Path(name).name), None)
    if odd is not None:
        raise FolderError(f"its {MANIFEST} is damaged: no export is called {odd!r:.60}", where=str(folder))
    return list(manifest.exports)


def verify(
    export: str | os.PathLike[str],
    *,
    disable: Iterable[str] = (),
    on_event: OnEvent | None = None,
    cancel: CancelToken | None = None,
) -> Verified:
    """Proves an export that a run left: every file's hash, then its logits, loaded in a process of its own.

    Where nothing says yet that it is proved, as with `proof: later`, what is found is recorded as the run would have:
    in its manifest and card, and in the manifest and report of its run. That it failed is recorded, too. An export that
    is proved stays as it is, whatever is found.

    Args:
        export: Its folder, within the run's, or beside what it was proved with.
        disable: Plugins to leave out, besides those that the run's recipe does.
        on_event: Called with each `Notice`, in this thread.
        cancel: Stops the proof when asked to.

    Raises:
        FolderError: It is no export, or what it is proved with is not beside it; or another command writes into its
            run.
        ExportError: A file is missing, new or changed; it computes something else; or it can't be proved here.
        StorageError: What was found can't be recorded.
        Cancelled: It was stopped.
    """
    check_follower(on_event, cancel)
    return _verify(Path(check_path(export, "export")), check_texts(disable, "disable"), on_event, cancel, None)


def _verify(
    folder: Path,
    disable: Iterable[str],
    on_event: OnEvent | None,
    cancel: CancelToken | None,
    forks: ProofForks | None,
) -> Verified:
    notices = list[str]()
    outer = outer_folder(folder)
    writable = os.access(outer, os.W_OK) and os.access(folder, os.W_OK)

    def notice(message: str) -> None:
        notices.append(message)
        if on_event:
            on_event(Notice("verify", message))

    run = run_around(folder)
    if run is not None and writable:
        complete_recorded(outer, notice)
    listed_in = _check_files_at_rest(folder)
    for name in _edited(folder):
        notice(f"{folder.name}/{name} is not as it was written; it is for people, and no program loads it")
    probes = _probes_beside(folder, run)
    left_out = run.left_out if run else []
    for name in left_out:
        notice(f"{name} is left out, as the run's recipe says")
    record = _Record(folder, ExportManifest.read(folder, ()), notice, writable)

    from graftkit.flow.exports.proof import prove_and_tell

    with measured_memory() as record.peak:
        proof = prove_and_tell(
            folder,
            probes,
            (cancel or CancelToken()).poll,
            disable=[*disable, *left_out],
            notice=record.tell,
            keep=record.keep,
            forks=forks,
        )
    if proof["status"] != "proved":
        raise ExportError(
            f"it could not be proved: {proof['reason']}",
            where=str(folder),
            hint="Its files are those that were written; nothing says that they compute what was trained.",
        )
    if record.done:
        notice(f"{folder.name}: before, {record.unproved}; that it is proved is recorded now")
    elif record.unproved:
        why = _why_not_recorded(run, writable=writable)
        notice(f"{folder.name}: before, {record.unproved}; that it is proved is not recorded: {why}")
    return Verified(folder, proof, listed_in, notices, record.done)


def _probes_beside(folder: Path, run: RunManifest | None) -> Path:
    """Returns the file of what an export is proved with, as the run around it lists it, where there is one.

    Raises:
        FolderError: There is none beside the export, or it is another one: the proof would be of something else.
    """
    from graftkit.flow.exports.probes import PROBES_FILE

    beside = [place.parent.parent / PROBES_FILE for place in places_of(folder)]
    probes = next((path for path in beside if path.is_file()), None)
    if probes is None:
        raise FolderError(
            f"the run's {PROBES_FILE} is not beside it",
            where=str(folder),
            hint="Verify it inside the run's folder.",
        )
    if run is not None:
        own = {name: facts for name, facts in run.artifacts.items() if name.startswith(probes.stem)}
        check_listed(probes.parent, own)
    return probes


class _Record:
    """Records what a proof gives, where nothing says yet that the export is proved.

    Args:
        folder: The export.
        manifest: What says of it.
        notice: Called with what the user is told.
        writable: Whether its folder, and its run's, may be written into.
    """

    def __init__(self, folder: Path, manifest: ExportManifest, notice: Callable[[str], object], writable: bool) -> None:
        self.peak = StagePeak()
        """What the proof takes of memory, as it is measured."""
        self.unproved = manifest.unproved
        """Why nothing says yet that it is proved; "" where something does."""
        self.done = False
        """Whether the proof was recorded."""
        self._folder, self._manifest, self._notice, self._writable = folder, manifest, notice, writable
        self._told = list[str]()
        self._start = time.perf_counter()

    def tell(self, message: str) -> None:
        """Tells the user of the proof, and keeps it for the record."""
        self._told.append(without_secrets(message))
        self._notice(message)

    def keep(self, proof: Mapping[str, Any]) -> None:
        """Records the proof."""
        if self.unproved and self._writable:
            seconds = round(time.perf_counter() - self._start, 3)
            proving = Proving(seconds, self.peak.host, self.peak.device, self._told)
            self.done = record_proof(self._folder, self._manifest, proof, proving, self._notice)


def _why_not_recorded(run: RunManifest | None, *, writable: bool) -> str:
    if not writable:
        return "its folder may only be read"
    if run is not None and run.status == "finished":
        return "its run's manifest has it among its exports no more"
    return f"its run has not finished; {option('resume')} proves it"


def _check_files_at_rest(folder: Path) -> list[str]:
    """Compares every file as `check_files` does, once more where another command has recorded a proof meanwhile."""
    while True:
        manifests = _manifests(folder)
        try:
            return check_files(folder)
        except ExportError:
            if _manifests(folder) == manifests:
                raise


def _manifests(folder: Path) -> list[bytes]:
    found = []
    for path in (folder / EXPORT_MANIFEST, outer_folder(folder) / MANIFEST):
        with suppress(OSError):
            found.append(read_regular(path))
    return found


def check_files(folder: Path) -> list[str]:
    """Compares every file with the lists of hashes that there are, and returns the lists' names.

    An export's own list is as trustworthy as the export. The run's manifest, two folders above, is another witness.
    What is for people alone is not compared: whoever publishes an export edits its card.

    Raises:
        FolderError: It is no export, or a manifest is damaged.
        ExportError: A file is missing, new or changed.
    """
    hint = "Name the folder of a run, or RUN/exports/NAME."
    if not folder.is_dir():
        raise FolderError("no such folder", where=str(folder), hint=hint)
    if not (folder / EXPORT_MANIFEST).is_file():
        raise FolderError(f"no export of graftkit's: it has no {EXPORT_MANIFEST}", where=str(folder), hint=hint)
    refuse_bad_export(folder)
    own = loadable(ExportManifest.read(folder, ("files",)).files_in(folder))
    try:
        there = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
        sizes = {name: path.stat().st_size for name, path in loadable(there).items()}
        own_sizes = {name: facts.get("bytes") if isinstance(facts, Mapping) else facts for name, facts in own.items()}
        own_sizes[EXPORT_MANIFEST] = sizes[EXPORT_MANIFEST]
        _compare(folder, own_sizes, sizes, EXPORT_MANIFEST)  # first: a file may be far larger than what was listed
        found = file_facts(folder, leave_out=frozenset(filter(for_people, there)))
    except OSError as error:  # a device, a page of memory, a disk that fails
        raise ExportError(f"a file can't be read: {error.strerror}", where=error.filename or str(folder)) from error
    _compare(folder, {**own, EXPORT_MANIFEST: found[EXPORT_MANIFEST]}, found, EXPORT_MANIFEST)
    of_the_run = loadable(listed_by_the_run(folder))
    if not of_the_run:
        return [EXPORT_MANIFEST]
    _compare(folder, of_the_run, found, f"the run's {MANIFEST}")
    return [EXPORT_MANIFEST, f"the run's {MANIFEST}"]


def _edited(folder: Path) -> list[str]:
    """Returns the files for people that an export lists and that are not as they were written."""
    listed = ExportManifest.read(folder, ("files",)).files_in(folder)
    there = [name for name in listed if for_people(name) and (folder / name).is_file()]
    return [name for name in there if is_another(folder / name, listed[name])]


def _compare(folder: Path, listed: Mapping[str, Any], found: Mapping[str, Any], where: str) -> None:
    for name in sorted(listed.keys() | found.keys()):
        if listed.get(name) != found.get(name):
            state = "missing" if name not in found else "new" if name not in listed else "changed"
            raise ExportError(f"the file {name} is {state} since it was exported, says {where}", where=str(folder))
