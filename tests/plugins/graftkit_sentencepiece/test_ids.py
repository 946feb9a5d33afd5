"""Texts become the ids that the sentencepiece library gives them, and come back as it decodes them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import pairwise

import pytest
from graftkit.testing.contracts.texts import every_character
from hypothesis import given, settings
from hypothesis import strategies as st
from sentencepiece_models import AI21, BOTCHAN, MISTRAL, MODELS, corpus, loaded, reference

TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=60)


@pytest.mark.parametrize("name", MODELS)
def test_every_text_becomes_the_librarys_ids(name: str) -> None:
    tokenizer, library = loaded(name), reference(name)
    texts = [*corpus(), *every_character()]
    expected = library.encode(texts)
    assert tokenizer.encode_batch(texts) == expected
    assert [tokenizer.encode(text) for text in texts[::5]] == expected[::5]


@pytest.mark.parametrize("name", MODELS)
@settings(max_examples=150)
@given(text=TEXT)
def test_any_text_becomes_the_librarys_ids_and_comes_back_as_it_decodes_them(name: str, text: str) -> None:
    tokenizer, library = loaded(name), reference(name)
    ids = library.encode(text)
    assert tokenizer.encode(text) == ids
    assert tokenizer.decode(ids) == library.decode(ids)
    assert tokenizer.normalize(text) == library.normalize(text)


@pytest.mark.parametrize("name", MODELS)
def test_any_ids_decode_as_the_library_decodes_them(name: str) -> None:
    tokenizer, library = loaded(name), reference(name)
    for ids in _random_ids(tokenizer, 3000):
        assert tokenizer.decode(ids) == library.decode(ids)


@pytest.mark.parametrize("name", MODELS)
def test_control_symbols_that_are_skipped_join_what_is_around_them(name: str) -> None:
    tokenizer, library = loaded(name), reference(name)
    bos, eos = tokenizer.role_token("bos"), tokenizer.role_token("eos")
    for ids in _random_ids(tokenizer, 300):
        ids = [id for id in ids if id != tokenizer.role_token("unk") and not _is_byte(tokenizer, id)]
        marked = [bos, *ids[:3], eos, bos, *ids[3:]]
        assert tokenizer.decode(marked, skip_specials=True) == library.decode(marked)


def test_each_stretch_between_special_tokens_is_a_text_of_its_own() -> None:
    tokenizer, library = loaded(MISTRAL), reference(MISTRAL)
    ids = tokenizer.encode("<s>[INST] hi [/INST] there</s>", "all")
    assert ids == [1, *library.encode("[INST] hi [/INST] there"), 2]
    assert tokenizer.decode(ids) == "<s>[INST] hi [/INST] there</s>"


def test_where_26000_tokens_are_special_the_longest_is_found() -> None:
    tokenizer = loaded(AI21)
    specials = tokenizer.special_tokens
    assert len(specials) > 26_000
    for text in list(specials)[:: len(specials) // 50]:
        ids = tokenizer.encode(f"a{text}b", "all")
        assert specials[text] in ids
        assert tokenizer.decode(ids) == f"a{text}b"


def test_offsets_are_the_librarys_and_the_bytes_of_a_character_share_its_place() -> None:
    tokenizer, library = loaded(MISTRAL), reference(MISTRAL)
    for text in corpus():
        found = tokenizer.encode_offsets(text)
        theirs = library.encode(text, return_type="offset_mapping")
        assert found.ids == theirs["ids"]
        assert [start for start, _ in found.offsets] == [start for start, _ in theirs["offsets"]]
    ids = tokenizer.encode("a\U00012000b")
    assert tokenizer.encode_offsets("a\U00012000b").offsets == [(0, 1), *[(1, 2)] * 4, (2, 3)]
    assert [tokenizer.token_bytes(id) for id in ids[1:5]] == [bytes([byte]) for byte in "\U00012000".encode()]


def test_offsets_point_into_the_text_as_it_was_before_normalization() -> None:
    tokenizer, text = loaded(AI21), "xy ﬁ①z"
    assert tokenizer.normalize(text) != text
    spans = tokenizer.encode_offsets(text).offsets
    assert spans[0][0] == 0 and spans[-1][1] == len(text)
    assert all(left[1] == right[0] for left, right in pairwise(spans))


def test_what_a_model_without_bytes_does_not_know_is_shown_as_the_library_shows_it() -> None:
    tokenizer, library = loaded(BOTCHAN), reference(BOTCHAN)
    ids = tokenizer.encode("I saw 日本 here")
    assert tokenizer.role_token("unk") in ids
    assert tokenizer.decode(ids) == library.decode(ids) == "I saw ⁇ here".replace("⁇", " ⁇ ")


def _is_byte(tokenizer: object, id: int) -> bool:
    return tokenizer.proto.pieces[id].text.startswith("<0x")  # type: ignore[attr-defined]


def _random_ids(tokenizer: object, count: int, seed: int = 0) -> list[list[int]]:
    """Returns lists of ids in which bytes, pieces that start with a space, and the unknown piece are frequent."""
    draw = random.Random(seed)
    pieces = tokenizer.proto.pieces  # type: ignore[attr-defined]
    special = set(tokenizer.special_tokens.values()) - {tokenizer.role_token("unk")}  # type: ignore[attr-defined]
    plain = [id for id in range(len(pieces)) if id not in special]
    bytes_ = [id for id in plain if _is_byte(tokenizer, id)] or plain
    spaced = [id for id in plain if pieces[id].text.startswith("▁")]
    pools: Sequence[Sequence[int]] = (plain, bytes_, spaced, plain[:1])
    return [[draw.choice(draw.choice(pools)) for _ in range(draw.randrange(10))] for _ in range(count)]
