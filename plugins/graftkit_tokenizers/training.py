"""What the backends share when they learn: the request is judged, the library learns, the files are put together."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from graftkit.errors import DataError, RequestError
from graftkit.interfaces.vocabulary import TrainingSpec
from tokenizers import Tokenizer

from graftkit_tokenizers.panics import no_panic
from graftkit_tokenizers.tokenizer_json import added_token, bos_first, config_json, dump
from graftkit_tokenizers.words import is_text

__all__ = [
    "check_names",
    "checked",
    "files_of",
    "learn",
    "make_room",
    "merges_of",
    "specials_of",
    "with_unknown",
]

Json = dict[str, Any]

_ROLES = ("bos", "eos", "pad", "unk")


def checked(spec: TrainingSpec) -> TrainingSpec:
    """Returns a specification that makes sense by itself.

    Raises:
        RequestError: A special token is there twice, empty or no text, a role is of none of them, or unknown.
    """
    tokens = spec.special_tokens
    if not all(map(is_text, tokens)):
        raise RequestError(f"special tokens must be Unicode text, not {', '.join(map(repr, tokens))}")
    wrong = sorted({token for token in tokens if not token or tokens.count(token) > 1})
    if wrong:
        raise RequestError(f"special tokens must be different and not empty: {', '.join(map(repr, wrong))}")
    for role, token in spec.roles.items():
        if role not in _ROLES:
            raise RequestError(f"no role is called '{role}'", hint=f"Known: {', '.join(_ROLES)}.")
        if token not in tokens:
            raise RequestError(f"the role '{role}' is given to {token!r}, which is no special token", hint="Add it.")
    if spec.adds_bos and "bos" not in spec.roles:
        raise RequestError("texts are to start with a token that has the role 'bos', and none has", hint="Name one.")
    return spec


def with_unknown(spec: TrainingSpec, token: str = "[UNK]") -> TrainingSpec:
    """Returns a specification that has a token for what is unknown, the last special one if it has to be added.

    A tokenizer that knows no unknown token would drop such text.
    """
    if "unk" in spec.roles:
        return spec
    tokens = spec.special_tokens if token in spec.special_tokens else (*spec.special_tokens, token)
    return replace(spec, special_tokens=tokens, roles={**spec.roles, "unk": token})


def make_room(spec: TrainingSpec, needed: int, what: str) -> None:
    """Checks that a vocabulary can hold what it must, its special tokens included.

    Raises:
        RequestError: It is too small.
    """
    smallest = len(spec.special_tokens) + needed
    if spec.vocab_size < smallest:
        specials = f"{len(spec.special_tokens)} special tokens and " if spec.special_tokens else ""
        raise RequestError(
            f"a vocabulary of {spec.vocab_size} is too small for {specials}{what}", hint=f"Ask for {smallest} or more."
        )


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
        "post_processor": None if bos is None else bos_first(bos, ids[bos]),
    }
    return {"tokenizer.json": dump(whole), "tokenizer_config.json": dump(config_json(spec))}
