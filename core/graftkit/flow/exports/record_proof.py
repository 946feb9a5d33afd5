"""Records the proof of an export that had none: in its manifest and card, and in its run's manifest and report.

Every file is written whole, and at every moment each is one that the manifests allow: while files are exchanged a
manifest lists under `replacing` what else they may be. The run's manifest decides, or the export's where no run lies
around it. A kill before it is written leaves the old state; after it, the new one, whose remaining files are written by
whoever verifies, resumes or exports next.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graftkit.errors import ExportError, FolderError
from graftkit.flow.folders.export_manifest import EXPORT_MANIFEST, ExportManifest
from graftkit.flow.folders.folder import locked_folder
from graftkit.flow.folders.listed_files import outer_folder
from graftkit.report.model_card import CARD, with_proof
from graftkit.report.run_manifest import FileFacts, RunManifest, StageFacts
from graftkit.report.run_of_folder import place_of_export, run_around
from graftkit.store.file_hashes import sha256_of
from graftkit.store.files import write_bytes

__all__ = ["Proving", "complete_recorded", "record_proof"]

_SECONDS = 60.0
"""How long somebody else is waited for who records a proof in the same run."""


@dataclass(frozen=True, slots=True)
class Proving:
    """What proving an export told besides the proof.

    Attributes:
        seconds: How long it took.
        host: The most that it took of the machine's memory, in bytes; None where the system does not tell.
        device: Likewise of the device's.
        notices: What the user was told.
    """

    seconds: float
    host: int | None = None
    device: int | None = None
    notices: Sequence[str] = ()


def record_proof(
    export: Path,
    proved: ExportManifest,
    proof: Mapping[str, Any],
    told: Proving,
    notice: Callable[[str], object] = lambda _: None,
) -> bool:
    """Says of an export what a proof gave that it had not: its manifest, its card, and its run's manifest and report.

    One that is recorded as proved by then stays so.

    Args:
        export: The export.
        proved: What its manifest said when it was proved.
        proof: What proving it gave.
        told: What else that told.
        notice: Called with what the user is told of the report, where it is left as it is.

    Returns:
        Whether it is recorded: that of a run is once the run has finished.

    Raises:
        ExportError: Other files lie there by now.
        FolderError: Another command writes into the run, and does so for long.
        StorageError: The system refused.
    """
    with locked_folder(outer_folder(export), wait=_SECONDS):
        run = run_around(export)
        if run is not None and (run.status != "finished" or place_of_export(export).name not in run.exports):
            return False
        now = ExportManifest.read(export, ())
        if not now.lists_what(proved):
            hint = "Verify it again."
            raise ExportError("other files lie there than those that were proved", where=str(export), hint=hint)
        if now.proof.get("status") != "proved":
            said = _said(run, place_of_export(export).name, proof, told) if run else None
            _exchange(export, said, proof, notice)
    return True


def complete_recorded(folder: Path, notice: Callable[[str], object] = lambda _: None) -> None:
    """Writes what a kill has left undone in a run whose manifest says already what a proof gave; nothing else.

    Args:
        folder: The run's folder, or any other.
        notice: As for `record_proof`.

    Raises:
        FolderError: As for `record_proof`.
        StorageError: Likewise.
    """
    run = RunManifest.read(folder)
    if run is None or not run.replacing:
        return
    names = {path.split("/")[1] for path in run.replacing if path.startswith("exports/")}
    with locked_folder(folder, wait=_SECONDS):
        for name in sorted(names & run.exports.keys()):
            if (run := RunManifest.read(folder)) and run.replacing:
                _exchange(folder / "exports" / name, run, run.exports[name].proof, notice)


def _said(run: RunManifest, name: str, proof: Mapping[str, Any], told: Proving) -> RunManifest:
    """Returns what a run's manifest says once an export is proved: what it would, had the run proved it."""
    export = run.exports[name].model_copy(update={"proof": dict(proof)})
    stage = StageFacts.model_validate(
        {"name": f"proof of {name}", "seconds": told.seconds, **export.model_dump(mode="json", exclude_unset=True)}
    )
    others = [each for each in run.stages if each.name != stage.name]
    place = next((n for n, each in enumerate(others) if each.name == "report"), len(others))
    return run.with_facts(
        exports={**run.exports, name: export},
        stages=[*others[:place], stage, *others[place:]],
        notices=list(dict.fromkeys([*run.notices, *told.notices])),
        memory=run.measured(stage.name, told.host, told.device),
    )


def _exchange(export: Path, run: RunManifest | None, proof: Mapping[str, Any], notice: Callable[[str], object]) -> None:
    """Writes the files that say of a proof, the run's manifest first, which says it already.

    Args:
        export: The export.
        run: What the manifest of the run around it is to say, but for its lists of files; None where there is no run.
        proof: What the export's own manifest and card are to say.
        notice: As for `record_proof`.
    """
    from graftkit.flow.reporting.report import REPORT

    now = ExportManifest.read(export, ())
    card = _card(export, now, run, proof, notice)
    between = now.with_facts(replacing={CARD: [*_there(export / CARD), _facts(card)]} if card else {})
    listed = {**now.files, **({CARD: _facts(card).model_dump()} if card else {})}
    new = now.with_facts(files=listed, replacing={}, proof=dict(proof))
    outer, place = outer_folder(export), f"exports/{place_of_export(export).name}"
    if run is not None:
        report = _report(outer, run, notice)
        files = {
            f"{place}/{EXPORT_MANIFEST}": new.to_bytes(),
            **({REPORT: report} if report else {}),
            **({f"{place}/{CARD}": card} if card else {}),
        }
        kept = {name: facts for name, facts in run.replacing.items() if name not in {*files, REPORT, f"{place}/{CARD}"}}
        replacing = {name: [*run.replacing.get(name, []), *_there(outer / name)] for name in files} | kept
        replacing[f"{place}/{EXPORT_MANIFEST}"].append(_facts(between.to_bytes()))
        written = {name: _facts(data).model_dump() for name, data in files.items()}
        as_it_was = {f"{place}/{CARD}": now.files[CARD]} if CARD in now.files else {}
        run = run.with_facts(artifacts={**run.artifacts, **as_it_was, **written})
        run.with_facts(replacing=replacing).write(outer)
    between.write(export)
    if card:
        write_bytes(export / CARD, card)
    new.write(export)
    if run is not None:
        if report:
            write_bytes(outer / REPORT, report)
        run.with_facts(replacing=kept).write(outer)


def _card(
    export: Path,
    now: ExportManifest,
    run: RunManifest | None,
    proof: Mapping[str, Any],
    notice: Callable[[str], object],
) -> bytes | None:
    """Returns the card that says of a proof; None where it is somebody else's or edited, or there is none."""
    if CARD not in now.files or not (export / CARD).is_file():
        return None
    name = f"exports/{place_of_export(export).name}/{CARD}"
    of_run = run is not None and _may_be(export / CARD, run.artifacts.get(name), run.replacing.get(name, []))
    if not of_run and not _may_be(export / CARD, now.files[CARD], now.replacing.get(CARD, [])):
        notice(f"{name} is left as it is, and does not say what the proof gave: it is not as graftkit wrote it")
        return None
    text = with_proof((export / CARD).read_text(encoding="utf-8"), proof)
    return None if text is None else text.encode()


def _report(folder: Path, run: RunManifest, notice: Callable[[str], object]) -> bytes | None:
    """Returns the report that says of a proof; None where it, or what it shows, is not what the run wrote.

    What somebody has put into it, or what it alone still shows of files that are gone, would be lost.
    """
    from graftkit.flow.reporting.report import REPORT, draw_report, drawn_from

    names = (REPORT, *drawn_from(run))
    changed = (
        name for name in names if not _may_be(folder / name, run.artifacts.get(name), run.replacing.get(name, []))
    )
    odd = next(changed, None)
    if odd is None:
        try:
            return draw_report(folder, run).encode()
        except FolderError as error:
            why = f"{Path(error.where).name}: {error.message}"
    else:
        why = f"{odd} {'is not as the run wrote it' if (folder / odd).is_file() else 'is not there any more'}"
    notice(f"{REPORT} is left as it is, and does not say what the proof gave: {why}")
    return None


def _may_be(path: Path, listed: Any, replacing: Sequence[FileFacts]) -> bool:
    """Whether a file is the one that a manifest lists, or what the manifest says that it may be besides."""
    with suppress(OSError):
        there = sha256_of(path)
        besides = {facts.sha256 for facts in replacing}
        return there in besides or (isinstance(listed, Mapping) and listed.get("sha256") == there)
    return False


def _there(path: Path) -> list[FileFacts]:
    """Returns the size and hash of a file, where there is one."""
    return [FileFacts(bytes=path.stat().st_size, sha256=sha256_of(path))] if path.is_file() else []


def _facts(data: bytes) -> FileFacts:
    return FileFacts(bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
