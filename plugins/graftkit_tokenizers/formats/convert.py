"""Reads tokenizers in formats other than tokenizer.json, and converts to them."""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from graftkit.errors import RequestError, named
from graftkit.interfaces.temporary import temporary_folder
from graftkit.tokenization.tokenizer_json import dump
from tokenizers import Tokenizer

from graftkit_tokenizers.formats.files import BESIDE, Converted, Options

__all__ = ["FILES", "is_there", "read", "write"]

_READERS = {
    "gpt2": ("gpt2_files",),
    "tiktoken": ("tiktoken_files", "tekken_file"),
    "wordpiece": ("wordpiece_files",),
}
"""Format -> the modules that read it; the first one writes it, too."""

FILES = {
    "gpt2": ("vocab.json with merges.txt",),
    "tiktoken": ("*.tiktoken", "tekken.json"),
    "wordpiece": ("vocab.txt",),
}
"""Format -> its files, for messages."""


def _readers(formats: Sequence[str]) -> list[Any]:
    names = [name for format in formats for name in _READERS.get(format, ())]
    return [importlib.import_module(f"graftkit_tokenizers.formats.{name}") for name in names]


def is_there(path: Path, formats: Sequence[str]) -> bool:
    """Tells whether a folder or file holds a tokenizer in one of the formats."""
    return any(reader.find(path) for reader in _readers(formats))


def read(path: Path, formats: Sequence[str], options: Options) -> Converted | None:
    """Returns a tokenizer as a tokenizer.json, or None where there is none in these formats.

    Raises:
        ModelError: A file is malformed.
        RequestError: The options name an unknown or malformed pattern.
    """
    for reader in _readers(formats):
        found = reader.find(path)
        if found is not None:
            with named(str(found)):
                converted: Converted = reader.read(found, options)
            return converted
    return None


def write(
    spec: Mapping[str, Any], config: Mapping[str, Any], files: Mapping[str, bytes], format: str
) -> dict[str, bytes]:
    """Returns a tokenizer's files in another format.

    Args:
        spec: Its tokenizer.json.
        config: Its tokenizer_config.json, with the token of every role.
        files: Its files; those beside the vocabulary are kept.
        format: The format's name.

    Raises:
        RequestError: There is no such format, or it can't represent this tokenizer.
    """
    if format not in _READERS:
        raise RequestError(
            f"a tokenizer.json can't be saved as '{format}'", hint=f"Known: huggingface, {', '.join(_READERS)}."
        )
    kept = {name: data for name, data in files.items() if name in BESIDE} | {
        "tokenizer_config.json": dump(dict(config))
    }
    written: dict[str, bytes] = kept | _readers([format])[0].write(spec, config)
    lost = [] if format == "tiktoken" else _lost(spec, written, format)  # its `write` has checked every part
    if lost:
        raise RequestError(
            f"the format '{format}' can't hold this tokenizer: its {' and '.join(lost)} would be others",
            hint="Save it as 'huggingface'.",
        )
    return written


def _lost(spec: Mapping[str, Any], written: Mapping[str, bytes], format: str) -> list[str]:
    """Returns the parts of a tokenizer.json that differ after the written files are read back."""
    with temporary_folder() as folder:
        for name, data in written.items():
            (folder / name).write_bytes(data)
        again = read(folder, [format], Options())
    old, new = _meaning(spec), _meaning(again.spec if again else {})
    lost = [name for name in old if old[name] != new.get(name)]
    same = lost == ["ignore_merges"] and _merging_gives_every_piece(spec)
    return [] if same else [name.replace("_", " ") for name in lost]


def _merging_gives_every_piece(spec: Mapping[str, Any]) -> bool:
    """Tells whether merging the characters of each piece gives that piece, so that `ignore_merges` changes nothing."""
    model = {**spec["model"], "ignore_merges": False}
    bare = Tokenizer.from_str(json.dumps({"version": "1.0", "added_tokens": [], "model": model}))
    added = {token["content"] for token in spec.get("added_tokens", [])}
    found = bare.encode_batch_fast([piece for piece in model["vocab"] if piece not in added])
    return all(len(encoding.ids) == 1 for encoding in found)


def _meaning(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the parts of a tokenizer.json that decide ids and decoded text, in a canonical form."""
    whole: dict[str, Any] = json.loads(Tokenizer.from_str(json.dumps(spec)).to_str())
    model = {key: value or None for key, value in whole["model"].items()}
    added = {token["content"]: token["id"] for token in whole["added_tokens"]}
    parts = {name: _plain(whole[name]) for name in ("added_tokens", "normalizer", "pre_tokenizer")}
    decoder = whole["decoder"] or {}
    if decoder.get("type") == "ByteLevel":
        decoder = {"type": "ByteLevel"}
    return {**parts, "decoder": decoder, **model, "vocab": {**(model["vocab"] or {}), **added}}


def _plain(part: Any) -> Any:
    """Returns a part without `trim_offsets`, which changes offsets alone."""
    if isinstance(part, dict):
        return {key: _plain(value) for key, value in part.items() if key != "trim_offsets"}
    return [_plain(value) for value in part] if isinstance(part, list) else part
