"""A vocabulary of ranks, whichever it is, gives tiktoken's ids."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiktoken
from graftkit.errors import ModelError
from graftkit.tokenization.splitting import PATTERNS
from graftkit_tokenizers.formats.ranks import merges_of
from graftkit_tokenizers.formats.tiktoken_files import byte_level_parts
from graftkit_tokenizers.huggingface import HuggingFaceTokenizer
from hypothesis import given, settings
from hypothesis import strategies as st

BYTES = {bytes([byte]): byte for byte in range(256)}
TOKENS = st.lists(st.text("ab ", min_size=2, max_size=6), unique=True, max_size=14)


def built(tokens: list[str]) -> tuple[HuggingFaceTokenizer, tiktoken.Encoding]:
    """Returns a tokenizer of all bytes and these tokens, in this order, made here and by tiktoken."""
    ranks = {**BYTES, **{token.encode(): 256 + place for place, token in enumerate(tokens)}}
    parts = byte_level_parts(ranks, PATTERNS["whitespace"], {}, "here")
    theirs = tiktoken.Encoding("", pat_str=PATTERNS["whitespace"], mergeable_ranks=ranks, special_tokens={})
    return HuggingFaceTokenizer({"tokenizer.json": json.dumps(parts).encode()}), theirs


@settings(max_examples=300)
@given(TOKENS, st.lists(st.text("ab ", max_size=24), min_size=1, max_size=8))
def test_any_tokens_in_any_order_give_tiktokens_ids(tokens: list[str], texts: list[str]) -> None:
    ours, theirs = built(tokens)
    for text in [*texts, *tokens, "".join(tokens)]:
        assert ours.encode(text) == theirs.encode_ordinary(text)


@settings(max_examples=100)
@given(TOKENS)
def test_what_is_saved_for_tiktoken_has_the_same_fingerprint(tmp_path_factory: pytest.TempPathFactory,
                                                             tokens: list[str]) -> None:  # fmt: skip
    from graftkit_tokenizers.train.byte_level import ByteLevelBackend

    folder = tmp_path_factory.mktemp("ranks")
    ours, _ = built(tokens)
    ours.save(folder, "tiktoken")
    assert ByteLevelBackend().load(folder).fingerprint == ours.fingerprint


def test_a_token_that_its_bytes_do_not_come_to_has_no_merge() -> None:
    assert list(merges_of({**BYTES, b"bc": 256, b"abcd": 257})) == [(b"b", b"c")]


@pytest.mark.parametrize(
    ("ranks", "special", "message"),
    [
        ({b"a": 0}, {}, "255 of the 256 bytes have no token"),
        ({**BYTES, b"ab": 3}, {}, "two tokens have one id"),
        (BYTES, {"<s>": 7}, "two tokens have one id"),
        ({**BYTES, b"end": 256}, {"end": 257}, "special, and a token of text too"),
    ],
)
def test_ranks_that_make_no_tokenizer_are_refused(
    ranks: dict[bytes, int], special: dict[str, int], message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        byte_level_parts(ranks, PATTERNS["gpt2"], special, str(Path("here")))
