"""Helpers for reading other libraries' tokenizer files; their errors name the file."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graftkit.errors import ModelError
from graftkit.interfaces.bounded_json import parse_json
from graftkit.interfaces.regular_file import read_own_file
from graftkit.tokenization.side_files import SIDE_FILES, additional_templates, content_of, read_files
from graftkit.tokenization.tokenizer_json import added_token, template

__all__ = [
    "BESIDE",
    "Converted",
    "Options",
    "added_of",
    "beside",
    "configuration",
    "json_object",
    "listing",
    "text_of",
    "tokenizer_files",
    "vocabulary",
]

Json = dict[str, Any]

BESIDE = tuple(name for name in SIDE_FILES if name != "added_tokens.json")
"""The files beside a vocabulary that are kept as they are; what added_tokens.json says is in the tokenizer.json."""

_ROLES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


@dataclass(frozen=True, slots=True)
class Options:
    """Settings that a format's files may lack.

    Attributes:
        pattern: The name or regular expression of the pattern that splits text; None: as the files say.
        lowercase: Whether text is lowercased; None: as the files say.
    """

    pattern: str | None = None
    lowercase: bool | None = None


def text_of(path: Path) -> str:
    """Returns a file's text, without a byte order mark.

    Raises:
        ModelError: It is missing or not UTF-8.
    """
    try:
        return read_own_file(path).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ModelError("the file is not UTF-8", where=str(path)) from None
    except OSError as error:
        raise ModelError(f"the file can't be read: {error.strerror}", where=str(path)) from None


def json_object(path: Path) -> Json:
    """Returns a file's JSON object.

    Raises:
        ModelError: It is missing, or no JSON object.
    """
    try:
        data = parse_json(text_of(path).encode(), unicode=True)
    except ValueError as error:
        raise ModelError(f"the file is no JSON: {error}", where=str(path)) from None
    if not isinstance(data, dict):
        raise ModelError("the file is no JSON object", where=str(path))
    return data


def beside(folder: Path) -> dict[str, bytes]:
    """Returns the files beside a vocabulary: name -> bytes.

    Raises:
        ModelError: One can't be read.
    """
    return read_files(folder, (*BESIDE, *additional_templates(folder)))


def configuration(folder: Path) -> Json:
    """Returns the fields of special_tokens_map.json and tokenizer_config.json; the latter take precedence."""
    config: Json = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        config |= json_object(folder / name) if (folder / name).is_file() else {}
    return config


def added_of(folder: Path, config: Mapping[str, Any], vocab: Mapping[str, int], usual: Iterable[str]) -> list[Json]:
    """Returns the added tokens: those that the files list, else those with a role, else the family's usual ones.

    Args:
        folder: Where added_tokens.json may be.
        config: What tokenizer_config.json and special_tokens_map.json say.
        vocab: Pieces and ids.
        usual: The special tokens of a tokenizer of this family without a configuration.

    Returns:
        Entries of `added_tokens`, by id.

    Raises:
        ModelError: An entry of `added_tokens_decoder` is malformed, or two tokens have one id.
    """
    listed = config.get("added_tokens_decoder")
    if isinstance(listed, dict):
        return _without_conflicts(
            sorted((_listed(id, entry, folder) for id, entry in listed.items()), key=_id), vocab, folder
        )
    more = json_object(folder / "added_tokens.json") if (folder / "added_tokens.json").is_file() else {}
    extra = config.get("additional_special_tokens") or config.get("extra_special_tokens")
    fields = [*map(config.get, _ROLES), *(extra if isinstance(extra, list) else [])]
    roles = [*map(content_of, fields)]
    special = [token for token in dict.fromkeys(roles if any(roles) else usual) if token]
    known = {**vocab, **{token: id for token, id in more.items() if isinstance(id, int)}}
    wanted = [token for token in dict.fromkeys([*special, *more]) if token in known]
    added = sorted((added_token(known[token], token, special=token in special) for token in wanted), key=_id)
    return _without_conflicts(added, vocab, folder)


def _without_conflicts(added: list[Json], vocab: Mapping[str, int], folder: Path) -> list[Json]:
    """Returns added tokens as they are, once none has the id of another token.

    Raises:
        ModelError: One has the id of another token.
    """
    owners = {id: piece for piece, id in vocab.items()}
    for token in added:
        owner = owners.setdefault(token["id"], token["content"])
        if owner != token["content"]:
            raise ModelError(
                f"the added token {token['content']!r} has the id {token['id']}, which is that of {owner!r}",
                where=str(folder),
            )
    return added


def _id(token: Json) -> int:
    return int(token["id"])


_DIGITS = 10
"""How many digits an id has at most: it is a number of 32 bits."""


def _listed(id: str, entry: object, folder: Path) -> Json:
    content = content_of(entry)
    if not (id.isdecimal() and len(id) <= _DIGITS and content and isinstance(entry, dict)):
        raise ModelError(
            f"added_tokens_decoder lists {id!r:.40}: {entry!r:.200}, which is no id and its token",
            where=str(folder / "tokenizer_config.json"),
        )
    flags = {flag: bool(entry.get(flag)) for flag in ("single_word", "lstrip", "rstrip", "normalized")}
    return added_token(int(id), content, special=bool(entry.get("special")), **flags)


@dataclass(frozen=True, slots=True)
class Converted:
    """A tokenizer in another format, as a tokenizer.json.

    Attributes:
        spec: The tokenizer.json, of which nobody needs to parse the file.
        beside: The files beside it.
    """

    spec: Json
    beside: Mapping[str, bytes]

    @property
    def files(self) -> dict[str, bytes]:
        """All files. That of the vocabulary is on one line: indented, a large one takes seconds."""
        return {**self.beside, "tokenizer.json": json.dumps(self.spec, ensure_ascii=False).encode("utf-8") + b"\n"}


def tokenizer_files(parts: Json, config: Mapping[str, Any], extra: Mapping[str, bytes]) -> Converted:
    """Returns a tokenizer and the files beside it.

    Args:
        parts: The tokenizer.json with its added tokens.
        config: The fields of tokenizer_config.json; with `add_bos_token` the `bos` token is put first.
        extra: The files beside the vocabulary.
    """
    bos = content_of(config.get("bos_token"))
    ids = {token["content"]: token["id"] for token in parts["added_tokens"]}
    if config.get("add_bos_token") is True and bos is not None and bos in ids:
        parts = {**parts, "post_processor": template(before={bos: ids[bos]})}
    return Converted(placed(parts), extra)


def placed(parts: Json) -> Json:
    """Returns a tokenizer.json whose added tokens get the ids that it lists.

    The library gives added tokens that are no pieces the ids after the vocabulary's; where they should have others,
    they are added as pieces that no merge makes.
    """
    vocab = parts["model"]["vocab"]
    loose = [token for token in parts["added_tokens"] if token["content"] not in vocab]
    if [token["id"] for token in loose] == list(range(len(vocab), len(vocab) + len(loose))):
        return parts
    whole = {**vocab, **{token["content"]: token["id"] for token in loose}}
    return {**parts, "model": {**parts["model"], "vocab": dict(sorted(whole.items(), key=lambda item: item[1]))}}


def vocabulary(file: Path) -> dict[str, int]:
    """Returns piece -> id from a JSON file.

    Raises:
        ModelError: The file is no such object, or two pieces have one id.
    """
    vocab = json_object(file)
    if not vocab or not all(isinstance(id, int) and id >= 0 for id in vocab.values()):
        raise ModelError("the file holds no pieces and their ids", where=str(file))
    if len({*vocab.values()}) < len(vocab):
        raise ModelError("two pieces have one id", where=str(file))
    return vocab


def listing(added: Iterable[Mapping[str, Any]]) -> Json:
    """Returns added tokens as the field `added_tokens_decoder` of tokenizer_config.json."""
    return {
        str(token["id"]): {key: value for key, value in token.items() if key != "id"}
        for token in sorted(added, key=lambda token: int(token["id"]))
    }
