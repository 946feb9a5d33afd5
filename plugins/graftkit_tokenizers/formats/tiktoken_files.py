"""tiktoken's files: a token in base64 and its rank in each line; the pattern is in a JSON file beside.

tiktoken itself keeps the pattern and the special tokens in its source. `NAME.tiktoken.json` holds them here:
`{"pattern": "...", "special_tokens": {"<|endoftext|>": 50256}}`, the arguments `pat_str` and `special_tokens` of
`tiktoken.Encoding`. `"whole_words": false` there says that merging gives every token, so that words need not be looked
up first (`ignore_merges`); the ids are the same.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from graftkit.errors import ModelError, RequestError
from graftkit.tokenization.byte_alphabet import byte_alphabet
from graftkit.tokenization.splitting import PATTERNS, pre_tokenizer
from graftkit.tokenization.tokenizer_json import added_token, bpe_model, byte_level_decoder, dump, tokenizer_json

from graftkit_tokenizers.formats.files import (
    Converted,
    Options,
    beside,
    configuration,
    json_object,
    text_of,
    tokenizer_files,
)
from graftkit_tokenizers.formats.ranks import bytes_of_pieces, last_merge, merges_of, pieces_of, splits
from graftkit_tokenizers.tokenizer_json.splitting import named, pattern_of

__all__ = ["byte_level_parts", "find", "read", "write"]

Json = dict[str, Any]


def find(path: Path) -> Path | None:
    """Returns the file of ranks, given it or its folder."""
    if path.suffix == ".tiktoken":
        return path if path.is_file() else None
    found = sorted(path.glob("*.tiktoken"))
    return found[0] if len(found) == 1 else None


def read(file: Path, options: Options) -> Converted:
    """Reads a file of ranks and the JSON beside it.

    Raises:
        ModelError: A line is malformed, a byte has no token, or the pattern is missing.
    """
    said = json_object(_json_of(file)) if _json_of(file).is_file() else {}
    pattern = options.pattern or said.get("pattern")
    if not isinstance(pattern, str):
        raise ModelError(
            "a file of ranks does not say how text is split",
            where=str(file),
            hint=f"Give the field `pattern` ({', '.join(PATTERNS)}, or a regular expression), or write "
            f'{_json_of(file).name} beside it: {{"pattern": "...", "special_tokens": {{}}}}.',
        )
    special = said.get("special_tokens", {})
    if not isinstance(special, dict) or not all(isinstance(id, int) for id in special.values()):
        raise ModelError("special_tokens are not ids by token", where=str(_json_of(file)))
    parts = byte_level_parts(_ranks(file), named(pattern), special, str(file))
    parts["model"]["ignore_merges"] = said.get("whole_words") is not False
    return tokenizer_files(parts, configuration(file.parent), beside(file.parent))


def _json_of(file: Path) -> Path:
    return file.with_name(file.name + ".json")


def _ranks(file: Path) -> dict[bytes, int]:
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(text_of(file).splitlines(), start=1):
        if not line:
            continue
        try:
            written, rank = line.split(" ")
            token, id = base64.b64decode(written, validate=True), int(rank)
        except (ValueError, binascii.Error):
            token, id = b"", 0
        if not token:
            raise ModelError(f"line {number} is not a token in base64 and its rank", where=str(file))
        if token in ranks:
            raise ModelError(f"line {number} has a token that has a rank already", where=str(file))
        ranks[token] = id
    return ranks


def byte_level_parts(ranks: Mapping[bytes, int], pattern: str, special: Mapping[str, int], where: str) -> Json:
    """Returns the tokenizer.json of a vocabulary of ranks.

    Args:
        ranks: Every token's rank, which is its id.
        pattern: The regular expression by which text is split.
        special: The special tokens' ids.
        where: The file, for errors.

    Raises:
        ModelError: A byte has no token, two tokens have one id, or a special token is an ordinary one too.
    """
    pieces = pieces_of(ranks)
    lacking = 256 - sum(bytes([byte]) in ranks for byte in range(256))
    if lacking:
        raise ModelError(f"{lacking} of the 256 bytes have no token", where=where)
    ids = [*ranks.values(), *special.values()]
    if len(set(ids)) < len(ids) or min(ids) < 0:
        raise ModelError("two tokens have one id, or an id is negative", where=where)
    both = sorted(special.keys() & set(pieces.values()))
    if both:
        raise ModelError(f"{', '.join(map(repr, both))}: special, and a token of text too", where=where)
    merges = [[pieces[left], pieces[right]] for left, right in merges_of(ranks)]
    vocab = {pieces[token]: ranks[token] for token in sorted(ranks, key=ranks.__getitem__)}
    return tokenizer_json(
        bpe_model(vocab, merges, ignore_merges=True),
        pre_tokenizer=pre_tokenizer(pattern),
        decoder=byte_level_decoder(),
        added_tokens=[added_token(id, token) for token, id in sorted(special.items(), key=lambda item: item[1])],
    )


def write(spec: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, bytes]:
    """Converts a tokenizer to the files that tiktoken reads.

    Args:
        spec: The tokenizer.json.
        config: The tokenizer_config.json; tiktoken has no equivalent of it.

    Raises:
        RequestError: tiktoken would give other ids.
    """
    pattern = _pattern(spec)
    ranks = _checked_ranks(spec)
    special = {token["content"]: token["id"] for token in spec.get("added_tokens", [])}
    whole_words = bool(spec["model"].get("ignore_merges"))
    lines = (b"%s %d\n" % (base64.b64encode(token), ranks[token]) for token in sorted(ranks, key=ranks.__getitem__))
    return {
        "tokenizer.tiktoken": b"".join(lines),
        "tokenizer.tiktoken.json": dump({"pattern": pattern, "special_tokens": special, "whole_words": whole_words}),
    }


def _refusal(why: str) -> RequestError:
    return RequestError(f"tiktoken can't hold this tokenizer: {why}", hint="Save it as 'huggingface'.")


def _pattern(spec: Mapping[str, Any]) -> str:
    pattern = pattern_of(spec.get("pre_tokenizer"))
    if pattern is None:
        raise _refusal("it does not split text by one regular expression")
    if spec.get("normalizer"):
        raise _refusal("it changes text before it splits it")
    return pattern


def _checked_ranks(spec: Mapping[str, Any]) -> dict[bytes, int]:
    """Returns the ranks of a BPE model that tiktoken merges in the same order."""
    model, added = spec["model"], spec.get("added_tokens", [])
    if model.get("type") != "BPE" or model.get("continuing_subword_prefix") or model.get("end_of_word_suffix"):
        raise _refusal("it is no BPE over bytes")
    if (spec.get("decoder") or {}).get("type") != "ByteLevel":
        raise _refusal("it does not decode by joining bytes")
    if any(not token.get("special") for token in added):
        raise _refusal("it has added tokens that are not special")
    if any(token.get(flag) for token in added for flag in ("single_word", "lstrip", "rstrip")):
        raise _refusal("its special tokens strip the space around them")
    names = {token["content"] for token in added}
    try:
        ranks = bytes_of_pieces({piece: id for piece, id in model["vocab"].items() if piece not in names})
    except KeyError as error:
        raise _refusal(f"its vocabulary has {error}, which is no character of a byte") from None
    if not all(character in model["vocab"] for character in byte_alphabet()):
        raise _refusal("it has no token for some bytes")
    _check_order(model, ranks)
    return ranks


def _check_order(model: Mapping[str, Any], ranks: Mapping[bytes, int]) -> None:
    """Refuses merges that differ from those of the ranks."""
    merges = [*map(tuple, model["merges"])]
    made = [model["vocab"][left + right] for left, right in merges]
    if any(later < earlier for earlier, later in pairwise(made)):
        raise _refusal("its tokens are not numbered in the order of its merges")
    pieces, known = pieces_of(ranks), set(merges)
    for token in ranks:
        if len(token) > 1:
            _check_token(
                token,
                ranks,
                {pair for pair in splits(token, ranks) if (pieces[pair[0]], pieces[pair[1]]) in known},
                bool(model.get("ignore_merges")),
            )


def _check_token(token: bytes, ranks: Mapping[bytes, int], merged: set[tuple[bytes, bytes]], whole_words: bool) -> None:
    """Refuses a token that tiktoken merges from other pairs, or where the merges here never give it.

    Args:
        token: Two bytes or more.
        ranks: Every token's rank.
        merged: The pairs that are merged to this token here.
        whole_words: Whether a word that is a token is not merged here either (`ignore_merges`).
    """
    if whole_words and len(merged) == len(splits(token, ranks)):
        return
    pair = last_merge(token, ranks)
    if pair is not None and pair not in merged:
        raise _refusal(f"by rank {token!r} would be merged from {pair[0]!r} and {pair[1]!r}")
    if pair is None and not whole_words:
        raise _refusal(f"merging never gives {token!r}, but tiktoken takes it where it is a whole word")
