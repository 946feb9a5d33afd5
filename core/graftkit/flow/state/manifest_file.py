"""What a run says of itself while it goes on, and when that is written to its folder."""

from __future__ import annotations

import hashlib
import os
import time
from typing import Any

from graftkit.flow.state.run_folder import RunFolder
from graftkit.host.lifecycle import RunInfo
from graftkit.report.run_manifest import FileFacts, RunManifest

__all__ = ["ManifestFile"]

_OF_RUN_INFO = frozenset({"recipe", "status", "error", "metrics"})
"""The parts of a manifest that hooks are given with the run."""


class ManifestFile:
    """A run's manifest while the run goes on.

    Args:
        folder: The run's folder.
        first: What the manifest says at first.
        stands: The manifest of a finished run which is given nothing but exports: it stays in the folder until they are
            there. None for any other run.
        start: When the run began, by `time.perf_counter`.

    Attributes:
        now: What the manifest says now.
        info: What hooks are given with the run, as it stands.
    """

    def __init__(self, folder: RunFolder, first: RunManifest, stands: RunManifest | None, start: float) -> None:
        self.now = first
        self._folder, self._stands, self._start = folder, stands, start
        self.info = self._run_info()

    def record(self, **facts: Any) -> None:
        """Puts parts of the manifest in the place of those that were there; `RunManifest` names them.

        Raises:
            pydantic.ValidationError: A part has another shape than `RunManifest` says.
        """
        seconds = round(time.perf_counter() - self._start, 3)
        self.now = self.now.with_facts(seconds=seconds, **facts)
        if not _OF_RUN_INFO.isdisjoint(facts):
            self.info = self._run_info()

    def save(self) -> None:
        """Writes the manifest; over that of a finished run, which gets exports alone, not before it has them.

        Raises:
            StorageError: As `RunFolder.check`, or the system refused.
        """
        self.record()
        self._folder.check()
        if self._stands is None or self.now.status == "finished":
            self.now.write(self._folder.path)

    def keep(self, name: str, facts: FileFacts) -> None:
        """Notes what a file begins with that a run which goes on takes over; the manifest says it once it is saved."""
        there = {other: kept for other, kept in self.now.kept.items() if os.path.lexists(self._folder.path / other)}
        self.record(kept={**there, name: facts})

    def announce(self, name: str, data: bytes) -> None:
        """Has the manifest say what a file is going to be, also that of a finished run, which stands meanwhile.

        Should a kill come before all files are listed, it is known for the run's own.
        """
        facts = FileFacts(bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
        if self._stands is not None:
            self._stands.with_facts(replacing={**self._stands.replacing, name: [facts]}).write(self._folder.path)
        else:
            self.record(kept={**self.now.kept, name: facts})
            self.save()

    def _run_info(self) -> RunInfo:
        said = self.now
        metrics = {when: found.model_dump(mode="json", exclude_unset=True) for when, found in said.metrics.items()}
        return RunInfo(self._folder.path, said.recipe, said.status, said.id, said.error, metrics)
