"""What the backends share when they learn: the request is judged, the library learns, the files are put together."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from graftkit.errors import DataError, RequestError
from graftkit.interfaces.vocabulary import TrainingSpec
from graftkit.tokenization.panics import no_panic
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
    """Refuses special tokens that are written as a byte is: a tokenizer.json has one id for both.

    Args:
        special_tokens: The special tokens.
        bytes_: How the family writes each byte.

    Raises:
        RequestError: There is one.
    """
    taken = sorted({*bytes_} & {*special_tokens})
    if taken:
        raise RequestError(
            f"{', '.join(map(repr, taken))} can't be special: a byte is written so", hint="Give it another name."
        )


def specials_of(spec: TrainingSpec) -> dict[str, int]:
    """Returns the special tokens with their ids, which are the first ones."""
    return {token: id for id, token in enumerate(spec.special_tokens)}


def learn(parts: Json, trainer: Any, texts: Iterable[str]) -> Tokenizer:
    """Has the library learn a model.

    Args:
        parts: A tokenizer.json whose model is empty.
        trainer: One of the library's trainers.
        texts: Iterated once; the library keeps the counts of different words.

    Returns:
        The library's tokenizer.

    Raises:
        DataError: There is no text.
        ModelError: The library gives up, as at a pattern that takes for ever.
    """
    tokenizer = Tokenizer.from_str(json.dumps(parts))
    with no_panic("", "the tokenizers library can't learn from these texts"):
        tokenizer.train_from_iterator(some(texts), trainer)
    return tokenizer


def merges_of(tokenizer: Tokenizer) -> list[list[str]]:
    """Returns the merges of a BPE that was learnt, in their order."""
    merges: list[list[str]] = json.loads(tokenizer.to_str())["model"]["merges"]
    return merges


def some(texts: Iterable[str]) -> Iterator[str]:
    """Yields the texts that are not empty.

    Raises:
        DataError: There is none.
    """
    found = False
    for text in texts:
        if text:
            found = True
            yield text
    if not found:
        raise DataError("there is no text to learn a tokenizer from", hint="Give at least one file that is not empty.")


def files_of(parts: Mapping[str, Any], spec: TrainingSpec) -> dict[str, bytes]:
    """Returns the files of a tokenizer that was learnt.

    Args:
        parts: Its tokenizer.json, without special tokens and post-processor.
        spec: What it was to have.
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
    """Returns the tokenizer_config.json of a new tokenizer: which token has which role, and the chat template."""
    config: Json = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    config |= {f"{role}_token": token for role, token in sorted(spec.roles.items())}
    config["add_bos_token"] = spec.adds_bos
    return config | ({} if spec.chat_template is None else {"chat_template": spec.chat_template})
