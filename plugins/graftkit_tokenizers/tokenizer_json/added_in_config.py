"""Keeps tokenizer_config.json in step with the added tokens of a tokenizer.json."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

__all__ = ["with_added_tokens"]

Json = dict[str, Any]

_NAME = "tokenizer_config.json"
_FIELDS = ("content", "lstrip", "normalized", "rstrip", "single_word", "special")


def with_added_tokens(files: Mapping[str, bytes], spec: Mapping[str, Any]) -> dict[str, bytes]:
    """Returns the files with every added token listed in the configuration, if it lists any.

    Where it does, transformers takes the list for whole: a token that is only in the tokenizer.json stays text there.

    Args:
        files: A tokenizer's files by name.
        spec: The tokenizer.json that they are to go with.
    """
    config: Json = json.loads(files[_NAME]) if _NAME in files else {}
    listed = config.get("added_tokens_decoder")
    missing = [token for token in spec.get("added_tokens", []) if str(token["id"]) not in (listed or {})]
    if not isinstance(listed, dict) or not listed or not missing:
        return dict(files)
    new = {str(token["id"]): {field: token[field] for field in _FIELDS} for token in missing}
    config["added_tokens_decoder"] = {**listed, **new}
    return {**files, _NAME: (json.dumps(config, ensure_ascii=False, indent=2) + "\n").encode("utf-8")}
