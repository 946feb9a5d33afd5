"""Says what a tokenizer is in the metadata of a GGUF file."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from graftkit.errors import ExportError
from graftkit.interfaces.vocabulary_limits import MOST_PIECES
from graftkit.tokenization.scored_pieces import scores_of_merges

from graftkit_gguf.splitting import SPLITTINGS, missing_bytes_apart
from graftkit_gguf.stop_tokens import stored_stops
from graftkit_gguf.text_form import LEFT, RIGHT, UNICODE_FORM, UnicodeForm, form_of
from graftkit_gguf.unigram import unigram_metadata
from graftkit_gguf.vocabulary_keys import BYTE, CONTROL, NORMAL, ROLE_KEYS, UNKNOWN, UNUSED, USER_DEFINED
from graftkit_gguf.wordpiece import SEPARATOR_ID, wordpiece_metadata, wordpieces

__all__ = ["splitting_name", "tokenizer_metadata"]

_SPACE = "▁"
_ONLY_THERE = {
    "lstrip": "takes the white space before it",
    "rstrip": "takes the white space after it",
    "single_word": "is one only where no letter is beside it",
}
"""The flags of added tokens by which a text has other ids than llama.cpp gives it: it looks for a token's text alone.

Those of `normalized` tokens are the same where text changes in no way but to a form of Unicode.
"""
_MAY_BE_TOLD = frozenset({"lstrip", "rstrip"})
"""Those by which a text may be changed before llama.cpp is given it."""
_A_BYTE = re.compile("<0x[0-9A-F]{2}>")


def tokenizer_metadata(
    folder: Path,
    rows: int,
    roles: Mapping[str, int | None],
    added: tuple[bool, bool],
    stop: list[int],
    *,
    wholes: bool = False,
) -> dict[str, Any]:
    """Returns the keys of `tokenizer.*`.

    Args:
        folder: Where the tokenizer's files are.
        rows: Rows of the embedding: llama.cpp wants a token for each.
        roles: The ids of "bos", "eos", "unk", "pad".
        added: Whether a text begins with the beginning-of-sequence token, and ends with the end-of-sequence token.
        stop: The tokens that end an answer.
        wholes: Whether something is said of whole texts, in which a token may take the white space beside it: the file
            says so, for whoever gives llama.cpp a text. A chat template would give it texts that nobody changes.

    Raises:
        ExportError: The tokenizer has no form in GGUF.
    """
    spec = _tokenizer_json(folder)
    kind, beside = spec["model"].get("type"), _taking_spaces(spec)
    tokens, types = _tokens(spec, rows, may_take_spaces=wholes)
    if kind == "WordPiece":
        tokens, cut = wordpieces(tokens, types), wordpiece_metadata(spec, added, roles.get("eos"))
    elif kind == "Unigram":
        cut = unigram_metadata(spec, tokens, types)
    else:
        cut = _scores(spec, tokens) if _marks_spaces(spec) else _merges(spec)
    found: dict[str, Any] = {
        **{key: roles[role] for role, key in ROLE_KEYS.items() if roles.get(role) is not None},
        **cut,
        **beside,
        **_separator(spec, added, roles.get("eos")),
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.add_bos_token": added[0],
        "tokenizer.ggml.add_eos_token": added[1],
    }
    return {**found, **stored_stops(stop, roles.get("eos"), dict(enumerate(tokens))).metadata}


def _tokenizer_json(folder: Path) -> dict[str, Any]:
    """Reads tokenizer.json.

    Raises:
        ExportError: There is none, or its model is of another kind than BPE, WordPiece and Unigram.
    """
    path = folder / "tokenizer.json"
    if not path.exists():
        raise ExportError("no tokenizer.json gives the ids of this SentencePiece model, so it has no form in GGUF here")
    spec: dict[str, Any] = json.loads(path.read_bytes())
    kind = spec["model"].get("type")
    if kind not in ("BPE", "WordPiece", "Unigram"):
        raise ExportError(f"a tokenizer of the kind {kind} has no form in GGUF here: BPE, WordPiece and Unigram have")
    return spec


def _taking_spaces(spec: Mapping[str, Any]) -> dict[str, list[str]]:
    """Returns the added tokens that take the white space before them, and after them, by the keys that say so."""
    flags, added = {"lstrip": LEFT, "rstrip": RIGHT}, spec.get("added_tokens", ())
    found = {key: [token["content"] for token in added if token.get(flag)] for flag, key in flags.items()}
    return {key: tokens for key, tokens in found.items() if tokens}


def _separator(spec: Mapping[str, Any], added: tuple[bool, bool], eos: int | None) -> dict[str, int]:
    """Returns the token that stands between the texts of a pair, after the end of the first, as RoBERTa has it."""
    processor = spec.get("post_processor") or {}
    put = [part["SpecialToken"]["id"] for part in processor.get("pair", ()) if "SpecialToken" in part]
    doubled = processor.get("type") == "RobertaProcessing" or (len(put) == 4 and len({*put[1:]}) == 1)
    return {SEPARATOR_ID: eos} if doubled and all(added) and eos is not None else {}


def _tokens(spec: Mapping[str, Any], rows: int, *, may_take_spaces: bool) -> tuple[list[str], list[int]]:
    """Returns each id's token and what it is.

    Raises:
        ExportError: There are more than a GGUF may have to be read again, or one is found in texts as llama.cpp finds
            none.
    """
    if rows > MOST_PIECES:
        raise ExportError(f"its vocabulary of {rows:,} is too large: a GGUF's may have {MOST_PIECES:,} here")
    model = spec["model"]
    pieces, unknown = _pieces(model)
    tokens = [f"[PAD{id}]" for id in range(rows)]
    types = [UNUSED] * rows
    for token, id in pieces:
        is_byte = model.get("byte_fallback") and _A_BYTE.fullmatch(token)
        tokens[id], types[id] = token, BYTE if is_byte else UNKNOWN if token == unknown else NORMAL
    for token in spec.get("added_tokens", ()):
        content, id = token["content"], token["id"]
        refused = (flag for flag in _ONLY_THERE if not (may_take_spaces and flag in _MAY_BE_TOLD))
        if flag := next((flag for flag in refused if token.get(flag)), None):
            raise ExportError(f"its token {content!r:.60} {_ONLY_THERE[flag]} ({flag}), which llama.cpp has for none")
        if not token["special"] and model["vocab"].get(content) == id and content.strip(_SPACE) == "":
            continue  # Gemma's runs of spaces, which no space in a text is taken for but by merges
        if types[id] != UNKNOWN or not token["special"]:
            types[id] = CONTROL if token["special"] else USER_DEFINED
        tokens[id] = content
    return tokens, types


def _pieces(model: Mapping[str, Any]) -> tuple[Iterable[tuple[str, int]], str | None]:
    """Returns the pieces with their ids, and the one that stands for what is none."""
    if model.get("type") != "Unigram":
        return model["vocab"].items(), model["unk_token"]
    pieces = [piece for piece, _ in model["vocab"]]
    unknown = model.get("unk_id")
    return zip(pieces, range(len(pieces)), strict=True), None if unknown is None else pieces[unknown]


def _merges(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what is said of byte-level pieces."""
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": splitting_name(spec),
        "tokenizer.ggml.merges": [" ".join(merge) for merge in spec["model"]["merges"]],
        **({UNICODE_FORM: form} if (form := _form(spec)) else {}),
    }


def _form(spec: Mapping[str, Any]) -> UnicodeForm | None:
    normalizer = spec.get("normalizer") or {}
    parts = normalizer.get("normalizers", [normalizer])
    return form_of(parts[0].get("type")) if len(parts) == 1 else None


def splitting_name(spec: Mapping[str, Any]) -> str:
    """Returns the value of `tokenizer.ggml.pre` that splits text as a tokenizer.json does.

    Args:
        spec: The content of tokenizer.json.

    Raises:
        ExportError: llama.cpp has no such way, or graftkit knows none for it.
    """
    model = spec["model"]
    if model.get("byte_fallback") or (spec.get("normalizer") and not _form(spec)):
        raise ExportError(
            "the tokenizer changes text before it cuts it, which llama.cpp does not",
            hint="Only a form of Unicode, such as NFC, is written.",
        )
    found = spec.get("pre_tokenizer") or {}
    parts = found.get("pretokenizers", [found])
    for name, splitting in SPLITTINGS.items():
        wanted = [*splitting.pre_tokenizers, *missing_bytes_apart(model["vocab"])]
        plain = [*map(_essence, splitting.pre_tokenizers)]
        same = [*map(_essence, parts)] in (plain, [*map(_essence, wanted)])
        if same and bool(model.get("ignore_merges")) == splitting.whole_words:
            return name
    raise ExportError(
        "the tokenizer splits text in a way that has no name in llama.cpp, or none that graftkit knows",
        hint=f"Known are {', '.join(SPLITTINGS)}.",
    )


def _essence(part: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a pre-tokenizer without what changes no piece."""
    return {key: value for key, value in part.items() if key not in ("trim_offsets",)}


def _marks_spaces(spec: Mapping[str, Any]) -> bool:
    """Tells whether `▁` stands for a space in pieces."""
    return _SPACE in json.dumps([spec.get("normalizer"), spec.get("pre_tokenizer")], ensure_ascii=False)


def _scores(spec: Mapping[str, Any], tokens: list[str]) -> dict[str, Any]:
    """Returns what is said of pieces with `▁` for a space.

    Raises:
        ExportError: llama.cpp, which knows scores of pieces, can't cut text so.
    """
    model = spec["model"]
    known = set(tokens)
    if not model.get("byte_fallback") or not all(f"<0x{byte:02X}>" in known for byte in range(256)):
        raise ExportError("a tokenizer that writes spaces as ▁ has a form in GGUF only with a token for each byte")
    try:
        scores = scores_of_merges(tokens, model["merges"])
    except ValueError as error:
        raise ExportError(f"its merges have no form in GGUF, where pieces have scores: {error}") from None
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.scores": [scores[token] for token in tokens],
        "tokenizer.ggml.add_space_prefix": _adds_space(spec),
    }


def _adds_space(spec: Mapping[str, Any]) -> bool:
    """Tells whether each text between special tokens starts with a space.

    Raises:
        ExportError: Text is changed or split otherwise, too.
    """
    found = spec.get("normalizer") or {"type": "Sequence", "normalizers": []}
    normalizers = found["normalizers"] if found["type"] == "Sequence" else [found]
    prepend = {"type": "Prepend", "prepend": _SPACE}
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": _SPACE}
    splits = spec.get("pre_tokenizer")
    whole = splits is None or splits == {
        "type": "Split",
        "pattern": {"String": " "},
        "behavior": "MergedWithPrevious",
        "invert": False,
    }
    if whole and normalizers in ([prepend, replace], [replace]):
        return len(normalizers) == 2
    never = {"type": "Metaspace", "replacement": _SPACE, "prepend_scheme": "never", "split": False}
    if not normalizers and splits == never:
        return False
    raise ExportError(
        "the tokenizer writes spaces in a way that llama.cpp has not, which puts one before each text between special "
        "tokens, whatever that starts with, or before none, and joins pieces across words"
    )
