"""What an export says of itself: read as a stranger's word, since an export may come from anywhere."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from graftkit.errors import ExportError, FolderError
from graftkit.store.files import sha256_of

__all__ = [
    "EXPORT_MANIFEST",
    "MAX_TOLERANCE",
    "OF_THE_MANIFEST",
    "check_listed",
    "checked_tolerance",
    "drop_foreign_code",
    "read_export_manifest",
    "refuse_foreign_code",
]

EXPORT_MANIFEST = "graftkit.json"

MAX_TOLERANCE = 0.1
"""The largest tolerance that core accepts, as a share of the largest logit. bfloat16, the coarsest type that is stored
here, is allowed 0.05; at a tenth a base model can already pass for what was trained on it."""

_SHAPES: Mapping[str, type | tuple[type, ...]] = {
    "graftkit": str,
    "exporter": dict,
    "model": dict,
    "model_source": dict,
    "quantizer": dict,
    "adapter": dict,
    "targets": list,
    "tokenizer": dict,
    "tokenizer_fingerprint": str,
    "dtype": str,
    "stop_tokens": list,
    "system": (str, type(None)),
    "chat_template": (str, type(None)),
    "tolerance": (int, float),
    "files": dict,
    "proof": dict,
}

OF_THE_MANIFEST = frozenset(_SHAPES)
"""What core says in an export's manifest; an exporter's facts stand beside it."""

_TO_PROVE = ("exporter", "model", "model_source", "quantizer", "dtype", "tolerance")

_DTYPES = ("float32", "bfloat16", "float16")

_FOREIGN_CODE = frozenset({"auto_map", "auto_mapping", "custom_pipelines", "custom_generate", "megatron_config"})
"""Keys that make a library import a module that a model's folder names, or brings."""

_MAX_CONFIG = 64 << 20


def read_export_manifest(folder: Path, needed: tuple[str, ...] = _TO_PROVE) -> dict[str, Any]:
    """Reads an export's manifest and checks the shape of what is needed of it.

    Raises:
        FolderError: There is none, or it is damaged.
    """
    path = folder / EXPORT_MANIFEST
    data = _json_object(path)
    for key in needed:
        value = data.get(key, ...)
        if value is ...:
            raise FolderError(f"it is damaged: it does not say '{key}'", where=str(path), hint=_EXPORT_AGAIN)
        if not isinstance(value, _SHAPES[key]) or isinstance(value, bool):
            raise FolderError(f"it is damaged: '{key}' is {_short(value)}", where=str(path), hint=_EXPORT_AGAIN)
    if "dtype" in needed and data["dtype"] not in _DTYPES:
        raise FolderError(f"it is damaged: 'dtype' is {_short(data['dtype'])}", where=str(path), hint=_EXPORT_AGAIN)
    if "model" in needed and not isinstance(data["model"].get("reference"), str):
        raise FolderError("it is damaged: 'model' has no reference", where=str(path), hint=_EXPORT_AGAIN)
    return data


_EXPORT_AGAIN = "Export it again, or take the export from where it came from."


def _json_object(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _MAX_CONFIG:
            raise FolderError(f"it is larger than {_MAX_CONFIG >> 20} MB", where=str(path))
        data = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise FolderError("there is no such file", where=str(path)) from None
    except (OSError, ValueError, RecursionError) as error:
        raise FolderError(f"it can't be read as JSON: {error}", where=str(path), hint=_EXPORT_AGAIN) from None
    if not isinstance(data, dict):
        raise FolderError("it is damaged: it is no JSON object", where=str(path), hint=_EXPORT_AGAIN)
    return data


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
    found = _foreign_code(folder)
    if found:
        path, named = found[0]
        raise ExportError(
            f"it names code that would be run to load it ('{named[0]}'), and an export's own code is never run",
            where=str(path),
            hint="graftkit writes no such key: do not load this export with a program that asks whether to trust it.",
        )


def drop_foreign_code(folder: Path) -> None:
    """Takes out of an export's configurations what the base model's own said of code: nothing here ran it."""
    for path, named in _foreign_code(folder):
        kept = {key: value for key, value in _json_object(path).items() if key not in named}
        path.write_text(json.dumps(kept, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _foreign_code(folder: Path) -> list[tuple[Path, list[str]]]:
    found = []
    for path in sorted(folder.rglob("*config.json")):
        data = _json_object(path)
        named = sorted(key for key in _FOREIGN_CODE & data.keys() if data[key])
        if named:
            found.append((path, named))
    return found


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
