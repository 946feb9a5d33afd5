"""Saves a SentencePiece tokenizer so that transformers' AutoTokenizer gives the same ids."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftkit.errors import ModelError, RequestError
from graftkit.interfaces.tokenizer import ROLES
from graftkit.tokenization.bounds import check_bounds
from graftkit.tokenization.side_files import write_files

from graftkit_sentencepiece.files import MODEL_NAME

if TYPE_CHECKING:
    from graftkit_sentencepiece.model import SentencePieceModel

__all__ = ["FORMATS", "save_files", "tokenizer_json"]

FORMATS = ("sentencepiece",)
_WITH_JSON = "huggingface"
_CONFIG = "tokenizer_config.json"


def save_files(tokenizer: SentencePieceModel, folder: Path, format: str) -> None:
    """Writes tokenizer.model, its configuration and, where it gives the same ids, a tokenizer.json.

    The configuration says which of the two AutoTokenizer loads. Without a tokenizer.json it runs the model with the
    sentencepiece library, as graftkit does, but adds no beginning-of-sequence token.

    Args:
        tokenizer: What to save.
        folder: Where to.
        format: "sentencepiece", or "huggingface", which requires the tokenizer.json.

    Raises:
        RequestError: The format is unknown, or requires a tokenizer.json and none gives the same ids.
    """
    if format not in (*FORMATS, _WITH_JSON):
        raise RequestError(
            f"a SentencePiece model can't be saved as '{format}'", hint="Known: sentencepiece, huggingface."
        )
    converted = tokenizer.tokenizer_json
    if converted is None and format == _WITH_JSON:
        raise RequestError(f"no tokenizer.json gives the ids of this model: {tokenizer.json_refusal}")
    files = {**tokenizer.files.beside, MODEL_NAME: tokenizer.files.model, _CONFIG: _config(tokenizer)}
    if converted is not None:
        files["tokenizer.json"] = converted
    write_files(files, folder)


def tokenizer_json(tokenizer: SentencePieceModel) -> tuple[bytes | None, str]:
    """Converts the model and compares the result with it; takes about a second.

    Returns:
        The tokenizer.json and "", or None and why there is none: it gives other ids, or is not read again.
    """
    from graftkit_sentencepiece.proof import difference_from_json
    from graftkit_sentencepiece.tokenizer_json import as_tokenizer_json

    if tokenizer.proto.charsmap:
        return None, "the tokenizers library applies its rules of normalization otherwise"
    spec = as_tokenizer_json(tokenizer)
    try:
        check_bounds(spec, MODEL_NAME)  # those within which it is read again
    except ModelError as error:
        return None, error.message
    text = difference_from_json(tokenizer, spec)
    if text is not None:
        return None, f"the tokenizers library would cut {text[:60]!r} differently"
    return (json.dumps(spec, ensure_ascii=False, indent=1) + "\n").encode(), ""


def _config(tokenizer: SentencePieceModel) -> bytes:
    """Returns the tokenizer_config.json whose tokenizer class loads the files without changes.

    Classes such as LlamaTokenizer take only the pieces, and build pre-tokenizer and special tokens themselves.
    """
    config: dict[str, Any] = tokenizer.files.json(_CONFIG)
    given = {*config, *tokenizer.files.json("special_tokens_map.json")}
    names = {id: content for content, id in tokenizer.special_tokens.items()}
    for role in ROLES:
        id = tokenizer.role_token(role)
        if f"{role}_token" not in given:
            config[f"{role}_token"] = None if id is None else names[id]
    config["add_bos_token"] = tokenizer.adds_bos
    if tokenizer.tokenizer_json is not None:
        config["tokenizer_class"] = "PreTrainedTokenizerFast"
        if config.get("add_eos_token") is True:  # that file puts nothing after a text
            config["add_eos_token"] = False
    elif config.get("legacy") is not False:
        config["tokenizer_class"] = "SentencePieceBackend"
    return (json.dumps(config, ensure_ascii=False, indent=2, sort_keys=True) + "\n").encode()
