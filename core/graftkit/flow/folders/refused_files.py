"""Refuses files of an export by which a library would run code, read elsewhere, or take endless time or memory."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePath
from typing import Any

from graftkit.errors import ExportError, FolderError
from graftkit.flow.base_files.foreign_code import FOREIGN_CODE
from graftkit.flow.folders.export_json import EXPORT_AGAIN, json_object, short_json
from graftkit.flow.folders.listed_files import leads_out
from graftkit.interfaces.json_file import read_json_object
from graftkit.interfaces.regular_file import open_regular
from graftkit.tokenization.bounds import MAX_FILE, check_bounds

__all__ = [
    "check_tensor_header",
    "drop_foreign_code",
    "refuse_bad_export",
    "refuse_bad_files",
    "refuse_bad_tokenizers",
    "refuse_embedded_adapter",
    "refuse_foreign_code",
    "tokenizer_configs",
]

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


def refuse_foreign_code(folder: Path) -> None:
    """Refuses an export that asks the library which loads it to run code, before that library sees it.

    Raises:
        ExportError: A configuration in it names code.
        FolderError: A configuration in it can't be read.
    """
    for path, data in _configurations(folder):
        named = next(_keys_where(data, _is_code), None)
        if named:
            raise ExportError(
                f"it names code that would be run to load it ('{named}'), and an export's own code is never run",
                where=str(path),
                hint="graftkit writes no such key: load this export with no program that asks whether to trust it.",
            )


def drop_foreign_code(folder: Path) -> None:
    """Takes out of an export's configurations what the base model's own said of code, and of files elsewhere."""
    for path, data in _configurations(folder):
        if next(_keys_where(data, _is_dropped), None):
            path.write_text(json.dumps(_without_code(data), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def refuse_bad_files(folder: Path) -> None:
    """Refuses an export whose files lead a library out of the folder, or wear it out, before that library sees it.

    Raises:
        ExportError: An index of shards or a tokenizer's configuration names a file elsewhere, the same weights are
            there in shards and in one file, the header of a tensor file is too large, or an entry is no regular file,
            such as a pipe, which a reader would wait for, or a link to a folder, whose files a library would load and
            no list of this one's files has.
        FolderError: An index or a configuration can't be read.
    """
    for path in sorted(folder.rglob("*")):
        if not (path.is_file() or path.is_dir()):
            raise ExportError("this is no regular file", where=str(path), hint=EXPORT_AGAIN)
        if path.is_symlink() and path.is_dir():
            raise ExportError("this is a link to a folder, which leads out of it", where=str(path), hint=EXPORT_AGAIN)
        if path.name.endswith(".index.json"):
            _check_index(path)
        elif path.suffix == ".safetensors" and path.is_file():
            check_tensor_header(path)
    for path, data in _configurations(folder):
        named = next(_keys_where(data, _is_file_elsewhere), None)
        if named:
            raise ExportError(f"its '{named}' leads out of the folder", where=str(path), hint=EXPORT_AGAIN)


def refuse_embedded_adapter(folder: Path) -> None:
    """Refuses an export of a whole model in whose folder an adapter lies, too.

    transformers has PEFT build it onto the model unasked, whatever its adapter_config.json asks for; other programs
    load the model alone.

    Raises:
        ExportError: There is one.
    """
    for path in sorted(folder.rglob("adapter_config.json")):
        if path.with_name("config.json").exists():
            raise ExportError(
                "an adapter lies beside a whole model: programs differ in whether they load it",
                where=str(path),
                hint=EXPORT_AGAIN,
            )


def refuse_bad_export(folder: Path) -> None:
    """Refuses an export that no library may see: with code, files that are not its own, or an adapter beside a model.

    Raises:
        ExportError: See `refuse_foreign_code`, `refuse_bad_files` and `refuse_embedded_adapter`.
    """
    refuse_foreign_code(folder)
    refuse_bad_files(folder)
    refuse_embedded_adapter(folder)


def refuse_bad_tokenizers(folder: Path) -> None:
    """Refuses an export with a tokenizer.json that graftkit's own reader would refuse, before a library runs it.

    A tokenizer_config.json may name another one for some versions of transformers, such as `tokenizer.5.0.json`.

    Raises:
        FolderError: One can't be read.
        ModelError: One could take very long, or make huge texts.
    """
    for path in sorted(folder.rglob("*tokenizer.*json*")):
        spec = read_json_object(path, MAX_FILE, FolderError, damaged=EXPORT_AGAIN, unicode=True)
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
        raise ExportError(f"can't be read: {error.strerror}", where=str(path), hint=EXPORT_AGAIN) from None
    if length > _MAX_HEADER:
        raise ExportError(
            f"its header claims {length:,} bytes; at most {_MAX_HEADER:,} are read", where=str(path), hint=EXPORT_AGAIN
        )


def _check_index(path: Path) -> None:
    found = json_object(path).get("weight_map")
    named = list(found.values()) if isinstance(found, dict) else [None]
    for name in named:
        if not isinstance(name, str) or name != PurePath(name).name or "\\" in name:
            raise ExportError(
                f"its weight_map names {short_json(name)}, which is no file's name", where=str(path), hint=EXPORT_AGAIN
            )
    whole = path.with_name(path.name.removesuffix(".index.json"))
    if whole.exists() and {*named} != {whole.name}:
        raise ExportError(
            f"{whole.name} lies beside this index of shards: programs differ in which of them they load",
            where=str(path),
            hint=EXPORT_AGAIN,
        )


def tokenizer_configs(folder: Path) -> dict[str, dict[str, Any]]:
    """Returns the fields of each tokenizer_config.json in an export that lies beside a tokenizer.json, by its path.

    Raises:
        FolderError: One can't be read.
    """
    found = [(path, data) for path, data in _configurations(folder) if path.name == "tokenizer_config.json"]
    beside = [(path, data) for path, data in found if path.with_name("tokenizer.json").is_file()]
    return {path.relative_to(folder).as_posix(): data for path, data in beside}


def _configurations(folder: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yields whatever transformers or peft may read as a configuration, those for certain versions among them.

    The keys of special_tokens_map.json go where those of tokenizer_config.json go.
    """
    for path in sorted([*folder.rglob("*config*.json"), *folder.rglob("special_tokens_map.json")]):
        yield path, json_object(path)


def _keys_where(value: Any, meant: Callable[[str, Any], bool]) -> Iterator[str]:
    """Yields each key of a configuration, or of one within it, that is meant, which is asked with its value."""
    for key, inner in value.items() if isinstance(value, dict) else ():
        if meant(key, inner):
            yield key
    for inner in _inside(value):
        yield from _keys_where(inner, meant)


def _is_code(key: str, value: Any) -> bool:
    """Tells whether a configuration names code by a key."""
    if key in FOREIGN_CODE:
        return bool(value)
    if key.removeprefix("_").removesuffix("_internal") in _KERNELS:
        return any("/" in str(name) for name in (value.values() if isinstance(value, dict) else [value]))
    return False


def _is_file_elsewhere(key: str, value: Any) -> bool:
    """Tells whether a configuration has transformers open a file elsewhere by a key."""
    if key == "transformers_weights":  # of any form, pickles among them
        return bool(value)
    if not (key in _FILES or key.endswith(_FILE_ENDINGS)):
        return False
    named = value if isinstance(value, list) and key not in _INLINE else [value]
    return any(isinstance(name, str) and leads_out(name) for name in named)


def _is_dropped(key: str, value: Any) -> bool:
    """Tells whether no export has a key that the base model's configuration has."""
    return _is_file_elsewhere(key, value) or _is_code(key, value)


def _inside(value: Any) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def _without_code(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_code(inner) for inner in value]
    if not isinstance(value, dict):
        return value
    return {key: _without_code(inner) for key, inner in value.items() if not _is_dropped(key, inner)}
