"""Writes a SentencePiece tokenizer into a folder, in a form that transformers reads too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftkit.errors import RequestError
from graftkit.interfaces.tokenizer import ROLES

from graftkit_sentencepiece.files import MODEL_NAME

if TYPE_CHECKING:
    from graftkit_sentencepiece.model import SentencePieceModel

__all__ = ["FORMATS", "save_files", "tokenizer_json"]

FORMATS = ("sentencepiece",)
_WITH_JSON = "huggingface"
_CONFIG = "tokenizer_config.json"


def save_files(tokenizer: SentencePieceModel, folder: Path, format: str) -> None:
    """Writes tokenizer.model and its configuration; a tokenizer.json beside them where it gives the same ids.

    From either transformers' AutoTokenizer makes a tokenizer with the same ids: the configuration says which it is to
    take. Without a tokenizer.json it runs the model with the sentencepiece library, as graftkit does, but it puts no
    beginning-of-sequence token first.

    Args:
        tokenizer: What to save.
        folder: Where to.
        format: "sentencepiece", or "huggingface", which insists on the tokenizer.json.

    Raises:
        RequestError: Another format, or no tokenizer.json gives the same ids.
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
    for name, data in files.items():
        (folder / name).write_bytes(data)


def tokenizer_json(tokenizer: SentencePieceModel) -> tuple[bytes | None, str]:
    """Returns a tokenizer.json that gives the model's ids, or None and why there is none.

    It loads the `tokenizers` library, and takes a second or so.
    """
    from graftkit_sentencepiece.proof import difference_from_json
    from graftkit_sentencepiece.tokenizer_json import as_tokenizer_json

    if tokenizer.proto.charsmap:
        return None, "the tokenizers library applies its rules of normalization otherwise"
    spec = as_tokenizer_json(tokenizer)
    text = difference_from_json(tokenizer, spec)
    if text is not None:
        return None, f"the tokenizers library would cut {text[:60]!r} differently"
    return (json.dumps(spec, ensure_ascii=False, indent=1) + "\n").encode(), ""


def _config(tokenizer: SentencePieceModel) -> bytes:
    """Returns the configuration with which transformers takes the files as they are.

    The class that it named, such as LlamaTokenizer, would put a tokenizer together of its own from the pieces.
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
    elif config.get("legacy") is not False:
        config["tokenizer_class"] = "SentencePieceBackend"
    return (json.dumps(config, ensure_ascii=False, indent=2, sort_keys=True) + "\n").encode()
