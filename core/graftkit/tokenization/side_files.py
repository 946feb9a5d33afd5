"""Small files beside a tokenizer, held as bytes by name: read as JSON or text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from graftkit.errors import ModelError
from graftkit.tokenization.tokenizer_json import dump

__all__ = ["SIDE_FILES", "chat_template_in", "content_of", "object_in", "text_in", "with_chat_template"]

_CONFIG = "tokenizer_config.json"
_TEMPLATE = "chat_template.jinja"

SIDE_FILES = (_CONFIG, "special_tokens_map.json", "added_tokens.json", _TEMPLATE)
"""The files that Hugging Face repositories keep beside a vocabulary."""


def content_of(token: object) -> str | None:
    """Returns the text of a token as tokenizer_config.json writes it: as a string, or as an object with `content`.

    Args:
        token: The field's value.

    Returns:
        The text; None where it is empty or the value is something else.
    """
    content = token.get("content") if isinstance(token, dict) else token
    return content if isinstance(content, str) and content else None


def object_in(files: Mapping[str, bytes], name: str, where: str) -> dict[str, Any]:
    """Returns a file's object, empty where there is no such file.

    Raises:
        ModelError: It is no JSON object.
    """
    if name not in files:
        return {}
    try:
        data = json.loads(files[name])
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{name} is no JSON: {error}", where=where) from None
    if not isinstance(data, dict):
        raise ModelError(f"{name} is no JSON object", where=where)
    return data


def text_in(files: Mapping[str, bytes], name: str, where: str) -> str | None:
    """Returns a file's text, or None where there is no such file.

    Raises:
        ModelError: It is not UTF-8.
    """
    if name not in files:
        return None
    try:
        return files[name].decode("utf-8")
    except UnicodeDecodeError:
        raise ModelError(f"{name} is not UTF-8", where=where) from None


def chat_template_in(files: Mapping[str, bytes], where: str) -> str | None:
    """Returns the chat template: that of its own file, or else of the configuration; a blank one is none.

    Raises:
        ModelError: One of them can't be read.
    """
    template = text_in(files, _TEMPLATE, where)
    if template is None:
        template = object_in(files, _CONFIG, where).get("chat_template")
    if isinstance(template, list):
        named = {entry.get("name"): entry.get("template") for entry in template if isinstance(entry, dict)}
        template = named.get("default")
    return template if isinstance(template, str) and template.strip() else None


def with_chat_template(files: Mapping[str, bytes], template: str, where: str) -> dict[str, bytes]:
    """Returns the files with another chat template and no other one: in the configuration, where that has one alone.

    Raises:
        ModelError: The configuration is no JSON object.
    """
    config = object_in(files, _CONFIG, where)
    in_config = "chat_template" in config
    if in_config and _TEMPLATE not in files:
        return {**files, _CONFIG: dump({**config, "chat_template": template})}
    kept = {key: value for key, value in config.items() if key != "chat_template"}
    changed = {_CONFIG: dump(kept)} if in_config else {}
    return {**files, **changed, _TEMPLATE: template.encode("utf-8")}
