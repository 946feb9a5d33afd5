"""Lists new added tokens in tokenizer_config.json."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

__all__ = ["with_added_tokens"]

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
