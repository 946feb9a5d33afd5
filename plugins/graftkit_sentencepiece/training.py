"""Trains a SentencePiece model with the library's own trainer."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from typing import Any

from graftkit.errors import RequestError
from graftkit.interfaces.vocabulary import TrainingSpec
from graftkit.tokenization.side_files import templates_as_config
from graftkit.tokenization.training_spec import check_room, checked_spec, with_unknown
from sentencepiece import SentencePieceTrainer

from graftkit_sentencepiece.config import SentencePieceConfig
from graftkit_sentencepiece.files import SentencePieceFiles
from graftkit_sentencepiece.sentences import in_order, sentences

__all__ = ["train_files"]

_THREADS = 16
"""The library's default, fixed here: it sums floats in one part per thread, so the number changes the result."""

_ROLES = ("unk", "bos", "eos", "pad")
_QUIET = 2


def train_files(texts: Iterable[str], spec: TrainingSpec, config: SentencePieceConfig) -> SentencePieceFiles:
    """Trains a model; it does not depend on the order of the texts, nor on the machine.

    The trainer reads lines, so no piece contains a line end; with byte fallback a line end is a byte.

    Args:
        texts: The corpus; iterated once.
        spec: Its size and special tokens. The unknown piece, which every model needs, is added after the special
            tokens unless one of them has that role.
        config: The trainer's options.

    Raises:
        RequestError: The specification can't be met, or there is nothing to learn from.
    """
    spec = with_unknown(checked_spec(spec), "<unk>")
    check_room(spec, 257 if config.byte_fallback else 1, "the 256 bytes" if config.byte_fallback else "a character")
    lines = sentences(texts, config.max_sentence_length, prefixed=config.add_dummy_prefix)
    # Where the unigram trainer starts from depends on the order of the lines; BPE's result does not.
    with in_order(lines) if config.model_type == "unigram" else nullcontext(lines) as ordered:
        model = _model(ordered, spec, config)
    return SentencePieceFiles(model, _beside(spec), "the trained tokenizer")


def _model(lines: Iterable[str], spec: TrainingSpec, config: SentencePieceConfig) -> bytes:
    watched = _Watched(lines)
    written = io.BytesIO()
    try:
        SentencePieceTrainer.train(
            sentence_iterator=iter(watched),
            model_writer=written,
            **_arguments(config),
            **_special_arguments(spec),
            vocab_size=spec.vocab_size,
        )
    except (RuntimeError, ValueError) as error:
        if watched.failure:  # the library says of it only what it was
            raise watched.failure from None
        if not watched.any:
            raise RequestError("there is no text to learn from", hint="Give texts that are not empty.") from None
        reason = _SOURCE.sub("", str(error))
        raise RequestError(f"sentencepiece can't train this: {reason}", hint=_HINT) from None
    return written.getvalue()


_SOURCE = re.compile(r"^INTERNAL: (\S+\.cc\(\d+\) \[.*?\] (?=[A-Z]))?")
"""The place in the library's sources, which its messages begin with."""

_HINT = "Ask for a larger vocabulary, give more text, or lower character_coverage."


class _Watched:
    """An iterator of lines that remembers whether there was any, and the error that ended it."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._lines = lines
        self.any = False
        self.failure: BaseException | None = None

    def __iter__(self) -> Iterator[str]:
        try:
            lines = iter(self._lines)
            for line in lines:
                self.any = True
                yield line
                yield from lines
        except BaseException as error:
            self.failure = error
            raise


def _arguments(config: SentencePieceConfig) -> dict[str, Any]:
    """Returns the trainer's arguments. All lines are used: a sample would depend on their order."""
    arguments = config.model_dump()
    arguments["normalization_rule_name"] = arguments.pop("normalization")
    return arguments | {
        "hard_vocab_limit": False,  # a small corpus gives fewer pieces
        "input_sentence_size": 0,
        "shuffle_input_sentence": False,
        "num_threads": _THREADS,
        "minloglevel": _QUIET,
    }


def _special_arguments(spec: TrainingSpec) -> dict[str, Any]:
    """Returns the arguments that give special tokens the first ids: roles by id, the others as control symbols."""
    arguments: dict[str, Any] = {}
    placed: set[str] = set()
    for role in _ROLES:
        token = spec.roles.get(role)
        own = token is not None and token not in placed
        arguments[f"{role}_id"] = spec.special_tokens.index(token) if token is not None and own else -1
        if token is not None and own:
            arguments[f"{role}_piece"] = token
            placed.add(token)
    others = [token for token in spec.special_tokens if token not in placed]
    return arguments | ({"control_symbols": others} if others else {})


def _beside(spec: TrainingSpec) -> dict[str, bytes]:
    """Returns tokenizer_config.json, which holds several chat templates, and the only one as a file of its own.

    A role without a token is written as null.
    """
    config: dict[str, Any] = {f"{role}_token": spec.roles.get(role) for role in _ROLES}
    others = [token for token in spec.special_tokens if token not in spec.roles.values()]
    config |= {"add_bos_token": spec.adds_bos, "add_eos_token": False, "additional_special_tokens": others}
    config |= {"clean_up_tokenization_spaces": False}
    if spec.named_templates:
        config |= templates_as_config(spec.chat_template, spec.named_templates)
    files = {"tokenizer_config.json": json.dumps(config, ensure_ascii=False, indent=2, sort_keys=True).encode() + b"\n"}
    if spec.chat_template is not None and not spec.named_templates:
        files["chat_template.jinja"] = spec.chat_template.encode()
    return files
