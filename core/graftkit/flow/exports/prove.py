"""Runs in a process of its own: loads an export afresh, runs the probes, and prints what differs from the run.

    python -m graftkit.flow.exports.prove EXPORT PROBES PARENT [--made-by-this-run]
    python -m graftkit.flow.exports.prove --forks PARENT [PACKAGE...]

PARENT is the process that asks, with which this one ends. The second form imports what proofs need, those by PACKAGEs
among them, and is forked for each export (`proof_forks.py`).

It shares nothing with the run but the files, so that what it finds is what another program will find.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from graftkit.errors import GraftkitError, named
from graftkit.flow.base_files.recreate import InstalledProviders, ProvidersOfThisRun
from graftkit.flow.exports.check_export import check_export
from graftkit.flow.exports.proof_forks import FORKS, serve_forks
from graftkit.host.guard import brief
from graftkit.host.host import PluginHost
from graftkit.host.records import shortened
from graftkit.interfaces.end_with_parent import end_with_parent
from graftkit.interfaces.temporary import is_no_room

__all__ = ["TRUSTED", "main"]

TRUSTED = "--made-by-this-run"
"""Says that the export was written a moment ago by the run that asks, so that its manifest may name any class."""

_MAKE_ROOM = (
    "Nothing is known of the export, which is as it was written. Free some space, and prove it: `toolkit verify`."
)


def main() -> None:
    """Prints what plugins warned of and then the proof, each a line of JSON, alone on standard output.

    Whatever else is printed goes to standard error.
    """
    if sys.argv[1] == FORKS:
        end_with_parent(int(sys.argv[2]))
        answers = os.fdopen(os.dup(1), "wb")
        os.dup2(2, 1)
        _import_what_proofs_need(sys.argv[3:])
        serve_forks(main, os.fdopen(os.dup(0), "rb"), answers)
        os._exit(0)
    end_with_parent(int(sys.argv[3]))
    folder, probes = map(Path, sys.argv[1:3])
    output = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def report(warnings: list[str]) -> None:
        print(json.dumps({"warnings": warnings}), file=output, flush=True)

    print(json.dumps(answer(folder, probes, trusted=sys.argv[4:] == [TRUSTED], report=report)), file=output, flush=True)
    sys.stderr.flush()
    os._exit(0)  # whatever threads a program has left behind


def _import_what_proofs_need(packages: Sequence[str]) -> None:
    """Imports what takes a proof seconds, and starts neither a thread nor a device."""
    import graftkit.flow.exports.base_file_proof
    import graftkit.flow.exports.rounding
    import graftkit.model.dense_model  # noqa: F401

    if {"transformers", "peft"} & {*packages}:
        from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel  # noqa: F401


def answer(
    folder: Path, probes: Path, *, trusted: bool, report: Callable[[list[str]], None] | None = None
) -> dict[str, Any]:
    """Returns what the process that proves an export says: the proof, or why there is none.

    Args:
        folder: The export.
        probes: The probes' file.
        trusted: Whether the export's manifest may name any class.
        report: Called with what plugins warned of, whatever the proof comes to.
    """
    providers: ProvidersOfThisRun | InstalledProviders = (
        ProvidersOfThisRun() if trusted else InstalledProviders(PluginHost())
    )
    try:
        with named(str(folder)):
            return check_export(folder, probes, providers.make)
    except Exception as error:  # whatever the program that loads it fails with
        if _is_lack_of_room(error):
            message = shortened(f"its proof had no room: {brief(error)}")
            return {"status": "stopped", "message": message, "hint": _MAKE_ROOM, "where": str(folder)}
        if isinstance(error, GraftkitError):
            return {"status": "failed", "message": error.message, "hint": error.hint, "where": error.where}
        message = shortened(f"it can't be loaded again: {brief(error)}")
        return {"status": "failed", "message": message, "hint": _raised_by(error), "where": str(folder)}
    finally:
        if report:
            report(providers.warnings)


def _is_lack_of_room(error: Exception) -> bool:
    """Whether it comes of a disk or a memory that is full, which says nothing of an export."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, MemoryError) or (isinstance(cause, OSError) and is_no_room(cause)):
            return True
        cause = cause.__cause__
    return False


def _raised_by(error: Exception) -> str:
    """Returns the note that names the plugin which raised an error, as a sentence."""
    notes = [note for note in getattr(error, "__notes__", ()) if note.startswith("plugin ")]
    return f"{shortened(notes[0])}." if notes else ""


if __name__ == "__main__":
    main()
