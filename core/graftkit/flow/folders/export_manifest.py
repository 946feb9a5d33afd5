"""What an export says of itself: read as a stranger's word, since an export may come from anywhere."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath
from typing import Any, Literal

from pydantic import Field, ValidationError

from graftkit.errors import ExportError, FolderError
from graftkit.host.records import shortened
from graftkit.interfaces.json_file import read_json_object
from graftkit.interfaces.peft_experts import ExpertLayout
from graftkit.interfaces.regular_file import open_regular
from graftkit.report.model_card import CARD
from graftkit.report.run_manifest import (
    AdapterSource,
    BaseFacts,
    ChatFacts,
    Facts,
    FileFacts,
    HeadFacts,
    MergeFacts,
    place_of_export,
    places_of,
    run_around,
)
from graftkit.store.files import sha256_of, to_json, write_bytes
from graftkit.tokenization.bounds import MAX_FILE, check_bounds

__all__ = [
    "EXPORT_MANIFEST",
    "FORMAT",
    "MAX_CONFIG",
    "MAX_TOLERANCE",
    "NOT_YET_PROVED",
    "OF_THE_MANIFEST",
    "PUT_OFF",
    "TO_LOAD",
    "TO_PROVE",
    "TO_REBUILD",
    "ExportManifest",
    "check_all_listed",
    "check_listed",
    "check_none_beside",
    "check_tensor_header",
    "checked_tolerance",
    "drop_foreign_code",
    "listed_by_the_run",
    "outer_folder",
    "refuse_bad_files",
    "refuse_bad_tokenizers",
    "refuse_foreign_code",
    "tokenizer_configs",
    "with_replaced",
]

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
        data = _json_object(path)
        version = data.get("manifest_format", FORMAT)
        if version != FORMAT:
            raise FolderError(
                f"it has the form {_short(version)}, this graftkit reads {FORMAT}",
                where=str(path),
                hint=f"graftkit {_short(data.get('graftkit'))} wrote it: use that.",
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
            raise ValueError(f"its {EXPORT_MANIFEST} is damaged: 'expert_layouts' is {_short(said)}") from error

    def write(self, folder: Path) -> None:
        """Writes the manifest into an export.

        Raises:
            StorageError: The system refused.
        """
        write_bytes(folder / EXPORT_MANIFEST, self.to_bytes())

    def to_bytes(self) -> bytes:
        """Returns the file that `write` writes."""
        return to_json(self.model_dump(mode="json", exclude_unset=True)).encode()

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
    return f"'{key}' is {_short(data[key])}"


def _damaged(path: Path, what: str) -> FolderError:
    return FolderError(f"it is damaged: {what}", where=str(path), hint=_EXPORT_AGAIN)


_FOREIGN_CODE = frozenset({"auto_map", "auto_mapping", "custom_pipelines", "custom_generate", "megatron_config"})
"""Keys that make a library import a module that a model's folder names, or brings."""

_KERNELS = frozenset({"attn_implementation", "experts_implementation"})
"""Keys by which transformers fetches compiled code from a hub, where their value is the name of a repository."""

_INLINE = frozenset({"merges", "vocab"})
"""Keys of a tokenizer's vocabulary: a path, or the vocabulary itself."""

_FILES = _INLINE | {"init_inputs"}
_FILE_ENDINGS = ("_file", "_files", "_spm")
"""How transformers calls the files that its tokenizers open (each class's `vocab_files_names`), and their arguments by
place; `model_file` is sentencepiece's, within `sp_model_kwargs`. What a configuration says of most of them it puts
aside for what lies in the folder, but not of all, and not what special_tokens_map.json says."""

_MAX_HEADER = 16 << 20
"""The largest header of a safetensors file; the library's own limit, 100 MB, takes it seconds and hundreds of MB."""

MAX_CONFIG = 64 << 20
"""The largest configuration that is read."""


_EXPORT_AGAIN = "Export it again, or take the export from where it came from."


def _json_object(path: Path) -> dict[str, Any]:
    return read_json_object(path, MAX_CONFIG, FolderError, damaged=_EXPORT_AGAIN)


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) < 60 else f"{text[:57]}..."


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
            f"the exporter '{exporter}' claims a tolerance of {_short(share) if number else type(share).__name__}; "
            f"from 0 to {MAX_TOLERANCE:g} of the largest logit is allowed",
            hint="A tolerance is what the rounding of the stored type explains, and no more.",
        )
    return float(share)


def refuse_foreign_code(folder: Path) -> None:
    """Refuses an export that asks the library which loads it to run code, before that library sees it.

    Raises:
        ExportError: A configuration in it names code.
        FolderError: A configuration in it can't be read.
    """
    for path, data in _configurations(folder):
        named = next(_names_of_code(data), None)
        if named:
            raise ExportError(
                f"it names code that would be run to load it ('{named}'), and an export's own code is never run",
                where=str(path),
                hint="graftkit writes no such key: load this export with no program that asks whether to trust it.",
            )


def drop_foreign_code(folder: Path) -> None:
    """Takes out of an export's configurations what the base model's own said of code, and of files elsewhere."""
    for path, data in _configurations(folder):
        if next(_names_of_code(data), None) or next(_names_of_files(data), None):
            path.write_text(json.dumps(_without_code(data), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def refuse_bad_files(folder: Path) -> None:
    """Refuses an export whose files lead a library out of the folder, or wear it out, before that library sees it.

    Raises:
        ExportError: An index of shards or a tokenizer's configuration names a file elsewhere, the header of a tensor
            file is too large, or an entry is no regular file, such as a pipe, which a reader would wait for, or a link
            to a folder, whose files a library would load and no list of this one's files has.
        FolderError: An index or a configuration can't be read.
    """
    for path in sorted(folder.rglob("*")):
        if not (path.is_file() or path.is_dir()):
            raise ExportError("this is no regular file", where=str(path), hint=_EXPORT_AGAIN)
        if path.is_symlink() and path.is_dir():
            raise ExportError("this is a link to a folder, which leads out of it", where=str(path), hint=_EXPORT_AGAIN)
        if path.name.endswith(".index.json"):
            _check_index(path)
        elif path.suffix == ".safetensors" and path.is_file():
            check_tensor_header(path)
    for path, data in _configurations(folder):
        named = next(_names_of_files(data), None)
        if named:
            raise ExportError(f"its '{named}' leads out of the folder", where=str(path), hint=_EXPORT_AGAIN)


def refuse_bad_tokenizers(folder: Path) -> None:
    """Refuses an export with a tokenizer.json that graftkit's own reader would refuse, before a library runs it.

    A tokenizer_config.json may name another one for some versions of transformers, such as `tokenizer.5.0.json`.

    Raises:
        FolderError: One can't be read.
        ModelError: One could take very long, or make huge texts.
    """
    for path in sorted(folder.rglob("*tokenizer.*json*")):
        spec = read_json_object(path, MAX_FILE, FolderError, damaged=_EXPORT_AGAIN, unicode=True)
        check_bounds(spec, str(path.parent))


def check_tensor_header(path: Path) -> None:
    """Refuses a safetensors file whose header is larger than any that is written here, before the library reads it.

    Raises:
        ExportError: It is, or can't be read.
    """
    try:
        with open_regular(path) as file:
            length = int.from_bytes(file.read(8), "little")
    except OSError as error:
        raise ExportError(f"can't be read: {error.strerror}", where=str(path), hint=_EXPORT_AGAIN) from None
    if length > _MAX_HEADER:
        raise ExportError(
            f"its header claims {length:,} bytes; at most {_MAX_HEADER:,} are read", where=str(path), hint=_EXPORT_AGAIN
        )


def _check_index(path: Path) -> None:
    named = _json_object(path).get("weight_map")
    for name in named.values() if isinstance(named, dict) else [None]:
        if not isinstance(name, str) or name != PurePath(name).name or "\\" in name:
            raise ExportError(
                f"its weight_map names {_short(name)}, which is no file's name", where=str(path), hint=_EXPORT_AGAIN
            )


def _configurations(folder: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yields whatever transformers or peft may read as a configuration, those for certain versions among them.

    The keys of special_tokens_map.json go where those of tokenizer_config.json go.
    """
    for path in sorted([*folder.rglob("*config*.json"), *folder.rglob("special_tokens_map.json")]):
        yield path, _json_object(path)


def tokenizer_configs(folder: Path) -> dict[str, dict[str, Any]]:
    """Returns the fields of each tokenizer_config.json in an export that lies beside a tokenizer.json, by its path.

    Raises:
        FolderError: One can't be read.
    """
    found = [(path, data) for path, data in _configurations(folder) if path.name == "tokenizer_config.json"]
    beside = [(path, data) for path, data in found if path.with_name("tokenizer.json").is_file()]
    return {path.relative_to(folder).as_posix(): data for path, data in beside}


def _names_of_code(value: Any) -> Iterator[str]:
    """Yields each key at which a configuration, or one within it, names code."""
    for key, inner in value.items() if isinstance(value, dict) else ():
        if _is_code(key, inner):
            yield key
    for inner in _inside(value):
        yield from _names_of_code(inner)


def _is_code(key: str, value: Any) -> bool:
    if key in _FOREIGN_CODE:
        return bool(value)
    if key.removeprefix("_").removesuffix("_internal") in _KERNELS:
        return any("/" in str(name) for name in (value.values() if isinstance(value, dict) else [value]))
    return False


def _names_of_files(value: Any) -> Iterator[str]:
    """Yields each key by which a configuration, or one within it, has transformers open a file elsewhere."""
    for key, inner in value.items() if isinstance(value, dict) else ():
        if _is_file_elsewhere(key, inner):
            yield key
    for inner in _inside(value):
        yield from _names_of_files(inner)


def _is_file_elsewhere(key: str, value: Any) -> bool:
    if key == "transformers_weights":  # of any form, pickles among them
        return bool(value)
    if not (key in _FILES or key.endswith(_FILE_ENDINGS)):
        return False
    named = value if isinstance(value, list) and key not in _INLINE else [value]
    return any(isinstance(name, str) and _leads_out(name) for name in named)


def _leads_out(name: str) -> bool:
    return any(form(name).is_absolute() or ".." in form(name).parts for form in (PurePosixPath, PureWindowsPath))


def _inside(value: Any) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def _without_code(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_code(inner) for inner in value]
    if not isinstance(value, dict):
        return value
    return {
        key: _without_code(inner)
        for key, inner in value.items()
        if not _is_file_elsewhere(key, inner) and not _is_code(key, inner)
    }


def check_listed(folder: Path, listed: Any, below: tuple[str, ...] = ("",)) -> None:
    """Compares files with the hashes that a manifest lists.

    Args:
        folder: Where the files lie.
        listed: The manifest's list: each file's size and sha256 by its relative path.
        below: What the paths of the files that matter start with.

    Raises:
        FolderError: A file is missing or is another one, or the list is damaged.
    """
    if not isinstance(listed, Mapping):
        raise FolderError("its manifest is damaged: it lists no files", where=str(folder), hint=_EXPORT_AGAIN)
    for name, facts in listed.items():
        if not name.startswith(below):
            continue
        if _leads_out(name):
            raise FolderError(
                f"its manifest is damaged: it lists {_short(name)}, which leads out of it", where=str(folder)
            )
        path = folder / name
        if not isinstance(facts, Mapping) or not isinstance(facts.get("sha256"), str):
            raise FolderError(f"its manifest is damaged: it has no sha256 of {name}", where=str(folder))
        if not path.is_file() or sha256_of(path) != facts["sha256"]:
            state = "changed" if path.is_file() else "missing"
            raise FolderError(
                f"the file {name} is {state}: it is not the file that was written",
                where=str(folder),
                hint="Put it back: what lies there is not what was trained.",
            )


def check_none_beside(folder: Path, listed: Collection[str], below: str) -> None:
    """Makes sure that no file lies beside those that a run's manifest lists: a tokenizer backend would read it.

    Args:
        folder: The run.
        listed: The manifest's list.
        below: The folder of the run that is looked into; names in it that begin with a dot are nobody's.

    Raises:
        FolderError: There is one.
    """
    there = (path for path in sorted((folder / below).rglob("*")) if path.is_file())
    for path in there:
        if path.relative_to(folder).as_posix() not in listed and not path.name.startswith("."):
            raise FolderError(
                f"the file {path.relative_to(folder).as_posix()} is none of the run's: its manifest does not list it",
                where=str(folder),
                hint="Take it out: it would change what is loaded.",
            )


def outer_folder(export: Path) -> Path:
    """Returns the folder that an export was made in, `OUT` of `OUT/exports/NAME`, also where a link leads there."""
    return place_of_export(export).parent.parent


def with_replaced(
    listed: Mapping[str, Any], replacing: Mapping[str, Sequence[FileFacts]], folder: Path
) -> dict[str, Any]:
    """Returns a list of files, in which one that is being replaced is what lies there where it may be that.

    Args:
        listed: Each file's size and sha256 by its path.
        replacing: What else some of them may be.
        folder: Where they lie.
    """
    found = dict(listed)
    for name, others in replacing.items():
        path = folder / name
        there = sha256_of(path) if not _leads_out(name) and path.is_file() else None
        if there in [other.sha256 for other in others]:
            found[name] = {"bytes": path.stat().st_size, "sha256": there}
    return found


def listed_by_the_run(folder: Path) -> dict[str, Any]:
    """Returns what the manifest of the run that an export lies in says of its files; nothing without such a run.

    Raises:
        FolderError: That manifest is damaged.
    """
    run = run_around(folder)
    artifacts = with_replaced(run.artifacts, run.replacing, outer_folder(folder)) if run else {}
    for prefix in (f"exports/{place.name}/" for place in places_of(folder)):
        found = {name.removeprefix(prefix): facts for name, facts in artifacts.items() if name.startswith(prefix)}
        if found:
            return found
    return {}


def check_all_listed(folder: Path, export: ExportManifest) -> None:
    """Compares an export's files with its manifest. None may lie beside those listed: a library would load it.

    Raises:
        FolderError: A file is missing, is another one, or is not listed.
    """
    check_listed(folder, export.files_in(folder))
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    new = sorted(there - export.files.keys() - {EXPORT_MANIFEST})
    if new:
        raise FolderError(
            f"the file {new[0]} is none of the export's: its {EXPORT_MANIFEST} does not list it",
            where=str(folder),
            hint="Take it out, or try a copy of what was exported.",
        )
