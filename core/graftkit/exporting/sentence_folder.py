"""What makes a model's folder one that sentence-transformers loads: how hidden states become a vector of a text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from graftkit.errors import ExportError
from graftkit.interfaces.architecture import EMBEDDING_POOLING, EMBEDDING_PROMPTS, PooledBy, state_width
from graftkit.interfaces.json_file import read_json_object, write_json
from graftkit.interfaces.sentence_files import POOLING_KEYS, pooling_modes

__all__ = ["pooling_in", "write_sentence_files"]

_MODULES = {"": "Transformer", "1_Pooling": "Pooling", "2_Normalize": "Normalize"}
"""The folders of the modules that a text goes through, with the names of their classes."""

_PADS = ("eos_token", "bos_token", "unk_token")
"""What is padded with in place of a token of its own: the first that there is."""

_MOST_BYTES = 1 << 16


def write_sentence_files(folder: Path, config: Mapping[str, Any]) -> None:
    """Writes the files of sentence-transformers beside a model that gives vectors; nothing beside another one.

    Args:
        folder: The model's folder, complete.
        config: Its config.json, which says how hidden states are pooled, and what is put before texts.
    """
    by = config.get(EMBEDDING_POOLING)
    if by is None:
        return
    modules = [
        {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{name}"}
        for number, (path, name) in enumerate(_MODULES.items())
    ]
    write_json(folder / "modules.json", modules)
    pooling = {key: mode == by for key, mode in POOLING_KEYS.items() if mode in get_args(PooledBy)}
    (folder / "1_Pooling").mkdir()
    width = {"word_embedding_dimension": _width(folder)}
    write_json(folder / "1_Pooling" / "config.json", {**width, **pooling, "include_prompt": True})
    _name_padding(folder)
    prompts = config.get(EMBEDDING_PROMPTS) or {}
    write_json(
        folder / "config_sentence_transformers.json",
        {"prompts": dict(prompts), "default_prompt_name": None, "similarity_fn_name": "cosine"},
    )


def pooling_in(folder: Path) -> str | None:
    """Returns what `write_sentence_files` said of how hidden states are pooled; None where it wrote nothing.

    Args:
        folder: The model's folder.

    Raises:
        ExportError: The file can't be read, or asks for something else than one of the ways that are written.
    """
    path = folder / "1_Pooling" / "config.json"
    if not path.is_file():
        return None
    found = pooling_modes(read_json_object(path, _MOST_BYTES, ExportError))
    if len(found) != 1 or found[0] not in get_args(PooledBy):
        raise ExportError("it does not ask for one way of pooling", where=str(path))
    return str(found[0])


def _width(folder: Path) -> int:
    from transformers import AutoConfig

    return state_width(AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True))


def _name_padding(folder: Path) -> None:
    """Says what sentence-transformers pads with, as it always does, where the tokenizer has no token for that.

    No vector is made of it. The tokenizer's own files stay as they are.

    Args:
        folder: The model's folder.
    """
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    named = next((settings[role] for role in _PADS if settings.get(role) is not None), None)
    if named is not None and settings.get("pad_token") is None:
        token = named["content"] if isinstance(named, Mapping) else named
        write_json(folder / "sentence_bert_config.json", {"tokenizer_args": {"pad_token": token}})
