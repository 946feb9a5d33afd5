"""What the exports of an adapter's folder are proved with: files beside them, that replace nobody's."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from graftkit.errors import FolderError
from graftkit.flow.export_manifest import EXPORT_MANIFEST, ExportManifest
from graftkit.flow.probes import PROBES_FILE
from graftkit.flow.tokenizer import VOCABULARY
from graftkit.report.run_manifest import RunManifest
from graftkit.store.files import make_folder, write_bytes

__all__ = ["TOKENIZER", "KeptProof"]

TOKENIZER = "tokenizer"
"""The folder in which the tokenizer lies."""


class KeptProof:
    """Files that are made in one folder and put into the one around an export, once it is clear that they may be.

    Other files by their names may be replaced where a failed export was tried with them, and no other export is proved
    with them. Probes are written first: where there are none, what else lies there is somebody's own.

    Args:
        made: The folder that they are made in.
        target: The export's, `OUT/exports/NAME`.

    Raises:
        FolderError: `OUT` is a run or an export, or something else than an export that was not proved lies at `target`.
    """

    def __init__(self, made: Path, target: Path) -> None:
        self.out = target.parent.parent
        self._made = made
        _refuse_old(self.out, target)
        tried = target.parent.is_dir() and self.probes.is_file()
        self._replaceable = tried and not any(path.name != target.name for path in target.parent.glob("[!.]*"))

    @property
    def probes(self) -> Path:
        """Where the probes lie in the end."""
        return self.out / PROBES_FILE

    @property
    def may_come_last(self) -> bool:
        """Whether nothing can speak against the files, so that the export may be written before they are made."""
        names = (PROBES_FILE, VOCABULARY, TOKENIZER)
        return self._replaceable or not any(os.path.lexists(self.out / name) for name in names)

    def check(self) -> None:
        """Makes sure that the files made so far would replace no others.

        Raises:
            FolderError: One would: of another base model, or somebody's own.
        """
        for path, data in {} if self._replaceable else self._files().items():
            if os.path.lexists(path) and (not path.is_file() or path.read_bytes() != data):
                raise FolderError(
                    "it is another file than the one that this export is proved with",
                    where=str(path),
                    hint="Name another folder with --out.",
                )

    def put(self) -> None:
        """Puts them where they are to lie.

        Raises:
            FolderError: As for `check`.
            StorageError: The system refused.
        """
        self.check()
        for path, data in sorted(self._files().items(), key=lambda file: file[0].name != PROBES_FILE):
            make_folder(path.parent)
            write_bytes(path, data)

    def _files(self) -> dict[Path, bytes]:
        made = (path for path in self._made.rglob("*") if path.is_file())
        return {self.out / path.relative_to(self._made): path.read_bytes() for path in made}


def _refuse_old(out: Path, target: Path) -> None:
    is_run = RunManifest.read(out) is not None
    if is_run or (out / EXPORT_MANIFEST).exists():
        what = "a run" if is_run else "an export"
        raise FolderError(f"there is {what} in it", where=str(out), hint="Name another folder with --out.")
    if not os.path.lexists(target):
        return
    unproved = None
    with suppress(FolderError):
        unproved = ExportManifest.read(target, ("exporter", "files"))
    if unproved is None or unproved.proof.get("status") == "proved":
        raise FolderError("there is an export already", where=str(target), hint="Remove it, or name another --out.")
    own = {EXPORT_MANIFEST, *unproved.files}
    for path in target.rglob("*"):
        if not path.is_dir() and path.relative_to(target).as_posix() not in own:
            what = "it lies in an export that was not proved, and is none of its files"
            raise FolderError(what, where=str(path), hint="Move it away: the export would be replaced.")
