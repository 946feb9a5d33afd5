"""Ids become text and bytes again, at once or one by one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from graftkit.errors import ModelError
from graftkit.tokenization.byte_alphabet import byte_alphabet
from graftkit_tokenizers.huggingface import HuggingFaceTokenizer
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

Make = Callable[..., HuggingFaceTokenizer]


def streamed(tokenizer: HuggingFaceTokenizer, ids: list[int]) -> list[str]:
    stream = tokenizer.stream_decoder()
    return [*(stream.push(token) for token in ids), stream.finish()]


@settings(max_examples=200)
@given(st.text(max_size=20))
def test_every_text_and_every_byte_comes_back(byte_level: HuggingFaceTokenizer, text: str) -> None:
    assert byte_level.capabilities.lossless_unicode and byte_level.capabilities.lossless_bytes
    ids = byte_level.encode(text)
    assert byte_level.decode(ids) == text
    assert byte_level.decode_bytes(ids) == text.encode()
    assert byte_level.normalize(text) == text


@pytest.mark.parametrize(
    "text", ["🎉", "a🎉b", "👩‍👩‍👧 hey", "é", "日本語", "éé<tool_call>🎉", "<|im_end|>x", "\u0000\ufffd"]
)
def test_a_stream_is_the_text_at_every_cut_and_never_half_a_character(
    byte_level: HuggingFaceTokenizer, text: str
) -> None:
    ids = byte_level.encode(text, "all")
    for cut in range(len(ids) + 1):
        parts = streamed(byte_level, ids[:cut])
        assert "".join(parts) == byte_level.decode(ids[:cut])
        assert text.startswith("".join(parts[:-1]))
    assert "".join(parts[:-1]) == text


@settings(max_examples=200)
@given(st.lists(st.integers(0, 264), max_size=12))
def test_any_ids_stream_as_they_decode(byte_level: HuggingFaceTokenizer, ids: list[int]) -> None:
    assert "".join(streamed(byte_level, ids)) == byte_level.decode(ids)
    assert byte_level.decode(ids) == byte_level.decode_bytes(ids).decode("utf-8", errors="replace")


@settings(max_examples=100)
@given(st.lists(st.integers(0, 255), max_size=12))
def test_what_it_decodes_is_what_the_library_decodes(byte_level: HuggingFaceTokenizer, ids: list[int]) -> None:
    assert byte_level.decode(ids) == byte_level._full.decode(ids, skip_special_tokens=False)


@pytest.mark.parametrize("text", ["he", "hello he ab", "a🎉b", "日本", "<s>he", "he  a"])
def test_a_sentencepiece_stream_is_the_text_too(make: Make, text: str) -> None:
    tokenizer = make("sentencepiece")
    ids = tokenizer.encode(text)
    parts = streamed(tokenizer, ids)
    assert "".join(parts) == tokenizer.decode(ids) == text
    assert "\ufffd" not in "".join(parts)


@settings(max_examples=200)
@given(st.lists(st.integers(0, 277), max_size=12), st.integers(0, 2))
def test_any_ids_of_a_sentencepiece_vocabulary_stream_as_they_decode(make: Make, ids: list[int], strip: int) -> None:
    tokenizer = make("sentencepiece", lambda spec: spec["decoder"]["decoders"][-1].update(start=strip))
    whole = tokenizer.decode_bytes([id for id in ids if id < tokenizer.vocab_size]).decode("utf-8", errors="replace")
    stripped = next(whole[n:] for n in range(strip + 1) if n == strip or not whole.startswith(" " * (n + 1)))
    assert "".join(streamed(tokenizer, ids)) == tokenizer.decode(ids) == stripped


def sequence(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"type": "Sequence", "decoders": [*parts]}


def strip(start: int, stop: int, content: str = "a") -> dict[str, Any]:
    return {"type": "Strip", "content": content, "start": start, "stop": stop}


FUSE = {"type": "Fuse"}
SPACES = {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}
BYTES = {"type": "ByteFallback"}
METASPACE = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}

DECODERS: dict[str, tuple[str, Any]] = {
    "Metaspace": ("unigram", METASPACE),
    "WordPiece": ("wordpiece", {"type": "WordPiece", "prefix": "##", "cleanup": True}),
    "BPEDecoder": ("wordpiece", {"type": "BPEDecoder", "suffix": "b"}),
    "CTC": ("wordpiece", {"type": "CTC", "pad_token": "a", "word_delimiter_token": "b", "cleanup": True}),
    "nothing": ("wordpiece", None),
    "Fuse": ("unigram", FUSE),
    "Strip": ("wordpiece", strip(1, 0, "#")),
    "fused, stripped": ("unigram", sequence(FUSE, strip(2, 0))),
    "fused, stripped at the end": ("unigram", sequence(FUSE, strip(0, 3))),
    "fused, stripped twice": ("unigram", sequence(METASPACE, FUSE, strip(1, 0), FUSE, strip(1, 1, "b"))),
    "SentencePiece without bytes": ("unigram", sequence(SPACES, FUSE, strip(1, 0, " "))),
    "bytes, stripped at the end": ("sentencepiece", sequence(SPACES, BYTES, FUSE, strip(1, 0, " "), strip(0, 1, "e"))),
    "bytes, not fused": ("sentencepiece", sequence(SPACES, BYTES)),
    "changed after it is fused": ("unigram", sequence(FUSE, {**SPACES, "content": "--"})),
}


def streams_alike(tokenizer: HuggingFaceTokenizer, ids: list[int]) -> None:
    """The library's Strip panics at texts shorter than what it strips from the end."""
    try:
        whole = tokenizer.decode(ids)
    except ModelError:
        with pytest.raises(ModelError, match="can't decode these ids"):
            streamed(tokenizer, ids)
    else:
        assert "".join(streamed(tokenizer, ids)) == whole


def decoding(make: Make, name: str) -> HuggingFaceTokenizer:
    family, decoder = DECODERS[name]
    return make(family, lambda spec: spec.update(decoder=decoder))


@pytest.mark.parametrize("name", DECODERS)
@settings(max_examples=60)
@given(st.lists(st.integers(-1, 24) | st.integers(100, 280), max_size=120), st.integers(1, 9))
def test_any_ids_stream_as_they_decode_whatever_the_decoder(
    make: Make, name: str, ids: list[int], repeated: int
) -> None:
    tokenizer = decoding(make, name)
    streams_alike(tokenizer, [id for id in ids for _ in range(repeated)])


@pytest.mark.parametrize("name", DECODERS)
@settings(max_examples=30)
@given(st.text("ab<s>/é日🎉 ", max_size=200), st.integers(1, 3))
def test_texts_stream_as_they_decode_whatever_the_decoder(make: Make, name: str, text: str, repeated: int) -> None:
    tokenizer = decoding(make, name)
    streams_alike(tokenizer, tokenizer.encode(text * repeated))


@pytest.mark.parametrize("name", DECODERS)
def test_a_long_text_streams_in_linear_time(make: Make, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer, decoded = decoding(make, name), list[int]()
    whole = tokenizer.decode
    monkeypatch.setattr(tokenizer, "decode", lambda ids: decoded.append(len(ids)) or whole(ids))
    ids = [3 + n % 7 for n in range(3000)] + ([*range(259, 274)] * 100 if tokenizer.vocab_size > 270 else [])
    assert "".join(streamed(tokenizer, ids)) == whole(ids)
    assert sum(decoded) < 40 * len(ids)


def test_a_text_is_shown_token_by_token_though_it_is_fused_and_stripped(make: Make) -> None:
    tokenizer = decoding(make, "SentencePiece without bytes")
    ids = tokenizer.encode("ab " * 300)
    assert len(ids) > 600
    assert all(len(part) < 3 for part in streamed(tokenizer, ids))


@pytest.mark.parametrize("strip", [0, 1])
def test_what_stands_for_a_space_is_one_in_added_tokens_too(make: Make, tmp_path: Path, strip: int) -> None:
    """Gemma's runs of spaces are added tokens such as ▁▁."""

    def add(spec: dict[str, Any]) -> None:
        size = spec["added_tokens"][-1]["id"] + 1
        for n, (text, special) in enumerate({"▁▁": False, "▁▁▁": False, "▁<PRE>": True}.items()):
            spec["added_tokens"].append(
                {**spec["added_tokens"][0], "id": size + n, "content": text, "special": special}
            )

        spec["decoder"]["decoders"][-1]["start"] = strip

    tokenizer = make("sentencepiece", add)
    tokenizer.save(tmp_path)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    size = tokenizer.vocab_size
    assert [tokenizer.token_bytes(id) for id in range(size - 3, size)] == [b"  ", b"   ", b" <PRE>"]
    for ids in ([size - 3], [size - 2, 266], [266, size - 3, 267, size - 1], [size - 1, 1, size - 2, 2]):
        text = theirs.decode(ids)
        assert tokenizer.decode(ids) == "".join(streamed(tokenizer, ids)) == text
        assert tokenizer.decode_bytes(ids).decode().removeprefix(" " * strip) == text


def test_half_a_character_at_the_end_is_shown_only_when_nothing_follows(make: Make) -> None:
    for family in ("byte_level", "sentencepiece"):
        tokenizer = make(family)
        ids = tokenizer.encode("a🎉")
        *shown, last = streamed(tokenizer, ids[:-1])
        assert "".join(shown) == "a" and set(last) == {"\ufffd"}


def test_a_token_that_is_not_special_is_read_as_it_is_written(byte_level: HuggingFaceTokenizer) -> None:
    """The library takes é in an added token for a byte's stand-in."""
    assert byte_level.decode(byte_level.encode("xééy")) == "xééy"


def test_special_tokens_are_left_out_where_nobody_wants_them(tokenizer: HuggingFaceTokenizer) -> None:
    for text, id in tokenizer.special_tokens.items():
        assert tokenizer.decode([id], skip_specials=True) == ""
        assert tokenizer.decode([id]).strip() == text
    ids = tokenizer.encode("a b")
    assert tokenizer.decode(ids, skip_specials=True) == tokenizer.decode(ids)


def test_each_id_stands_for_its_bytes(byte_level: HuggingFaceTokenizer) -> None:
    alphabet = byte_alphabet()
    assert sorted(alphabet.values()) == list(range(256)) and alphabet["Ġ"] == 32
    vocab = json.loads(byte_level._files["tokenizer.json"])["model"]["vocab"]
    for character, byte in alphabet.items():
        assert byte_level.token_bytes(vocab[character]) == bytes([byte])
    assert byte_level.token_bytes(vocab["Ġhe"]) == b" he"
    assert byte_level.token_bytes(byte_level.special_tokens["<|im_end|>"]) == b"<|im_end|>"


def test_bytes_of_a_sentencepiece_vocabulary(make: Make) -> None:
    tokenizer = make("sentencepiece")
    pieces = {piece: tokenizer._full.token_to_id(piece) for piece in ("▁he", "<0xF0>", "he", "</s>", "[INST]")}
    assert [tokenizer.token_bytes(id) for id in pieces.values()] == [b" he", b"\xf0", b"he", b"</s>", b"[INST]"]


@pytest.mark.parametrize("id", [-1, 265, 10**6, 2**40, -(2**70)])
def test_an_id_that_no_token_has_is_an_index_error_and_no_text(byte_level: HuggingFaceTokenizer, id: int) -> None:
    assert byte_level.vocab_size == 265
    with pytest.raises(IndexError, match="no token has the id"):
        byte_level.token_bytes(id)
    with pytest.raises(IndexError, match="no token has the id"):
        byte_level.decode_bytes([id])
    assert byte_level.decode([id]) == "".join(streamed(byte_level, [id])) == ""


def test_the_size_is_the_highest_id_plus_one(tokenizer: HuggingFaceTokenizer) -> None:
    assert tokenizer.token_bytes(tokenizer.vocab_size - 1)
    with pytest.raises(IndexError):
        tokenizer.token_bytes(tokenizer.vocab_size)
