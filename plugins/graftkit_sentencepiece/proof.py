"""Compares a tokenizer.json with the SentencePiece model that it was converted from, on texts chosen to differ."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import TYPE_CHECKING

from graftkit.tokenization.panics import no_panic
from tokenizers import Tokenizer

from graftkit_sentencepiece.proto import Kind
from graftkit_sentencepiece.tokenizer_json import Json

if TYPE_CHECKING:
    from graftkit_sentencepiece.model import SentencePieceModel

__all__ = ["difference_from_json"]

_MIXED = 3000
_TOKENS = 50
_ODD = (
    *(
        "e\u0301\u0323 \u1112\u1161\u11ab ﬁ①½Å",
        "a\u200db\u200cc",
        "👩‍👩‍👧🏽🇩🇪🎉",
        "\ufeff\ufffd\ue000\U0010ffff",
        "\x00\x01\x7f\x85",
    ),
    *(
        "\r\n\r\n",
        "\u2028\u3000\u00a0x",
        "<0x41><0x0A>",
        " ▁ ▁▁x▁",
        "e\n\n  \n\t\tif x:\n",
        "３.１４ 3.14",
        "क्षत्रिय ไทย",
    ),
)


def difference_from_json(tokenizer: SentencePieceModel, spec: Json) -> str | None:
    """Returns a text that the two encode differently, or None where there is none among a few thousand.

    Args:
        tokenizer: The model.
        spec: The tokenizer.json.
    """
    texts = list(_probes(tokenizer))
    with no_panic(tokenizer.files.where):
        other = Tokenizer.from_str(json.dumps(spec))
        found = [list(encoding.ids) for encoding in other.encode_batch_fast(texts, add_special_tokens=False)]
    expected = tokenizer.encode_batch(texts, "all")
    return next((text for text, ids, own in zip(texts, found, expected, strict=True) if ids != own), None)


def _probes(tokenizer: SentencePieceModel) -> Iterator[str]:
    """Yields characters of every script, runs of spaces, pieces side by side in any order, and special tokens."""
    codes = [*range(0x3000), *range(0x3000, 0xD800, 61), *range(0xE000, 0x20000, 61)]
    yield from ("".join(map(chr, codes[start : start + 97])) for start in range(0, len(codes), 97))
    yield from (f"{around}{' ' * n}{around}" for n in range(40) for around in ("", "a", "\n"))
    yield from _ODD
    draw = random.Random(0)
    pieces = [piece.text.replace("▁", " ") for piece in tokenizer.proto.pieces if piece.kind is Kind.NORMAL]
    for _ in range(_MIXED if pieces else 0):
        yield "".join(draw.choice(pieces) for _ in range(draw.randrange(1, 9)))
    found = [piece.text.replace("▁", " ") for piece in tokenizer.proto.pieces if piece.kind is Kind.USER_DEFINED]
    for text in [*found[:_TOKENS], *[token.content for token in tokenizer.added][:_TOKENS]]:
        yield from (f"a {text} b{text}c", text, f" {text}\n", f"{text} {text}")
