"""Extending a SentencePiece model: what plain sentencepiece makes of the new model, and what it leaves as it was."""

from __future__ import annotations

import functools
import itertools
import re
import struct
from collections import Counter
from itertools import accumulate, pairwise
from typing import Any

import pytest
import sentencepiece
from graftkit.errors import RequestError
from graftkit.interfaces.vocabulary import ExtensionPlan, ExtensionSpec, TrainingSpec
from graftkit_sentencepiece.backend import SentencePieceBackend
from graftkit_sentencepiece.config import SentencePieceConfig
from graftkit_sentencepiece.files import SentencePieceFiles
from graftkit_sentencepiece.proto import Kind, ModelProto, Piece
from graftkit_sentencepiece.rules import PieceRules
from graftkit_sentencepiece.tokenizer import SentencePieceTokenizer
from graftkit_sentencepiece.wire import write_bytes, write_varint
from hypothesis import given, settings
from hypothesis import strategies as st
from sentencepiece_models import BOTCHAN, JAPANESE, MISTRAL, corpus, loaded

BPE, UNIGRAM = (MISTRAL,), (BOTCHAN, JAPANESE)
NAMES = (*BPE, *UNIGRAM)
FRAGMENTS = sorted({part for text in corpus() for part in re.findall(r"\s*\w{1,7}|\W{1,3}", text)})[::7]


@functools.cache
def extended(name: str, tokens: int = 300, missing_bytes: bool = False) -> ExtensionPlan:
    """Returns a real model extended on a novel and code."""
    spec = ExtensionSpec(tokens, missing_bytes=missing_bytes)
    return SentencePieceBackend().extend(loaded(name), iter(corpus()), spec)


def model_of(plan: ExtensionPlan) -> Any:
    """Returns the new model as the library itself runs it."""
    tokenizer: Any = plan.tokenizer
    return sentencepiece.SentencePieceProcessor(model_proto=tokenizer.files.model)


@pytest.mark.parametrize("name", NAMES)
def test_the_library_itself_makes_the_new_pieces(name: str) -> None:
    plan = extended(name)
    library = model_of(plan)
    uses: Counter[int] = Counter()
    for text in corpus():
        ids = library.encode(text)
        assert plan.tokenizer.encode(text) == ids
        uses.update(ids)
    assert {token.id: token.uses for token in plan.tokens} == {token.id: uses[token.id] for token in plan.tokens}
    assert plan.tokens_after == uses.total() < plan.base_tokens
    assert len(plan.scaffolding) < len(plan.tokens) / 3


@pytest.mark.parametrize("name", NAMES)
def test_every_byte_of_the_bases_model_stays_where_it_is(name: str) -> None:
    new: Any = extended(name).tokenizer
    assert new.files.model.startswith(loaded(name).files.model)
    assert new.proto.pieces[: loaded(name).vocab_size] == loaded(name).proto.pieces


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=200)
@given(fragments=st.lists(st.one_of(st.sampled_from(FRAGMENTS), st.text(max_size=3)), max_size=12))
def test_a_text_without_new_tokens_is_cut_as_before(name: str, fragments: list[str]) -> None:
    base, plan, text = loaded(name), extended(name), "".join(fragments)
    if max(ids := plan.tokenizer.encode(text), default=0) < base.vocab_size:
        assert ids == base.encode(text)


@settings(max_examples=300)
@given(fragments=st.lists(st.one_of(st.sampled_from(FRAGMENTS), st.text(max_size=3)), max_size=12))
def test_merges_only_join(fragments: list[str]) -> None:
    base, plan, text = loaded(MISTRAL), extended(MISTRAL), "".join(fragments)
    assert plan.coarsens
    assert _cuts(plan.tokenizer, text) <= _cuts(base, text)


@settings(max_examples=100)
@given(
    pieces=st.dictionaries(
        st.text("abc", min_size=2, max_size=5), st.sampled_from([-9.0, -8.0, -7.5, -3.0, -1.0]), min_size=1, max_size=9
    ),
    texts=st.lists(st.text("abc", min_size=1, max_size=9), min_size=1, max_size=6),
)
def test_a_model_with_any_merges_whatever_keeps_every_text_and_only_joins(
    pieces: dict[str, float], texts: list[str]
) -> None:
    """Also one with pieces that no merges lead to, and with equal scores: every text of up to six letters."""
    base = _made(pieces)
    try:
        plan = SentencePieceBackend().extend(base, texts * 2, ExtensionSpec(6, missing_bytes=False))
    except RequestError:
        return  # nothing to learn
    for ids, old in zip(plan.tokenizer.encode_batch(_ALL_TEXTS), base.encode_batch(_ALL_TEXTS), strict=True):
        assert max(ids) >= base.vocab_size or ids == old
        assert _ends(plan.tokenizer, ids) <= _ends(base, old)


@pytest.mark.parametrize("lowest", [-1.0, -31740.0, -1e9, -1e30])
def test_the_new_scores_fall_as_float32(lowest: float) -> None:
    base = _made({"ab": -0.5, "bc": lowest})
    plan = SentencePieceBackend().extend(base, ["abcabcabcabc"] * 2, ExtensionSpec(3, missing_bytes=False))
    library = model_of(plan)
    scores = [library.get_score(token.id) for token in plan.tokens]
    assert len(scores) == 3
    assert all(right < left for left, right in pairwise([struct.unpack("<f", struct.pack("<f", lowest))[0], *scores]))


def test_an_unknown_character_costs_a_unigram_model_what_it_did() -> None:
    base, plan = loaded(BOTCHAN), extended(BOTCHAN)
    lowest = min(piece.score for piece in base.proto.pieces if piece.kind is Kind.NORMAL)
    assert min(model_of(plan).get_score(token.id) for token in plan.tokens) >= lowest
    assert not plan.coarsens


@pytest.mark.parametrize("byte_fallback", [True, False])
def test_bytes_and_unknown_pieces_are_never_joined(byte_fallback: bool) -> None:
    """Whatever the rules of the model's own training would allow."""
    config = SentencePieceConfig(byte_fallback=byte_fallback, split_by_unicode_script=False, split_digits=False)
    base = SentencePieceBackend(config).train(["some words of a corpus"], TrainingSpec(300))
    spec = ExtensionSpec(20, missing_bytes=False)
    plan = SentencePieceBackend(config).extend(base, ["some 日日日 corpus日日日words"] * 5, spec)
    assert not [token for token in plan.tokens if not set(token.data.decode()) <= set(" some words of a corpus")]


def test_new_pieces_keep_the_rules_of_the_models_own() -> None:
    new: Any = extended(MISTRAL).tokenizer
    for piece in new.proto.pieces[loaded(MISTRAL).vocab_size :]:
        assert not re.search(r"[^▁]▁|▁▁[^▁]|.\d|\d.|[a-zA-Z][!-/:-@\[-`{-~]", piece.text)


@pytest.mark.parametrize("model_type", ["bpe", "unigram"])
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"split_digits": False, "allow_whitespace_only_pieces": False},
        {"split_by_unicode_script": False},
        {"split_by_whitespace": False, "split_digits": False},
    ],
)
def test_the_rules_allow_every_piece_that_the_library_learns(model_type: Any, fields: dict[str, bool]) -> None:
    backend = SentencePieceBackend(SentencePieceConfig(model_type=model_type, character_coverage=0.98, **fields))
    proto = backend.train(corpus()[:-500], TrainingSpec(3000)).proto
    rules = PieceRules(proto)
    learnt = [piece.text for piece in proto.pieces if piece.kind is Kind.NORMAL and len(piece.text) > 1]
    assert len(learnt) > 500
    assert [piece for piece in learnt if not rules.allow(piece)] == []


def test_a_model_that_loses_text_gets_the_bytes_that_it_lacks() -> None:
    base, text = loaded(BOTCHAN), "日本 🎉 Ünïcode"
    assert base.role_token("unk") in base.encode(text)
    plan = extended(BOTCHAN, missing_bytes=True)
    assert (
        plan.tokenizer.decode(plan.tokenizer.encode(text)) == text == model_of(plan).decode(model_of(plan).encode(text))
    )
    assert [token.data for token in plan.tokens[:256]] == [bytes([byte]) for byte in range(256)]
    assert not any(token.parts for token in plan.tokens[:256])
    assert not plan.coarsens


def test_words_are_tokens_for_the_library_too() -> None:
    base = loaded(MISTRAL)
    words = ("graftkit", "Quux!", "low rank", "the")
    plan = SentencePieceBackend().extend(base, ["my graftkit, graftkits"], ExtensionSpec(0, words=words))
    assert [token.data.decode() for token in plan.tokens] == ["graftkit", "Quux!", "low rank"], "'the' is a token"
    assert [base.decode_bytes(token.parts).decode() for token in plan.tokens] == ["graftkit", "Quux!", "low rank"]
    assert [token.uses for token in plan.tokens] == [2, 0, 0]
    for text in ("my graftkits", "Quux!Quux!", "a low rank", "nothing of it"):
        assert plan.tokenizer.encode(text) == model_of(plan).encode(text)
    assert plan.tokens[2].id in plan.tokenizer.encode("a low rank")
    assert not plan.coarsens


@pytest.mark.parametrize(
    ("word", "message"),
    [
        (" ", "it is empty"),
        ("<s>", "it is a special one"),
        ("x<s>", "it holds the special token '<s>'"),
        ("vector<", "it ends as the special token '<.*' begins"),
        ("\udcff", "it is no Unicode text"),
        ("a\0b", "no character zero"),
        ("abc", "it is a piece already"),
    ],
)
def test_a_word_that_cannot_become_a_token_is_refused(word: str, message: str) -> None:
    base = _made({"abc": -1.0}) if word == "abc" else loaded(MISTRAL)
    with pytest.raises(RequestError, match=message):
        SentencePieceBackend().extend(base, ["a text"], ExtensionSpec(0, words=(word,)))


def test_learning_again_goes_on_where_it_ended() -> None:
    once = extended(MISTRAL, 60)
    again = SentencePieceBackend().extend(once.tokenizer, corpus(), ExtensionSpec(5))
    assert again.tokens[0].id == once.tokenizer.vocab_size
    assert again.base_tokens == once.tokens_after > again.tokens_after


def test_another_backends_tokenizer_is_refused() -> None:
    with pytest.raises(RequestError, match="is no SentencePiece model"):
        SentencePieceBackend().extend(object(), ["a"], ExtensionSpec(1))  # type: ignore[arg-type]


_ALL_TEXTS = ["".join(letters) for size in range(1, 7) for letters in itertools.product("abc", repeat=size)]


def _made(pieces: dict[str, float]) -> SentencePieceTokenizer:
    """Returns a BPE model with these pieces beside a, b and c, which puts no space in front."""
    first = [Piece("<unk>", 0.0, Kind.UNKNOWN), *(Piece(letter, -1e-3, Kind.NORMAL) for letter in "abc")]
    more = [Piece(text, score, Kind.NORMAL) for text, score in pieces.items()]
    data = write_bytes(2, write_varint(3, 2)) + write_bytes(3, write_varint(3, 0) + write_varint(4, 0))
    proto = ModelProto(data, ()).with_pieces([*first, *more])
    return SentencePieceTokenizer(SentencePieceFiles(proto.data))


def _cuts(tokenizer: Any, text: str) -> set[int]:
    """Returns after how many bytes of the normalized text it is cut."""
    return _ends(tokenizer, tokenizer.encode(text))


def _ends(tokenizer: Any, ids: list[int]) -> set[int]:
    return set(accumulate(len(tokenizer.token_bytes(id)) for id in ids))
