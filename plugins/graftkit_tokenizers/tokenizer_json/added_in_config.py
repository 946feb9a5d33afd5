"""Keeps the added tokens of tokenizer.json and of tokenizer_config.json in step."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Set
from typing import Any

from graftkit.tokenization.tokenizer_json import added_token

__all__ = ["with_added_tokens", "with_flags"]

Json = dict[str, Any]

_NAME = "tokenizer_config.json"
_FIELDS = ("content", "lstrip", "normalized", "rstrip", "single_word", "special")


def with_added_tokens(files: Mapping[str, bytes], spec: Mapping[str, Any]) -> dict[str, bytes]:
    """Returns the files with every added token in `added_tokens_decoder`, if the configuration has that field.

    Where it has, transformers takes the list as complete: a token that is only in the tokenizer.json is text to it.

    Args:
        files: A tokenizer's files by name.
        spec: The tokenizer.json.
    """
    config: Json = json.loads(files[_NAME]) if _NAME in files else {}
    listed = config.get("added_tokens_decoder")
    missing = [token for token in spec.get("added_tokens", []) if str(token["id"]) not in (listed or {})]
    if not isinstance(listed, dict) or not listed or not missing:
        return dict(files)
    new = {str(token["id"]): {field: token[field] for field in _FIELDS} for token in missing}
    config["added_tokens_decoder"] = {**listed, **new}
    return {**files, _NAME: (json.dumps(config, ensure_ascii=False, indent=2) + "\n").encode("utf-8")}


def with_flags(spec: Mapping[str, Any], special: Set[str], id_of: Callable[[str], int | None]) -> Json | None:
    """Returns a tokenizer.json in which some tokens are special ones.

    As in transformers, a token of the vocabulary that is no added one becomes one with its id; a token that is not in
    the vocabulary is left out, since the model has no row for it.

    Args:
        spec: The tokenizer.json.
        special: The tokens.
        id_of: Returns the id of one that is no added token, or None.

    Returns:
        The changed one; None where they are special in it already.
    """
    added = spec.get("added_tokens", [])
    known = {token["content"] for token in added}
    ids = {name: id_of(name) for name in sorted(special - known)}
    new = [added_token(id, name) for name, id in ids.items() if id is not None]
    if not new and all(token.get("special") for token in added if token["content"] in special):
        return None
    flagged = [{**token, "special": True} if token["content"] in special else token for token in added]
    return {**spec, "added_tokens": sorted([*flagged, *new], key=lambda token: int(token["id"]))}
