"""Proves an export: has it loaded by the program it is meant for, in another process, and judges what that says."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from graftkit.errors import ExportError, FolderError, GraftkitError, ProofStoppedError
from graftkit.flow.base_files.recreate import plugin_of
from graftkit.flow.exports.proof_forks import ProofForks
from graftkit.flow.exports.proof_leftovers import remove_leftovers_of, sweep_leftovers
from graftkit.flow.exports.proof_process import end_proof, most_memory, start_proof, wait_for_proof
from graftkit.flow.folders.export_manifest import EXPORT_MANIFEST, PUT_OFF, ExportManifest
from graftkit.host.guard import note_once
from graftkit.host.records import BUILT_IN, MOST_NOTICES, shortened
from graftkit.interfaces.file_state import FileState
from graftkit.redact import without_secrets
from graftkit.report.compared_numbers import compared_in
from graftkit.report.model_card import CARD
from graftkit.store.file_hashes import sha256_of
from graftkit.store.file_states import changed_files, file_states
from graftkit.store.temporaries import is_temporary

__all__ = ["prove", "prove_and_tell", "put_off", "read_proof"]


def prove_and_tell(
    folder: Path,
    probes: Path,
    poll: Any,
    *,
    disable: Iterable[str],
    notice: Callable[[str], object],
    keep: Callable[[dict[str, Any]], object] | None = None,
    forks: ProofForks | None = None,
    name: str = "",
) -> dict[str, Any]:
    """Proves an export, tells what its proof does not cover, and writes it into its manifest.

    A proof that fails, or is stopped, is written there, too: whoever finds the export later knows. None is written, nor
    told, where by then another export lies there.

    Args:
        folder: The export.
        probes: The probes' file.
        poll: Called while waiting; raises to stop.
        disable: Plugins to leave out.
        notice: Called with what the user is told.
        keep: Called with the proof, instead of writing it into the manifest of an export that this run has just written
            and may therefore trust; others may only name what is installed.
        forks: As for `prove`.
        name: What it is called; as its folder when left out, which is another until it replaces an earlier export.

    Raises:
        ExportError: As for `prove`.
    """
    called = name or folder.name
    trusted, keep = keep is None, keep or partial(_keep_proof, folder)
    proved, before = ExportManifest.read(folder, ()), file_states(folder)
    try:
        proof = prove(folder, probes, poll, trusted=trusted, disable=disable, report=notice, forks=forks)
        _refuse_changed(folder, proved, before)
    except ExportError as error:
        _refuse_replaced(folder, proved)
        status = "not possible" if isinstance(error, ProofStoppedError) else "failed"
        exporter = plugin_of(proved.exporter)
        if exporter.distribution != BUILT_IN:
            note_once(error, f"{exporter.label} wrote this export, and loads it to prove it")
        with suppress(GraftkitError):
            keep({"status": status, "reason": without_secrets(error.message)})
        raise
    _refuse_replaced(folder, proved)
    if proof["status"] == "not possible":
        notice(f"the export {called} could not be proved: {proof['reason']}")
    if proof.get("not_covered_because"):
        notice(
            f"the proof of the export {called} covers {compared_in(proof).name} alone: {proof['not_covered_because']}"
        )
    if proof.get("chosen_otherwise"):
        turned, choices = proof["chosen_otherwise"]
        notice(
            f"in the export {called} the rounding of weights turns {turned:,} of {choices:,} choices of experts, "
            "which are nearly even: there it computes something else than what was trained; an export in float32 would "
            "not"
        )
    if proof.get("base_tokenizer"):
        notice(
            "transformers makes another tokenizer of the base model's files than the one that was trained with "
            f"({proof['base_tokenizer']}): load the export {called} with the tokenizer in its own folder"
        )
    keep(proof)
    return proof


def _refuse_changed(folder: Path, proved: ExportManifest, before: Mapping[str, FileState]) -> None:
    """Makes sure that an export holds what it held before it was proved: whoever loads it gets what was proved.

    Raises:
        ExportError: It doesn't.
    """
    now = file_states(folder)
    new = [name for name in now if name not in before and name != EXPORT_MANIFEST and not is_temporary(name)]
    changed = [
        name
        for name in changed_files(before, now)
        if name in proved.files.keys() - {CARD}
        and not (name in now and sha256_of(folder / name) == proved.files[name]["sha256"])
    ]
    if new or changed:
        _refuse_replaced(folder, proved)
        raise ExportError(
            f"while it was proved, {plugin_of(proved.exporter).label} changed {', '.join([*changed, *new][:3])}",
            where=str(folder),
            hint="logits() and assets() may only read the export, and write into request.workspace: mend the exporter.",
        )


def _refuse_replaced(folder: Path, proved: ExportManifest) -> None:
    """Makes sure that an export lists the files that it listed before it was proved.

    Raises:
        ExportError: It doesn't, or there is none any more.
    """
    with suppress(FolderError):
        if ExportManifest.read(folder, ()).lists_what(proved):
            return
    raise ExportError(
        "while it was proved, something else put other files in its place; the proof is of none of these",
        where=str(folder),
        hint="Export it again, into a folder that nothing else writes into.",
    )


def put_off(folder: Path) -> dict[str, Any]:
    """Says in an export's manifest that it is going to be proved later, and returns that as its proof."""
    _keep_proof(folder, PUT_OFF)
    return dict(PUT_OFF)


def _keep_proof(folder: Path, proof: Mapping[str, Any]) -> None:
    ExportManifest.read(folder, ()).model_copy(update={"proof": dict(proof)}).write(folder)


def prove(
    folder: Path,
    probes: Path,
    poll: Any = lambda: None,
    *,
    trusted: bool = False,
    disable: Iterable[str] = (),
    report: Callable[[str], object] = lambda notice: None,
    forks: ProofForks | None = None,
) -> dict[str, Any]:
    """Loads an export in a fresh process and compares its logits, and what else is loaded, with the trained model's.

    Args:
        folder: The export.
        probes: The probes' file.
        poll: Called while waiting; raises to stop.
        trusted: Whether this run has just written the export; otherwise it may only name what is installed.
        disable: Plugins to leave out, besides `GRAFTKIT_DISABLE_PLUGINS`.
        report: Called with each warning of a plugin's in that process.
        forks: What starts that process, where several exports are proved with the same plugins left out.

    Returns:
        `status` ("proved" or "not possible"), and `max_abs_diff`, `tolerance`, `covers`, `loaded_with` or `reason`.

    Raises:
        ExportError: The logits differ by more than the format's precision explains, tokens, template or settings are
            others, or loading failed.
        ProofStoppedError: It was killed, or took too long; or, unless trusted, most of the memory that was free, where
            the system tells.
    """
    sweep_leftovers(folder)
    limit = None if trusted else most_memory()
    with start_proof(folder, probes, poll, trusted=trusted, disable=disable, forks=forks) as process:
        try:
            output, errors = wait_for_proof(process, poll, folder, limit)
        finally:
            end_proof(process)
            remove_leftovers_of(folder, process.pid)
    for warning in _warnings(output):
        report(warning)
    assert process.returncode is not None
    return read_proof(folder, process.returncode, output, errors)


def _warnings(output: str) -> list[str]:
    """Returns what plugins warned of in a proof's process, which is the first line that it prints."""
    with suppress(ValueError, RecursionError, LookupError, TypeError):
        found = json.loads(output.partition("\n")[0])["warnings"]
        return [shortened(without_secrets(str(warning))) for warning in found[: 2 * MOST_NOTICES]]
    return []


def read_proof(folder: Path, code: int, output: str, errors: str) -> dict[str, Any]:
    """Returns what a proof's process says, where the export is what was trained.

    Args:
        folder: The export.
        code: What the process ended with.
        output: What it printed: the proof is the last line.
        errors: What it printed on standard error.

    Raises:
        ExportError: The export could not be loaded, or is another model.
        ProofStoppedError: There was no room on a disk or in memory for the proof.
    """
    lines = output.strip().splitlines()
    if code != 0 or not lines:
        reason = errors.strip().splitlines()[-1:] or [f"the process ended with {code}"]
        raise ExportError(f"it can't be loaded again: {reason[0]}", where=str(folder))
    proof: dict[str, Any] = json.loads(lines[-1])
    if proof["status"] == "stopped":
        raise ProofStoppedError(proof["message"], where=str(folder), hint=proof["hint"])
    if proof["status"] == "failed":
        raise ExportError(proof["message"], where=proof["where"] or str(folder), hint=proof["hint"])
    if proof.get("differences"):
        raise ExportError(
            f"what is loaded is not what was trained with; {'; '.join(proof['differences'])}",
            where=str(folder),
            hint="Do not use it as it is: load the run's own tokenizer/ and settings beside it. It is kept for a look.",
        )
    rounding = proof.get("rounding")
    weights = rounding and rounding["weights"]
    if weights and weights["excess"] > 1:
        raise ExportError(
            f"it computes something else than what was trained: the weight '{weights['name']}' differs by "
            f"{weights['excess']:.2g} times what rounding explains",
            where=str(folder),
            hint="Do not use it. It is kept for a look.",
        )
    if rounding and rounding["divergence"] > rounding["allowed"]:
        raise ExportError(
            f"it computes something else than what was trained: {compared_in(proof).divergence} is "
            f"{rounding['divergence']:.2g}, where the rounding of its weights explains {rounding['allowed']:.2g}",
            where=str(folder),
            hint="Do not use it. Rounding takes back changes of less than half a step: export it with a finer type. "
            "It is kept for a look.",
        )
    if proof["status"] == "different":
        raise ExportError(
            f"it computes something else than what was trained: {compared_in(proof).name} differ by "
            f"{proof['max_abs_diff']:.2g}, where the format explains {proof['tolerance']:.2g}",
            where=str(folder),
            hint="Do not use it. It is kept for a look.",
        )
    return proof
