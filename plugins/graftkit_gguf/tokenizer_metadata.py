"""Says what a tokenizer is in the metadata of a GGUF file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from graftkit.errors import ExportError

from graftkit_gguf.splitting import SPLITTINGS, missing_bytes_apart

__all__ = ["splitting_name", "tokenizer_metadata"]

_NORMAL, _CONTROL, _USER_DEFINED, _UNUSED = 1, 3, 4, 5
_ROLES = {"bos": "bos_token_id", "eos": "eos_token_id", "unk": "unknown_token_id", "pad": "padding_token_id"}


def splitting_name(spec: Mapping[str, Any]) -> str:
    """Returns the value of `tokenizer.ggml.pre` that splits text as a tokenizer.json does.

    Args:
        spec: The content of tokenizer.json.

    Raises:
        ExportError: llama.cpp has no such way, or graftkit knows none for it.
    """
    model = spec.get("model", {})
    if model.get("type") != "BPE" or spec.get("normalizer") is not None or model.get("byte_fallback"):
        raise ExportError("only byte-level BPE tokenizers without a normalizer have a form in GGUF here")
    found = spec.get("pre_tokenizer") or {}
    parts = found.get("pretokenizers", [found])
    for name, splitting in SPLITTINGS.items():
        wanted = [*splitting.pre_tokenizers, *missing_bytes_apart(model["vocab"])]
        plain = [*map(_essence, splitting.pre_tokenizers)]
        same = [*map(_essence, parts)] in (plain, [*map(_essence, wanted)])
        if same and bool(model.get("ignore_merges")) == splitting.whole_words:
            return name
    raise ExportError(
        "the tokenizer splits text in a way that has no name in llama.cpp, or none that graftkit knows",
        hint=f"Known are {', '.join(SPLITTINGS)}.",
    )


def _essence(part: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a pre-tokenizer without what changes no piece."""
    return {key: value for key, value in part.items() if key not in ("trim_offsets",)}


def tokenizer_metadata(
    folder: Path, rows: int, roles: Mapping[str, int | None], added: tuple[bool, bool], stop: list[int]
) -> dict[str, Any]:
    """Returns the keys of `tokenizer.*`.

    Args:
        folder: Where the tokenizer's files are.
        rows: Rows of the embedding: llama.cpp wants a token for each.
        roles: The ids of "bos", "eos", "unk", "pad".
        added: Whether a text begins with the beginning-of-sequence token, and ends with the end-of-sequence token.
        stop: The tokens that end an answer.

    Raises:
        ExportError: The tokenizer has no form in GGUF.
    """
    spec = json.loads((folder / "tokenizer.json").read_bytes())
    pre = splitting_name(spec)
    tokens = [f"[PAD{id}]" for id in range(rows)]
    types = [_UNUSED] * rows
    for token, id in spec["model"]["vocab"].items():
        tokens[id], types[id] = token, _NORMAL
    for token in spec.get("added_tokens", ()):
        tokens[token["id"]], types[token["id"]] = token["content"], _CONTROL if token["special"] else _USER_DEFINED
    found: dict[str, Any] = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.merges": [" ".join(merge) for merge in spec["model"]["merges"]],
        **{f"tokenizer.ggml.{key}": roles[role] for role, key in _ROLES.items() if roles.get(role) is not None},
        "tokenizer.ggml.add_bos_token": added[0],
        "tokenizer.ggml.add_eos_token": added[1],
    }
    others = [id for id in stop if id != roles.get("eos")]
    if others:
        found["tokenizer.ggml.eot_token_id"] = others[0]
    return found
