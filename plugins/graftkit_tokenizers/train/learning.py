"""What the training backends share: checks, the call of the library's trainer, the files of the result."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from graftkit.errors import DataError, RequestError
from graftkit.interfaces.vocabulary import TrainingSpec
from graftkit.tokenization.panics import no_panic
from graftkit.tokenization.side_files import templates_as_config
from graftkit.tokenization.tokenizer_json import added_token, dump, template
from tokenizers import Tokenizer

__all__ = [
    "check_names",
    "files_of",
    "learn",
    "merges_of",
    "specials_of",
]

Json = dict[str, Any]


def check_names(special_tokens: Iterable[str], bytes_: Iterable[str]) -> None:
    """Refuses special tokens that are the piece of a byte: a tokenizer.json has one id for both.

    Args:
        special_tokens: The special tokens.
        bytes_: The pieces of the 256 bytes.

    Raises:
        RequestError: A special token is one of them.
    """
    taken = sorted({*bytes_} & {*special_tokens})
    if taken:
        raise RequestError(
            f"{', '.join(map(repr, taken))} can't be special: a byte is written so", hint="Give it another name."
        )


def specials_of(spec: TrainingSpec) -> dict[str, int]:
    """Returns special token -> id; they have the first ids."""
    return {token: id for id, token in enumerate(spec.special_tokens)}


def learn(parts: Json, trainer: Any, texts: Iterable[str]) -> Tokenizer:
    """Trains a model with the `tokenizers` library.

    Args:
        parts: A tokenizer.json with an empty model.
        trainer: One of the library's trainers.
        texts: The corpus; iterated once. The library keeps a count of each distinct word in memory.

    Returns:
        The library's tokenizer.

    Raises:
        DataError: There is no text.
        ModelError: The library fails, as at a regular expression that takes too long.
    """
    tokenizer = Tokenizer.from_str(json.dumps(parts))
    with no_panic("", "the tokenizers library can't learn from these texts"):
        tokenizer.train_from_iterator(some(texts), trainer)
    return tokenizer


def merges_of(tokenizer: Tokenizer) -> list[list[str]]:
    """Returns the merges of a trained BPE model, in their order."""
    merges: list[list[str]] = json.loads(tokenizer.to_str())["model"]["merges"]
    return merges


def some(texts: Iterable[str]) -> Iterator[str]:
    """Yields the texts that are not empty.

    Raises:
        DataError: All are empty.
    """
    found = False
    for text in texts:
        if text:
            found = True
            yield text
    if not found:
        raise DataError("there is no text to learn a tokenizer from", hint="Give at least one file that is not empty.")


def files_of(parts: Mapping[str, Any], spec: TrainingSpec) -> dict[str, bytes]:
    """Returns the files of a trained tokenizer: tokenizer.json and tokenizer_config.json.

    Args:
        parts: The tokenizer.json, without special tokens and post-processor.
        spec: What was asked for.
    """
    ids = specials_of(spec)
    bos = spec.roles["bos"] if spec.adds_bos else None
    whole = {
        **parts,
        "added_tokens": [added_token(id, token) for token, id in ids.items()],
        "post_processor": None if bos is None else template(before={bos: ids[bos]}),
    }
    return {"tokenizer.json": dump(whole), "tokenizer_config.json": dump(_config_json(spec))}


def _config_json(spec: TrainingSpec) -> Json:
    """Returns a tokenizer_config.json with the roles and the chat templates."""
    config: Json = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    config |= {f"{role}_token": token for role, token in sorted(spec.roles.items())}
    config["add_bos_token"] = spec.adds_bos
    return config | templates_as_config(spec.chat_template, spec.named_templates)
