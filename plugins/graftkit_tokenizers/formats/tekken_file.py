"""Mistral's tekken.json: tiktoken's ranks and the pattern in one file; special tokens have the first ids."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from graftkit.errors import ModelError
from graftkit.tokenization.tokenizer_json import dump

from graftkit_tokenizers.formats.files import Converted, Options, json_object, tokenizer_files
from graftkit_tokenizers.formats.tiktoken_files import byte_level_parts
from graftkit_tokenizers.tokenizer_json.splitting import named

__all__ = ["find", "read"]

Json = dict[str, Any]

_FIRST = (
    *("<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_RESULTS]"),
    *("[/TOOL_RESULTS]", "[TOOL_CALLS]", "[IMG]", "<pad>", "[IMG_BREAK]", "[IMG_END]", "[PREFIX]", "[MIDDLE]"),
    *("[SUFFIX]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[TOOL_CONTENT]"),
)
"""The special tokens of versions whose files do not list them."""

_MOST_SPECIAL = 100_000
"""Special tokens at most: each of their ids gets a name. Mistral's files have 1,000."""

_ROLES = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}


def find(path: Path) -> Path | None:
    """Returns the file, given it or its folder."""
    file = path / "tekken.json" if path.is_dir() else path
    return file if file.is_file() and file.name.startswith("tekken") and file.suffix == ".json" else None


def read(file: Path, options: Options) -> Converted:
    """Reads a tekken.json.

    Raises:
        ModelError: It is malformed.
    """
    data = json_object(file)
    try:
        sizes, pattern = data["config"], options.pattern or data["config"]["pattern"]
        special = _special(data, int(sizes["default_num_special_tokens"]))
        ordinary = data["vocab"][: int(sizes["default_vocab_size"]) - len(special)]
        ranks = {
            base64.b64decode(entry["token_bytes"], validate=True): int(entry["rank"]) + len(special)
            for entry in ordinary
        }
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, binascii.Error) as error:
        raise ModelError(f"the file is no tekken.json: {type(error).__name__}: {error}", where=str(file)) from None
    parts = byte_level_parts(ranks, named(pattern), special, str(file))
    config: Json = {role: token for role, token in _ROLES.items() if token in special}
    config = {"tokenizer_class": "PreTrainedTokenizerFast", **config, "add_bos_token": "<s>" in special}
    return tokenizer_files(parts, config, {"tokenizer_config.json": dump(config)})


def _special(data: Mapping[str, Any], count: int) -> dict[str, int]:
    """Returns special token -> id; unnamed ids get the names that Mistral's library gives them.

    Raises:
        ValueError: There are too many.
    """
    if count > _MOST_SPECIAL:
        raise ValueError(f"it asks for {count:.3g} special tokens, more than {_MOST_SPECIAL:,}")
    listed = data.get("special_tokens") or [{"token_str": token, "rank": id} for id, token in enumerate(_FIRST)]
    names = {int(entry["rank"]): str(entry["token_str"]) for entry in listed}
    return {names.get(id, f"<SPECIAL_{id}>"): id for id in range(count)}
