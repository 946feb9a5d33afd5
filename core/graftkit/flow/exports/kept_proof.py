"""What the exports of an adapter's folder are proved with: files beside them, that replace nobody's."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import replace
from datetime import date
from itertools import count
from pathlib import Path

from graftkit.errors import ExportError, FolderError, GraftkitError
from graftkit.flow.exports.probes import PROBES_FILE, Probes
from graftkit.flow.folders.export_manifest import EXPORT_MANIFEST, ExportManifest
from graftkit.flow.folders.refused_files import check_tensor_header
from graftkit.flow.folders.vocabulary_file import VOCABULARY
from graftkit.flow.preparation.plan_adapter import PlannedAdapter
from graftkit.option_names import option
from graftkit.report.model_card import CARD
from graftkit.report.run_manifest import RunManifest
from graftkit.store.file_hashes import is_another
from graftkit.store.files import write_bytes
from graftkit.store.system import make_folder
from graftkit.store.temporaries import is_temporary

__all__ = ["TOKENIZER", "KeptProof", "folder_of_exports"]

TOKENIZER = "tokenizer"
"""The folder in which the tokenizer lies."""


class KeptProof:
    """Files that are made in one folder and put into the one around an export, once it is clear that they may be.

    Other files by their names may be replaced where a failed export was tried with them, and no other export is proved
    with them. Probes are written first: where there are none, what else lies there is somebody's own. Probes that lie
    there and are the same but for rounding stay, since other exports are proved with them; what a quantized export
    needs besides, sketches of the weights, is added to them.

    Args:
        made: The folder that they are made in.
        target: The export's, `OUT/exports/NAME`.

    Raises:
        FolderError: `OUT` is a run or an export, or what lies at `target` is no export that was not finished.
    """

    def __init__(self, made: Path, target: Path) -> None:
        self.out = target.parent.parent
        self._made = made
        self._extended = False
        _refuse_old(self.out, target)
        tried = target.parent.is_dir() and self.probes.is_file()
        self._replaceable = tried and not any(path.name != target.name for path in target.parent.glob("[!.]*"))

    @property
    def probes(self) -> Path:
        """Where the probes lie in the end."""
        return self.out / PROBES_FILE

    @property
    def day(self) -> date:
        """The day that the chat template writes in what lies there; today's date where nothing says it."""
        there = self._probes_there()
        return there.assets.date or date.today() if there and there.assets else date.today()

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
        if self._replaceable:
            return
        self._join_probes()
        for path, data in self._files().items():
            extended = self._extended and path == self.probes
            if os.path.lexists(path) and not extended and (not path.is_file() or path.read_bytes() != data):
                raise FolderError(
                    "it is another file than the one that this export is proved with",
                    where=str(path),
                    hint=f"Name another folder with {option('out')}.",
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

    def _join_probes(self) -> None:
        """Puts the probes that lie there in the place of those made, where these say nothing else of the model."""
        made, there = self._made / PROBES_FILE, self._probes_there()
        if not there or not made.is_file():
            return
        new = Probes.load(made)
        if there.agrees_with(new):
            self._extended = bool(new.sketches) and not there.sketches
            replace(there, sketches=there.sketches or new.sketches).save(made)

    def _probes_there(self) -> Probes | None:
        """Returns the probes that lie there; None where there are none, or something else has their name."""
        with suppress(ExportError, FolderError):
            check_tensor_header(self.probes)
            return Probes.load(self.probes)
        return None

    def _files(self) -> dict[Path, bytes]:
        made = (path for path in self._made.rglob("*") if path.is_file())
        return {self.out / path.relative_to(self._made): path.read_bytes() for path in made}


def _refuse_old(out: Path, target: Path) -> None:
    is_run = RunManifest.read(out) is not None
    if is_run or (out / EXPORT_MANIFEST).exists():
        what = "a run" if is_run else "an export"
        raise FolderError(f"there is {what} in it", where=str(out), hint=f"Name another folder with {option('out')}.")
    if not os.path.lexists(target):
        return
    unproved = None
    with suppress(FolderError):
        unproved = ExportManifest.read(target, ("exporter", "files"))
    if unproved is None or _is_complete(target, unproved):
        hint = (
            f"Remove it, call this one something else (--set name=OTHER), or name another folder with {option('out')}."
        )
        raise FolderError("there is an export already", where=str(target), hint=hint)
    own = {EXPORT_MANIFEST: {}, **unproved.files_in(target)}
    for path in target.rglob("*"):
        name = path.relative_to(target).as_posix()
        facts = own.get(name)
        half_written = is_temporary(name)  # which a killed process has left: the folder is locked
        if not (path.is_dir() or half_written) and (facts is None or (facts and is_another(path, facts))):
            what = "it lies in an export that was not finished, and is not as the export was written"
            raise FolderError(what, where=str(path), hint="Move it away: the export would be replaced.")


def _is_complete(export: Path, manifest: ExportManifest) -> bool:
    """Tells whether an export is proved and has its card, which is written last: a kill may have come before that."""
    return manifest.proof.get("status") == "proved" and CARD in manifest.files and (export / CARD).exists()


def folder_of_exports(named: Path, planned: PlannedAdapter) -> Path:
    """Returns where an adapter's exports go when nobody says where: one folder for an adapter on a base model.

    Args:
        named: The folder of that name, taken unless something else lies there; then "-2" follows, and so on.
        planned: The adapter and its base model.
    """
    numbered = (named if number == 1 else named.with_name(f"{named.name}-{number}") for number in count(1))
    return next(folder for folder in numbered if _is_free(folder) or _holds_exports_of(planned, folder))


def _is_free(folder: Path) -> bool:
    return not os.path.lexists(folder) or (folder.is_dir() and not any(folder.iterdir()))


def _holds_exports_of(planned: PlannedAdapter, folder: Path) -> bool:
    """Tells whether the exports in a folder are of an adapter on a base model, by the hashes of their files."""
    wanted = (planned.folder.files, planned.facts["model"].files, planned.facts["quantizer"])
    for path in sorted(folder.glob(f"exports/*/{EXPORT_MANIFEST}")):
        with suppress(GraftkitError):
            found = ExportManifest.read(path.parent, ("adapter_from", "model", "quantizer", "tokenizer_fingerprint"))
            source = found.adapter_from.files if found.adapter_from else {}
            same = (source, found.model.files, found.quantizer) == wanted
            return same and found.tokenizer_fingerprint == planned.tokenizer.fingerprint
    return False
