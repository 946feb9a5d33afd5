"""Text becomes ids: the user's text never a special one, whatever family the tokenizer is of."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from graftkit.errors import RequestError
from graftkit_tokenizers.huggingface import HuggingFaceTokenizer
from hypothesis import given, settings
from hypothesis import strategies as st

Make = Callable[..., HuggingFaceTokenizer]
SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<unk>", "<s>", "</s>", "[UNK]", "[SEP]"]
_TEXTS = st.text(max_size=12) | st.lists(st.sampled_from([*SPECIALS, "he", " ", "a", "<", "s>", "éé", "🎉"])).map(
    "".join
)


def test_every_special_token_is_read_where_all_are_wanted(tokenizer: HuggingFaceTokenizer) -> None:
    for text, id in tokenizer.special_tokens.items():
        assert id in tokenizer.encode(f"a{text}b" if tokenizer.special_tokens.get("[SEP]") is None else text, "all")


@pytest.mark.parametrize("family", ["byte_level", "sentencepiece", "unigram", "word_level"])
def test_a_text_that_spells_a_special_token_never_becomes_it(make: Make, family: str) -> None:
    tokenizer = make(family)
    unknown = tokenizer.special_tokens.get("<unk>", tokenizer.special_tokens.get("[UNK]"))
    forbidden = set(tokenizer.special_tokens.values()) - {unknown}
    for text in tokenizer.special_tokens:
        for around in (text, f"a {text} b", f"a{text}b", text * 3):
            assert not forbidden & set(tokenizer.encode(around))


@pytest.mark.parametrize("old", [False, True])
def test_a_special_token_that_is_a_word_too_is_never_made_by_merging(make: Make, old: bool) -> None:
    """Merges lead to its piece, and on from it."""

    def change(spec: dict[str, Any]) -> None:
        vocab, merges = spec["model"]["vocab"], spec["model"]["merges"]
        spec["added_tokens"] = [{**spec["added_tokens"][0], "id": vocab["hey"], "content": "hey"}]
        vocab["heyhey"] = len(vocab)
        merges.append(["hey", "hey"])
        spec["model"]["merges"] = [" ".join(pair) for pair in merges] if old else merges

    tokenizer = make("byte_level", change)
    hey = tokenizer.special_tokens["hey"]
    assert tokenizer.encode("a hey", "all")[-1] == hey
    for text in ("hey", "a hey heyhey", "heya"):
        ids = tokenizer.encode(text)
        assert hey not in ids and tokenizer.encode_batch([text]) == [ids]
        assert tokenizer.decode(ids) == text


def test_a_word_that_is_also_a_control_token_is_spelt_in_other_pieces(make: Make) -> None:
    def change(spec: dict[str, Any]) -> None:
        vocab = spec["model"]["vocab"]
        token = {**spec["added_tokens"][0], "id": vocab["hey"], "content": "hey", "special": False}
        spec["added_tokens"] = [token]
        vocab["heyhey"] = len(vocab)
        spec["model"]["merges"].append(["hey", "hey"])

    tokenizer = make("byte_level", change)
    hey = tokenizer.added_tokens["hey"]
    other = tokenizer.with_control_tokens(["hey", "no token"])
    assert tokenizer.encode("a hey") == other.encode("a hey", "all") and tokenizer.encode("a hey")[-1] == hey
    for text in ("hey", "a hey heyhey", "heya"):
        ids = other.encode(text)
        assert hey not in ids and other.encode_batch([text]) == [ids] and other.decode(ids) == text
    assert (
        other.special_tokens == {**tokenizer.special_tokens, "hey": hey} and other.fingerprint != tokenizer.fingerprint
    )


@settings(max_examples=100)
@given(_TEXTS)
def test_no_text_at_all_becomes_a_special_token(byte_level: HuggingFaceTokenizer, text: str) -> None:
    assert not set(byte_level.encode(text)) & set(byte_level.special_tokens.values())


def test_hiding_special_tokens_leaves_every_other_id_as_it_is(tokenizer: HuggingFaceTokenizer) -> None:
    for text in ("hey hello ab", "a<tool_call>b", "éé", "a [INST] b", "🎉", "b s"):
        assert tokenizer.encode(text) == tokenizer.encode(text, "all")


def test_an_added_token_that_is_not_special_keeps_its_own_id(byte_level: HuggingFaceTokenizer) -> None:
    """Taken out instead of hidden, the special tokens before it would leave it theirs."""
    assert byte_level.encode("<tool_call>") == byte_level.encode("<tool_call>", "all") == [263]


def test_some_special_tokens_may_be_wanted_and_others_not(byte_level: HuggingFaceTokenizer) -> None:
    end, start = byte_level.special_tokens["<|im_end|>"], byte_level.special_tokens["<|im_start|>"]
    found = byte_level.encode("<|im_start|>a<|im_end|>", frozenset({"<|im_end|>"}))
    assert end in found and start not in found
    assert byte_level.encode("a", frozenset()) == byte_level.encode("a")


def test_an_unknown_special_token_is_a_wrong_request(byte_level: HuggingFaceTokenizer) -> None:
    with pytest.raises(RequestError, match="no special token of this tokenizer: <s>, <tool_call>"):
        byte_level.encode("a", frozenset({"<tool_call>", "<s>"}))


def test_truncation_and_padding_left_in_the_file_change_no_row(make: Make) -> None:
    def leave_behind(spec: dict[str, object]) -> None:
        spec["truncation"] = {"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0}
        spec["padding"] = {
            "strategy": {"Fixed": 8},
            "direction": "Right",
            "pad_to_multiple_of": None,
            "pad_id": 0,
            "pad_type_id": 0,
            "pad_token": "!",
        }

    plain, marked = make(), make("byte_level", leave_behind)
    for text in ("a", "a longer text"):
        assert marked.encode(text) == plain.encode(text)
        assert marked.encode(text, "all") == plain.encode(text, "all")
        assert marked.encode_batch([text, "b"]) == plain.encode_batch([text, "b"])
    assert marked.fingerprint == plain.fingerprint


def test_a_post_processor_adds_nothing_on_its_own(make: Make) -> None:
    def add_bos(spec: dict[str, object]) -> None:
        spec["post_processor"] = {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<|im_start|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<|im_start|>": {"id": "<|im_start|>", "ids": [261], "tokens": ["<|im_start|>"]}},
        }

    tokenizer = make("byte_level", add_bos, bos_token="<|im_start|>")
    assert tokenizer.encode("a") == tokenizer.encode("a", "all") == make().encode("a")
    assert tokenizer.adds_bos
    assert not make("byte_level", add_bos, bos_token="<|im_start|>", add_bos_token=False).adds_bos
    assert not make("byte_level", add_bos).adds_bos


@settings(max_examples=50)
@given(st.lists(_TEXTS, max_size=6), st.sampled_from(["none", "all"]))
def test_a_batch_is_what_its_texts_are_one_by_one(
    tokenizer: HuggingFaceTokenizer, texts: list[str], specials: str
) -> None:
    alone = [tokenizer.encode(text, specials) for text in texts]  # type: ignore[arg-type]
    assert tokenizer.encode_batch(texts, specials) == alone  # type: ignore[arg-type]


@settings(max_examples=100)
@given(_TEXTS)
def test_offsets_cover_the_text_in_characters(byte_level: HuggingFaceTokenizer, text: str) -> None:
    encoding = byte_level.encode_offsets(text)
    assert encoding.ids == byte_level.encode(text)
    assert {place for left, right in encoding.offsets for place in range(left, right)} == set(range(len(text)))
    assert encoding.offsets == sorted(encoding.offsets)


def test_threads_that_want_different_specials_do_not_disturb_each_other(byte_level: HuggingFaceTokenizer) -> None:
    text = "hey <|im_end|> éé 🎉" * 20
    wanted = ["none", "all", frozenset({"<|im_end|>"})] * 60
    expected = {str(specials): byte_level.encode(text, specials) for specials in wanted[:3]}  # type: ignore[arg-type]
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda specials: byte_level.encode(text, specials), wanted))
    assert found == [expected[str(specials)] for specials in wanted]


def test_a_fresh_tokenizer_may_be_asked_by_many_threads_at_once(make: Make) -> None:
    tokenizer = make()
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda _: tokenizer.encode("hey <|im_end|>"), range(30)))
    assert all(ids == make().encode("hey <|im_end|>") for ids in found)
