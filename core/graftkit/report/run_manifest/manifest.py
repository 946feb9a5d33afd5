"""`manifest.json`, read and written here alone."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from graftkit.errors import FolderError
from graftkit.host.lifecycle import RunStatus
from graftkit.interfaces.bounded_json import parse_json
from graftkit.interfaces.regular_file import read_regular
from graftkit.option_names import option
from graftkit.report.run_manifest.exported import ExportFacts
from graftkit.report.run_manifest.facts import Facts, FileFacts
from graftkit.report.run_manifest.memory import MemoryFacts, MemoryMeasured
from graftkit.report.run_manifest.prepared import (
    AdapterSource,
    BaseFacts,
    DataFacts,
    HeadFacts,
    ParameterFacts,
    SequenceFacts,
    SettledKey,
    TokenizerFacts,
)
from graftkit.report.run_manifest.trained import ExportedStep, Measurement, StageFacts, StepFailure
from graftkit.store.files import write_json

__all__ = ["FORMAT", "MANIFEST", "RunManifest", "required"]

MANIFEST = "manifest.json"

FORMAT = 1
"""The version of a manifest's form. Keys may be added within it; none is renamed or means something else."""

_OF_A_RUN = ("tokens", ".tokens.partial", "metrics.jsonl", ".graftkit.lock")
"""What lies beside the manifest of a run, and hardly anywhere else."""

_NOT_EMPTY = ("replacing", "kept")
"""Parts that are left out where they hold nothing."""

_OF_ANOTHER_KIND = (errno.EINVAL, errno.EFBIG, errno.EISDIR)
"""Why what is called as a manifest is called can't be one: it is no regular file, or too large."""


def _put_back() -> str:
    return f"Put the file back as it was, or use another folder with {option('out')}."


Value = TypeVar("Value")


class RunManifest(Facts):
    """What a run says of itself. A part is None, or empty, until the stage that finds it out is over.

    Attributes:
        graftkit: The version that wrote it.
        format: The version of the form, `FORMAT`.
        status: How the run stands.
        id: What no other run is called; one that is resumed keeps it.
        seconds: How long it has taken.
        progress: The stage, and the step of the training, that was reached; None when the run has finished.
        recipe: The recipe with every default and preset filled in.
        chosen: The keys of the recipe's `training` that were left out, with what was chosen for them by the records.
        settled: The keys of the recipe that said `auto`, as "section.key", and what they came to on this machine;
            `recipe` has the values.
        providers: What each name in the recipe resolved to, by kind.
        seed: What all random numbers are derived from.
        stages: The stages that are over, in their order.
        notices: What the user was told.
        data: The examples.
        environment: The versions of what a result may depend on.
        resumed: Where each run stopped that this one went on from.
        continued: What each finished run was that this one went on from: how many `steps` it took of those that
            were `planned`, and what was measured `after` them, if anything was.
        tokenizer: The tokenizer that examples are encoded with.
        model: The base model.
        head: The head that was put on it, or None where it is a language model.
        adapter_from: The adapter that training went on with, or None.
        teacher: The model that it learnt from, or None.
        sequences: How sequences are put together.
        forecast: What was known beforehand of what is trained and stored, by `graftkit.flow.planning.targets.forecast`.
        memory: What it was forecast and measured to take of memory.
        parameters: How many parameters there are.
        stop_tokens: The ids that end an answer.
        metrics: What was measured, by moment: "base", "before" and "after".
        exported: The step whose weights "after" and the exports are of.
        exports: The exports, by folder.
        error: What the run failed with.
        failure: The step whose loss had gone wrong, until a step after it has been taken.
        written: While it goes on, the paths of the files that were there when this was written.
        kept: While it goes on, what the files begin with that a run which goes on takes over as they are: how many
            bytes, and the sha256 of those. Once it is over, what it wrote of files that were edited since.
        artifacts: Every file's size and sha256 by its path in the run's folder, once the run is over.
        replacing: While a proof is recorded that was put off, what else a file may be, as `artifacts` says it: a kill
            leaves it (`graftkit.flow.exports.record_proof`).
    """

    graftkit: str
    format: int = FORMAT
    status: RunStatus
    id: str = ""
    seconds: float = 0.0
    progress: dict[str, Any] | None = None
    recipe: dict[str, Any] = {}
    chosen: dict[str, int | float] = {}
    settled: dict[str, SettledKey] = {}
    providers: dict[str, Any] = {}
    seed: int = 0
    stages: list[StageFacts] = []
    notices: list[str] = []
    data: DataFacts | None = None
    environment: dict[str, str] = {}
    resumed: list[dict[str, Any] | None] = []
    continued: list[dict[str, Any]] = []
    tokenizer: TokenizerFacts | None = None
    model: BaseFacts | None = None
    head: HeadFacts | None = None
    adapter_from: AdapterSource | None = None
    teacher: BaseFacts | None = None
    sequences: SequenceFacts | None = None
    forecast: dict[str, int | None] = {}
    memory: MemoryFacts | None = None
    parameters: ParameterFacts | None = None
    stop_tokens: list[int] = []
    metrics: dict[str, Measurement] = {}
    exported: ExportedStep | None = None
    exports: dict[str, ExportFacts] = {}
    error: dict[str, str] | None = None
    failure: StepFailure | None = None
    written: list[str] = []
    kept: dict[str, FileFacts] = {}
    artifacts: dict[str, Any] = {}
    replacing: dict[str, list[FileFacts]] = {}

    def vouched(self, name: str) -> FileFacts | None:
        """Returns what it says of a file of the run: of all of it once the run is over, else of what it begins with."""
        try:
            return FileFacts.model_validate(self.artifacts[name])
        except (KeyError, ValidationError):
            return self.kept.get(name)

    @property
    def training(self) -> Mapping[str, Any]:
        """What the stage of training told, such as its steps and their tokens; nothing where it is not over."""
        stage = next((stage for stage in self.stages if stage.name == "training"), None)
        return {"seconds": stage.seconds, **(stage.model_extra or {})} if stage else {}

    @property
    def unproved(self) -> list[str]:
        """The exports of which nothing says that they compute what was trained."""
        return [name for name, facts in self.exports.items() if facts.proof.get("status") != "proved"]

    @property
    def put_off(self) -> list[str]:
        """Those of them whose proof the recipe put off."""
        return [name for name, facts in self.exports.items() if facts.proof.get("status") == "not yet"]

    @classmethod
    def read(cls, folder: Path) -> RunManifest | None:
        """Returns a run's manifest, or None where the folder holds no run.

        Raises:
            FolderError: It can't be read, is damaged, which the error says by key, or is of a form that this version
                doesn't know.
        """
        path = folder / MANIFEST
        try:
            data = parse_json(read_regular(path))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            if error.errno not in _OF_ANOTHER_KIND:
                raise FolderError(f"the run's {MANIFEST} can't be read: {error.strerror}", where=str(folder)) from error
            data, odd = None, f"it can't be read: {error.strerror}"
        except ValueError as error:
            data, odd = None, f"it is no JSON: {error}"
        else:
            odd = _oddity(data)
        if odd and any((folder / name).exists() for name in _OF_A_RUN):
            raise FolderError(f"the run's {MANIFEST} is damaged: {odd}", where=str(folder), hint=_put_back())
        if odd:
            return None
        return cls.from_json(data, str(folder))

    @classmethod
    def from_json(cls, data: Mapping[str, Any], where: str = "") -> RunManifest:
        """Returns the manifest that `to_json` gave.

        Args:
            data: The manifest as JSON.
            where: The run's folder, for the error.

        Raises:
            FolderError: It is damaged, or of a form that this version doesn't know.
        """
        if data.get("format", FORMAT) != FORMAT:
            raise FolderError(
                f"the run's {MANIFEST} has the format {data['format']!r:.40}, this graftkit reads {FORMAT}",
                where=where,
                hint=f"graftkit {data.get('graftkit')!s:.40} wrote it: use that, or another folder "
                f"with {option('out')}.",
            )
        try:
            found = cls.model_validate(dict(data))
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            key = ".".join(str(part) for part in first["loc"])
            raise FolderError(
                f"the run's {MANIFEST} is damaged: '{key}': {first['msg'].lower()}, not {first['input']!r:.60}",
                where=where,
                hint=_put_back(),
            ) from None
        try:
            found.to_json()
        except (ValueError, RecursionError):  # pydantic writes about 250 levels
            what = f"the run's {MANIFEST} is damaged: it is nested too deeply to be written again"
            raise FolderError(what, where=where, hint=_put_back()) from None
        return found

    @property
    def left_out(self) -> list[str]:
        """The plugins, or distributions, that the recipe leaves out."""
        section = self.recipe.get("plugins")
        names = section.get("disable") if isinstance(section, dict) else None
        return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []

    def with_facts(self, **facts: Any) -> RunManifest:
        """Returns the manifest with some parts replaced; each is checked.

        Raises:
            pydantic.ValidationError: A part has another shape.
        """
        said = {key: getattr(self, key) for key in self.model_fields_set} | facts
        return RunManifest.model_validate({key: value for key, value in said.items() if key not in _NOT_EMPTY or value})

    def measured(self, stage: str, host: int | None, device: int | None) -> MemoryFacts:
        """Returns what it says of memory, with the most that a stage took, as far as the system tells.

        Args:
            stage: The stage.
            host: The bytes of the host's memory; None where they are not known.
            device: Those of the device's, likewise.
        """
        known = self.memory or MemoryFacts()
        of_host = {stage: host} if host is not None else {}
        of_device = {stage: device} if device is not None else {}
        measured = MemoryMeasured(host=known.measured.host | of_host, device=known.measured.device | of_device)
        return MemoryFacts(forecast=known.forecast, measured=measured)

    def to_json(self) -> dict[str, Any]:
        """Returns what has been said so far, as JSON."""
        return self.model_dump(mode="json", exclude_unset=True)

    def write(self, folder: Path) -> None:
        """Writes the manifest into a run's folder.

        Raises:
            StorageError: The system refused.
        """
        write_json(folder / MANIFEST, self.to_json())


def _oddity(data: Any) -> str:
    """Says by what JSON is known not to be a run's manifest; nothing where it may be one."""
    if not isinstance(data, dict):
        return "it is no JSON object"
    return next((f"it does not say '{key}'" for key in ("graftkit", "status") if key not in data), "")


def required(value: Value | None, key: str, where: str = "") -> Value:
    """Returns a part of a manifest that has to be there.

    Args:
        value: The part, or None.
        key: Its key, for the error.
        where: The run's folder, for the error.

    Raises:
        FolderError: It is not there.
    """
    if value is None:
        raise FolderError(f"its manifest is damaged: it does not say '{key}'", where=where, hint="Run it again.")
    return value
