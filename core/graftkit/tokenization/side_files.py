"""The small files beside a tokenizer's vocabulary, given as name -> bytes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from graftkit.errors import ModelError
from graftkit.interfaces.bounded_json import parse_json
from graftkit.interfaces.regular_file import MOST_BYTES, check_own_file, read_own_file
from graftkit.tokenization.tokenizer_json import dump

__all__ = [
    "SIDE_FILES",
    "additional_templates",
    "chat_template_in",
    "chat_templates_in",
    "content_of",
    "named_tokens",
    "object_in",
    "read_files",
    "special_names",
    "templates_as_config",
    "text_in",
    "with_chat_template",
    "write_files",
]

_CONFIG = "tokenizer_config.json"
_TEMPLATE = "chat_template.jinja"
_ADDITIONAL, _JINJA = "additional_chat_templates", ".jinja"

_LISTS = ("additional_special_tokens", "extra_special_tokens")
_NAMED = ("extra_special_tokens", "model_specific_special_tokens")

_MOST_TOGETHER = 96 << 20
"""The most bytes of a tokenizer's files together: a tokenizer.json of 45 million bytes for 65,000 added tokens has 27
million bytes of lists of these beside it, and a folder may hold any number of chat templates."""

_MOST_TEMPLATES = 1000
"""Chat templates in a folder; models in use have a handful."""

SIDE_FILES = (_CONFIG, "special_tokens_map.json", "added_tokens.json", _TEMPLATE)
"""The files that Hugging Face repositories keep beside a vocabulary."""


def read_files(folder: Path, names: Iterable[str], limit: int = MOST_BYTES) -> dict[str, bytes]:
    """Returns those of some files that a folder has: name -> bytes.

    Args:
        folder: Where they lie.
        names: What they are called.
        limit: The most bytes that each may have.

    Raises:
        ModelError: One can't be read, or is larger, or they have over 96 MB together.
    """
    found: dict[str, bytes] = {}
    for name in names:
        if (folder / name).is_file():
            try:
                found[name] = read_own_file(folder / name, limit)
            except OSError as error:
                raise ModelError(f"can't be read: {error.strerror}", where=str(folder / name)) from error
            if sum(map(len, found.values())) > _MOST_TOGETHER:
                raise ModelError(f"the tokenizer's files are larger than {_MOST_TOGETHER >> 20} MB", where=str(folder))
    return found


def content_of(token: object) -> str | None:
    """Returns the text of a token as tokenizer_config.json writes it: as a string, or as an object with `content`.

    Args:
        token: The field's value.

    Returns:
        The text; None where it is empty or the value is something else.
    """
    content = token.get("content") if isinstance(token, dict) else token
    return content if isinstance(content, str) and content else None


def named_tokens(config: Mapping[str, Any]) -> dict[str, str]:
    """Returns the special tokens that a configuration names: `bos_token`, `image_token`, ... -> text.

    Those are the variables that transformers gives a chat template.

    Args:
        config: The fields of tokenizer_config.json and special_tokens_map.json.
    """
    fields = {key: value for key, value in config.items() if key.endswith("_token")}
    for key in _NAMED:
        more = config.get(key)
        fields |= more if isinstance(more, dict) else {}
    return {key: content for key, value in fields.items() if (content := content_of(value)) is not None}


def special_names(config: Mapping[str, Any]) -> set[str]:
    """Returns the texts of the tokens that a configuration says are special: by name, in a list, or by their flag.

    Args:
        config: The fields of tokenizer_config.json and special_tokens_map.json.
    """
    listed = [token for key in _LISTS if isinstance(config.get(key), list) for token in config[key]]
    decoder = config.get("added_tokens_decoder")
    flagged = decoder.values() if isinstance(decoder, dict) else ()
    listed += [token for token in flagged if isinstance(token, dict) and token.get("special") is True]
    return {*named_tokens(config).values(), *(content for token in listed if (content := content_of(token)))}


def object_in(files: Mapping[str, bytes], name: str, where: str) -> dict[str, Any]:
    """Returns the JSON object in a file; empty where there is no such file.

    Args:
        files: Name -> bytes.
        name: The file.
        where: The folder, for the error.

    Raises:
        ModelError: The file is no JSON object.
    """
    if name not in files:
        return {}
    try:
        data = parse_json(files[name], unicode=True)
    except ValueError as error:
        raise ModelError(f"{name} is no JSON: {error}", where=where) from None
    if not isinstance(data, dict):
        raise ModelError(f"{name} is no JSON object", where=where)
    return data


def text_in(files: Mapping[str, bytes], name: str, where: str) -> str | None:
    """Returns a file's text, or None where there is no such file.

    Args:
        files: Each file's bytes by its name.
        name: The file's name.
        where: Its folder, for the error.

    Raises:
        ModelError: It is not UTF-8.
    """
    if name not in files:
        return None
    try:
        return files[name].decode("utf-8")
    except UnicodeDecodeError:
        raise ModelError(f"{name} is not UTF-8", where=where) from None


def additional_templates(folder: Path) -> list[str]:
    """Returns the names of a folder's files `additional_chat_templates/NAME.jinja`, relative to it and sorted.

    Raises:
        ModelError: They lie in a folder that `check_own_file` refuses, since it is a link to another one elsewhere; or
            there are very many.
    """
    place = folder / _ADDITIONAL
    try:
        check_own_file(place)
        found = [path.name for path, _ in zip(place.glob(f"*{_JINJA}"), range(_MOST_TEMPLATES + 1), strict=False)]
    except OSError as error:
        raise ModelError(f"can't be read: {error.strerror}", where=str(place)) from error
    if len(found) > _MOST_TEMPLATES:
        raise ModelError(f"it holds over {_MOST_TEMPLATES:,} chat templates", where=str(place))
    return [f"{_ADDITIONAL}/{name}" for name in sorted(found) if (place / name).is_file()]


def chat_templates_in(files: Mapping[str, bytes], where: str) -> dict[str, str]:
    """Returns the chat templates by name, as transformers reads them: the usual one is called "default".

    They are chat_template.jinja and the files of additional_chat_templates; without any of these, the field in
    tokenizer_config.json, which is a template or a list of named ones. Blank ones are left out.

    Args:
        files: Name -> bytes.
        where: The folder, for the error.

    Raises:
        ModelError: One of the files is malformed.
    """
    names = {_TEMPLATE: "default"} | {
        name: name.removeprefix(f"{_ADDITIONAL}/").removesuffix(_JINJA) for name in files if _is_additional(name)
    }
    found: dict[Any, Any] = {name: text_in(files, file, where) for file, name in names.items() if file in files}
    said = object_in(files, _CONFIG, where).get("chat_template") if not found else None
    if isinstance(said, list):
        found = {entry.get("name"): entry.get("template") for entry in said if isinstance(entry, dict)}
    elif said is not None:
        found = dict(said) if isinstance(said, dict) else {"default": said}
    return {
        name: text for name, text in found.items() if isinstance(name, str) and isinstance(text, str) and text.strip()
    }


def templates_as_config(default: str | None, named: Mapping[str, str]) -> dict[str, Any]:
    """Returns chat templates as the field of a tokenizer_config.json: a text, or a list where there are named ones.

    Args:
        default: The template that is used unless another one is named, or None.
        named: The others by name.
    """
    if not named:
        return {} if default is None else {"chat_template": default}
    found = named if default is None else {"default": default, **named}
    return {"chat_template": [{"name": name, "template": text} for name, text in found.items()]}


def _is_additional(name: str) -> bool:
    return name.startswith(f"{_ADDITIONAL}/") and name.endswith(_JINJA)


def chat_template_in(files: Mapping[str, bytes], where: str) -> str | None:
    """Returns the chat template that is used unless another one is named; None where there is none.

    Args:
        files: Name -> bytes.
        where: The folder, for the error.

    Raises:
        ModelError: One of the files is malformed.
    """
    return chat_templates_in(files, where).get("default")


def with_chat_template(files: Mapping[str, bytes], template: str, where: str) -> dict[str, bytes]:
    """Returns the files with one chat template in place of any: in tokenizer_config.json if only that has one.

    Args:
        files: Name -> bytes.
        template: The Jinja template.
        where: The folder, for the error.

    Raises:
        ModelError: The configuration is no JSON object.
    """
    others = {name: data for name, data in files.items() if not _is_additional(name)}
    config = object_in(files, _CONFIG, where)
    in_config = "chat_template" in config
    if in_config and _TEMPLATE not in files and len(others) == len(files):
        return {**others, _CONFIG: dump({**config, "chat_template": template})}
    kept = {key: value for key, value in config.items() if key != "chat_template"}
    changed = {_CONFIG: dump(kept)} if in_config else {}
    return {**others, **changed, _TEMPLATE: template.encode("utf-8")}


def write_files(files: Mapping[str, bytes], folder: Path) -> None:
    """Writes files into a folder.

    Args:
        files: Name, relative to the folder -> bytes.
        folder: The folder.
    """
    for name, data in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(data)
