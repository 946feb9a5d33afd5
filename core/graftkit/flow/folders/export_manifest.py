"""What an export says of itself: read as a stranger's word, since an export may come from anywhere."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import Field, ValidationError

from graftkit.errors import ExportError, FolderError
from graftkit.flow.folders.export_json import EXPORT_AGAIN, json_object, short_json
from graftkit.flow.folders.listed_files import check_listed, listed_by_the_run, with_replaced
from graftkit.host.records import shortened
from graftkit.interfaces.peft_experts import ExpertLayout
from graftkit.report.model_card import CARD
from graftkit.report.run_manifest import AdapterSource, BaseFacts, ChatFacts, Facts, FileFacts, HeadFacts, MergeFacts
from graftkit.store.files import to_json, write_bytes

__all__ = [
    "EXPORT_MANIFEST",
    "FORMAT",
    "MAX_TOLERANCE",
    "NOT_YET_PROVED",
    "OF_THE_MANIFEST",
    "PUT_OFF",
    "TO_LOAD",
    "TO_PROVE",
    "TO_REBUILD",
    "ExportManifest",
    "check_all_listed",
    "check_as_the_run_lists",
    "checked_tolerance",
    "for_people",
    "loadable",
]

Value = TypeVar("Value")

EXPORT_MANIFEST = "graftkit.json"

MAX_TOLERANCE = 0.1
"""The largest tolerance that core accepts, as a share of the largest logit. bfloat16, the coarsest type that is stored
here, is allowed 0.05; at a tenth a base model can already pass for what was trained on it."""

FORMAT = 1
"""The version of the form. Its key is not `format`, by which exporters say what they write."""


class ExportManifest(Facts):
    """What an export says of itself; an exporter's facts stand beside it.

    A reader says which keys it needs: those that it didn't ask for may be missing, and have the defaults below.

    Attributes:
        graftkit: The version that wrote it.
        manifest_format: The version of the form, `FORMAT`.
        exporter: The exporter, as a manifest names a provider.
        model: The base model.
        head: The head that was put on it, or None where it is a language model.
        model_source: What opens the base model.
        quantizer: How its weights were stored in training.
        adapter: What was trained.
        adapter_from: The adapter's folder that it was made of, or that its training went on with; None else.
        targets: The layers that it was trained on.
        tokenizer: What reads the tokenizer.
        tokenizer_fingerprint: What the tokenizer's ids depend on, as hex.
        dtype: The type of the products in training.
        stop_tokens: The ids that end an answer.
        system: The system message that all conversations shared, or None.
        tools: Descriptions of the functions that the assistant might call in all conversations.
        chat_template: The sha256 of the chat template in use, in hex, or None.
        chat: How conversations were laid out, where that is not as usual: what other programs have to be told.
        prompts: How it was asked in training: "chat" for the chat template, "plain" for the text alone.
        merge: What the adapter was merged onto, where the exporter merges onto what it is told to; None else.
        tolerance: How far logits may be off, as a share of the largest; claimed, and bounded by `checked_tolerance`.
        files: Every file's size and sha256 by its path in the export.
        replacing: While a proof is recorded that was put off, what else a file may be, as `files` says it: a kill
            leaves it (`graftkit.flow.exports.record_proof`).
        proof: What proving it gave: `status` is "proved", "not possible" or "failed", and "not yet" until then, with a
            `reason` where the recipe puts it off.
    """

    graftkit: str = ""
    manifest_format: int = FORMAT
    exporter: dict[str, Any] = Field(default={})
    model: BaseFacts = BaseFacts(reference="")
    head: HeadFacts | None = None
    model_source: dict[str, Any] = Field(default={})
    quantizer: dict[str, Any] = Field(default={})
    adapter: dict[str, Any] = Field(default={})
    adapter_from: AdapterSource | None = None
    targets: list[str] = Field(default=[])
    tokenizer: dict[str, Any] = Field(default={})
    tokenizer_fingerprint: str = ""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    stop_tokens: list[int] = Field(default=[])
    system: str | None = None
    tools: list[dict[str, Any]] = Field(default=[])
    chat_template: str | None = None
    chat: ChatFacts | None = None
    prompts: Literal["chat", "plain"] = "chat"
    merge: MergeFacts | None = None
    tolerance: float = 0.0
    files: dict[str, Any] = Field(default={})
    replacing: dict[str, list[FileFacts]] = Field(default={})
    proof: dict[str, Any] = Field(default={})

    @classmethod
    def read(cls, folder: Path, needed: tuple[str, ...]) -> ExportManifest:
        """Reads an export's manifest.

        Args:
            folder: The export.
            needed: The keys that must be there.

        Raises:
            FolderError: There is none, it is damaged, which the error says by key, or it is of a form that this
                version doesn't know.
        """
        path = folder / EXPORT_MANIFEST
        data = json_object(path)
        version = data.get("manifest_format", FORMAT)
        if version != FORMAT:
            raise FolderError(
                f"it has the form {short_json(version)}, this graftkit reads {FORMAT}",
                where=str(path),
                hint=f"graftkit {short_json(data.get('graftkit'))} wrote it: use that.",
            )
        try:
            found = cls.model_validate(data)
        except ValidationError as error:
            raise _damaged(path, _told(error, data)) from None
        found.require(folder, needed)
        return found

    def require(self, folder: Path, needed: tuple[str, ...]) -> None:
        """Makes sure that the manifest says what a reader needs.

        Raises:
            FolderError: It doesn't.
        """
        for key in needed:
            if key not in self.model_fields_set:
                raise _damaged(folder / EXPORT_MANIFEST, f"it does not say '{key}'")

    @property
    def unproved(self) -> str:
        """Why nothing says that it computes what was trained, as a clause; empty where its proof does."""
        status, reason = self.proof.get("status"), shortened(str(self.proof.get("reason", "")))
        if status == "proved":
            return ""
        if status == "failed":
            return f"its proof failed: {reason}"
        if status == "not possible":
            return f"it could not be proved: {reason}"
        if reason:
            return reason
        return "it was written, and its proof was never ended"

    @property
    def asked(self) -> dict[str, Any]:
        """How the model was asked in training, as JSON: what whoever loads it asks it with."""
        return self.model_dump(mode="json", include={"system", "tools", "chat", "prompts"})

    def expert_layouts(self) -> dict[str, ExpertLayout]:
        """Returns where an exporter has put the tensors of each stack of experts, if any are adapted.

        Raises:
            ValueError: The manifest is damaged there.
        """
        said = (self.model_extra or {}).get("expert_layouts", {})
        try:
            return {stack: ExpertLayout.from_json(layout) for stack, layout in said.items()}
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            raise ValueError(f"its {EXPORT_MANIFEST} is damaged: 'expert_layouts' is {short_json(said)}") from error

    def write(self, folder: Path) -> None:
        """Writes the manifest into an export.

        Raises:
            StorageError: The system refused.
        """
        write_bytes(folder / EXPORT_MANIFEST, self.to_bytes())

    def to_bytes(self) -> bytes:
        """Returns the file that `write` writes."""
        return to_json(self.model_dump(mode="json", exclude_unset=True)).encode()

    def with_parts(self, **parts: Any) -> ExportManifest:
        """Returns the manifest with parts besides, as far as there are: those that are None are left out."""
        return self.model_copy(update={name: part for name, part in parts.items() if part is not None})

    def with_facts(self, **facts: Any) -> ExportManifest:
        """Returns the manifest with some keys replaced, and without those of them that hold nothing.

        Raises:
            pydantic.ValidationError: A key has another shape.
        """
        said = self.model_dump(mode="json", exclude_unset=True)
        kept = {key: value for key, value in said.items() if key not in facts}
        return ExportManifest.model_validate(kept | {key: value for key, value in facts.items() if value})

    def lists_what(self, other: ExportManifest) -> bool:
        """Whether two manifests list the same files, apart from the card, which says of the proof, too."""
        return all(
            self.files.get(name) == other.files.get(name) for name in {*self.files, *other.files} if name != CARD
        )

    def files_in(self, folder: Path) -> dict[str, Any]:
        """Returns its list of files, in which one that is being replaced is what lies there where it may be that."""
        return with_replaced(self.files, self.replacing, folder)


NOT_YET_PROVED = {"status": "not yet"}
"""What is said of the proof of an export that has just been written, in case that nothing comes after."""

PUT_OFF = {"status": "not yet", "reason": "its proof was put off (proof: later)"}
"""What is said of it where that is what was asked for."""

OF_THE_MANIFEST = frozenset(ExportManifest.model_fields)
"""What core says in an export's manifest; an exporter's facts stand beside it."""

TO_PROVE = ("exporter", "model", "model_source", "quantizer", "dtype", "tolerance")
"""What proving an export needs of its manifest."""

TO_LOAD = ("adapter", "targets", "tokenizer", "tokenizer_fingerprint", "stop_tokens", "system")
"""What loading an adapter again needs; where its base is loaded as in training, `TO_REBUILD` besides."""

TO_REBUILD = ("model", "model_source", "quantizer", "dtype")


def _told(error: ValidationError, data: Mapping[str, Any]) -> str:
    """Says what the first key that has another shape holds."""
    found = error.errors(include_url=False)[0]
    if not found["loc"]:
        return "one of its keys is no text"
    key, *inside = (str(part) for part in found["loc"])
    if found["type"] == "missing":
        return f"'{key}' has no {'.'.join(inside)}"
    return f"'{key}' is {short_json(data[key])}"


def _damaged(path: Path, what: str) -> FolderError:
    return FolderError(f"it is damaged: {what}", where=str(path), hint=EXPORT_AGAIN)


def checked_tolerance(share: Any, exporter: str) -> float:
    """Returns a tolerance that core accepts: finite, not negative, and at most `MAX_TOLERANCE`.

    Args:
        share: What is claimed, as a share of the largest logit.
        exporter: Who claims it, for the error.

    Raises:
        ExportError: It is anything else.
    """
    number = isinstance(share, int | float) and not isinstance(share, bool)
    if not number or not 0 <= share <= MAX_TOLERANCE:
        raise ExportError(
            f"the exporter '{exporter}' claims a tolerance of {short_json(share) if number else type(share).__name__}; "
            f"from 0 to {MAX_TOLERANCE:g} of the largest logit is allowed",
            hint="A tolerance is what the rounding of the stored type explains, and no more.",
        )
    return float(share)


def check_all_listed(folder: Path, export: ExportManifest) -> None:
    """Compares an export's files with its manifest. None may lie beside those listed: a library would load it.

    What is for people alone may be edited, and lie beside them.

    Raises:
        FolderError: A file is missing, is another one, or is not listed.
    """
    listed = export.files_in(folder)
    check_listed(folder, loadable(listed))
    there = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    new = sorted(loadable(there).keys() - export.files.keys() - {EXPORT_MANIFEST})
    if new:
        raise FolderError(
            f"the file {new[0]} is none of the export's: its {EXPORT_MANIFEST} does not list it",
            where=str(folder),
            hint="Take it out, or try a copy of what was exported.",
        )


def check_as_the_run_lists(folder: Path) -> None:
    """Compares the files of an export with the manifest of the run that it lies in, where there is one.

    What is for people alone may be edited.

    Raises:
        FolderError: As for `check_listed`.
    """
    check_listed(folder, loadable(listed_by_the_run(folder)))


def for_people(name: str) -> bool:
    """Tells whether a file of an export is for people, git or a hub alone: no program loads a model from it.

    Args:
        name: Its path within the export.

    Example:
        >>> [for_people(name) for name in ("README.md", ".cache/huggingface/x.metadata", "LICENSE.txt", "config.json")]
        [True, True, True, False]
    """
    return name == CARD or name.startswith((".", "LICENSE", "NOTICE"))


def loadable(files: Mapping[str, Value]) -> dict[str, Value]:
    """Returns the files of an export that a program may load: all that are not for people alone.

    Args:
        files: Anything by their paths within the export.
    """
    return {name: value for name, value in files.items() if not for_people(name)}
