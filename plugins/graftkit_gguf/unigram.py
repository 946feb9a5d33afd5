"""Unigram, the tokenizer of XLM-RoBERTa's kind, in the metadata of a GGUF file, in both directions.

llama.cpp (`llm_tokenizer_ugm` in llama-vocab.cpp) replaces characters by SentencePiece's table, takes runs of spaces
for one, puts one before each text between special tokens, and cuts what that makes into the likeliest pieces.
"""

from __future__ import annotations

import base64
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from graftkit.errors import ExportError
from graftkit.tokenization.bounds import check_charsmap

from graftkit_gguf.metadata import Metadata
from graftkit_gguf.vocabulary_keys import NORMAL, ROLE_KEYS

__all__ = ["ADDS_SPACE", "CHARSMAP", "MERGES_SPACES", "SCORES_OF_PIECES", "Unigram", "unigram_metadata"]

Json = dict[str, Any]

CHARSMAP, MERGES_SPACES = "tokenizer.ggml.precompiled_charsmap", "tokenizer.ggml.remove_extra_whitespaces"
ADDS_SPACE, SCORES_OF_PIECES = "tokenizer.ggml.add_space_prefix", "tokenizer.ggml.scores"

_SPACE = "▁"
_OUT_OF_REACH = -10_000.0
"""The score of tokens that no text is cut into."""
_USUAL_SPACES = "\t\n\v\f\r\xa0\u2003\u2028\u3000"
"""White space that texts have, besides the space, at which alone llama.cpp splits."""


def _replaced(pattern: Json, content: str) -> Json:
    return {"type": "Replace", "pattern": pattern, "content": content}


_METASPACE = {"type": "Metaspace", "replacement": _SPACE, "prepend_scheme": "always", "split": True}
_WORDS = {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, _METASPACE]}
_TRIMMED = [_replaced({"Regex": r"\A +| +\z"}, ""), _replaced({"Regex": " +"}, " ")]
"""What takes runs of spaces for one, as this module writes it."""
_CONVERTED = tuple(
    [{"type": "Strip", "strip_left": False, "strip_right": True}, _replaced({"Regex": " {2,}"}, space)]
    for space in (" ", _SPACE)
)
"""And as transformers' conversions of SentencePiece's models do, which strip other white space, too."""


def unigram_metadata(spec: Mapping[str, Any], tokens: Sequence[str], types: Sequence[int]) -> dict[str, Any]:
    """Returns what is said of a Unigram tokenizer besides its tokens and roles.

    Args:
        spec: The content of tokenizer.json.
        tokens: Each id's token.
        types: What it is.

    Raises:
        ExportError: llama.cpp can't cut text so.
    """
    model = spec["model"]
    if model.get("byte_fallback") or model.get("unk_id") is None:
        raise ExportError(
            "a Unigram tokenizer has a form in GGUF only with an unknown token, and without bytes' tokens"
        )
    odd = [token for token, type_ in zip(tokens, types, strict=True) if type_ == NORMAL and _SPACE in token[1:]]
    if odd or len({*tokens}) < len(tokens) or "" in tokens:
        named = f", as {odd[0]!r:.60} has it" if odd else ""
        raise ExportError(
            f"a Unigram tokenizer has a form in GGUF only without empty or equal pieces, or ▁ within{named}"
        )
    scores = [score for _, score in model["vocab"]] + [_OUT_OF_REACH] * (len(tokens) - len(model["vocab"]))
    charsmap = _charsmap(spec)
    return {
        "tokenizer.ggml.model": "t5",
        "tokenizer.ggml.pre": "default",
        SCORES_OF_PIECES: [
            float(score) if type_ == NORMAL else _OUT_OF_REACH for score, type_ in zip(scores, types, strict=True)
        ],
        ADDS_SPACE: True,
        MERGES_SPACES: True,
        ROLE_KEYS["unk"]: model["unk_id"],
        **({CHARSMAP: charsmap} if charsmap else {}),
    }


def _charsmap(spec: Mapping[str, Any]) -> bytes:
    """Returns SentencePiece's table of replacements, which is empty where there is none.

    Raises:
        ExportError: Text is changed or split otherwise, too.
    """
    normalizer = spec.get("normalizer") or {"type": "Sequence", "normalizers": []}
    steps = normalizer["normalizers"] if normalizer["type"] == "Sequence" else [normalizer]
    has_table = bool(steps) and steps[0]["type"] == "Precompiled"
    charsmap = base64.b64decode(steps[0]["precompiled_charsmap"]) if has_table else b""
    rest, split = steps[has_table:], spec.get("pre_tokenizer")
    if split == _METASPACE and rest == _TRIMMED:
        return charsmap
    if (split == _WORDS and not rest) or (split == _METASPACE and rest in _CONVERTED):
        _refuse_other_spaces(charsmap)
        return charsmap
    raise ExportError(
        "a Unigram tokenizer has a form in GGUF only where it replaces characters by SentencePiece's table, takes runs "
        "of spaces for one, and puts one before each text"
    )


def _refuse_other_spaces(charsmap: bytes) -> None:
    """Refuses a tokenizer that splits at characters which llama.cpp takes for letters."""
    from tokenizers.normalizers import Precompiled

    normalize = Precompiled(charsmap).normalize_str if charsmap else str
    kept = [f"U+{ord(space):04X}" for space in _USUAL_SPACES if normalize(space).strip(" ")]
    if kept:
        raise ExportError(
            f"its tokenizer splits at white space that its table does not replace by spaces ({', '.join(kept)}), and "
            "llama.cpp at spaces alone"
        )


@dataclass(frozen=True, slots=True)
class Unigram:
    """What a GGUF file says of a Unigram tokenizer's pieces.

    Attributes:
        scores: The logarithm of each id's probability.
        unknown: The id of what is no piece.
        charsmap: SentencePiece's table of replacements; empty where there is none.
    """

    scores: Sequence[float]
    unknown: int
    charsmap: bytes

    @classmethod
    def read(cls, metadata: Metadata, tokens: Sequence[str]) -> Unigram:
        """Reads it from a file's metadata.

        Args:
            metadata: The file's.
            tokens: Its tokens.

        Raises:
            ModelError: It asks for another way to write spaces, or contradicts itself.
        """
        for key, default in ((ADDS_SPACE, True), (MERGES_SPACES, False)):
            if not metadata.flag(key, default):
                raise metadata.refused(f"{key} is not true, as it is of the Unigram tokenizers that can be read")
        scores = metadata.numbers(SCORES_OF_PIECES)
        if len(scores) != len(tokens):
            raise metadata.error(SCORES_OF_PIECES, f"but there are {len(tokens):,} tokens")
        unknown = metadata.integer(ROLE_KEYS["unk"])
        if unknown >= len(tokens):
            raise metadata.error(ROLE_KEYS["unk"], f"but there are {len(tokens):,} tokens")
        table = metadata.values.get(CHARSMAP, array("B"))
        if not isinstance(table, array) or table.itemsize != 1:
            raise metadata.error(CHARSMAP, "not an array of bytes")
        if charsmap := table.tobytes():
            check_charsmap(charsmap, str(metadata.path))
        return cls(scores, unknown, charsmap)

    def parts(self, vocabulary: Mapping[str, int]) -> dict[str, Json]:
        """Returns the parts of a tokenizer.json that cut text.

        Args:
            vocabulary: Token -> id, in the order of the ids.
        """
        table = {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(self.charsmap).decode()}
        pieces = [[token, score] for token, score in zip(vocabulary, self.scores, strict=True)]
        return {
            "model": {"type": "Unigram", "unk_id": self.unknown, "vocab": pieces, "byte_fallback": False},
            "normalizer": {"type": "Sequence", "normalizers": [*([table] if self.charsmap else []), *_TRIMMED]},
            "pre_tokenizer": _METASPACE,
            "decoder": _METASPACE,
        }
