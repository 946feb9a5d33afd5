"""Tokens added to a tokenizer.json of any family: old ids stay, texts without new tokens are cut as before."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest
from graftkit.errors import DataError, ModelError, RequestError
from graftkit.interfaces.vocabulary import ExtensionPlan, ExtensionSpec
from graftkit.tokenization.byte_alphabet import byte_alphabet
from graftkit_tokenizers.huggingface import HuggingFaceBackend, HuggingFaceTokenizer
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerFast

Spec = dict[str, Any]
Make = Callable[..., HuggingFaceTokenizer]

LEARN = ["habe hab aha sah babaa", "sehe hey he, hehe!", "bald lob al<tool_call>ha  haha", "éé ßß 日本 日本 x\x04y"] * 3
TEXTS = st.text("abehlosy ,!é日\x04\n<>", max_size=12)


def extended(base: HuggingFaceTokenizer, tokens: int = 12, texts: list[str] = LEARN, **spec: Any) -> ExtensionPlan:
    return HuggingFaceBackend().extend(base, texts, ExtensionSpec(tokens, **spec))


def model_of(plan: ExtensionPlan) -> Spec:
    assert isinstance(plan.tokenizer, HuggingFaceTokenizer)
    model: Spec = plan.tokenizer.spec["model"]
    return model


def without_bytes(*bytes_: int) -> Callable[[Spec], None]:
    """Takes bytes out of the byte-level vocabulary, and sets them apart as a GGUF's tokenizer does."""

    def change(spec: Spec) -> None:
        names = {byte: character for character, byte in byte_alphabet().items()}
        missing = [names[byte] for byte in bytes_]
        vocab = [piece for piece in spec["model"]["vocab"] if piece not in missing]
        spec["model"]["vocab"] = {piece: id for id, piece in enumerate(vocab)}
        for place, token in enumerate(spec["added_tokens"]):
            token["id"] = len(vocab) + place
        pattern = "".join(f"\\x{{{ord(character):x}}}" for character in missing)
        apart = {"type": "Split", "pattern": {"Regex": f"[{pattern}]"}, "behavior": "Isolated", "invert": False}
        spec["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [spec["pre_tokenizer"], apart]}

    return change


def ignore_merges(spec: Spec) -> None:
    spec["model"]["ignore_merges"] = True
    spec["model"]["vocab"]["hab"] = len(spec["model"]["vocab"])
    for place, token in enumerate(spec["added_tokens"]):
        token["id"] = len(spec["model"]["vocab"]) + place


BASES: dict[str, tuple[str, Callable[[Spec], None]]] = {
    "byte_level": ("byte_level", lambda spec: None),
    "missing_bytes": ("byte_level", without_bytes(4, 0xC3, 0xFF)),
    "whole_words": ("byte_level", ignore_merges),
    "sentencepiece": ("sentencepiece", lambda spec: None),
    "wordpiece": ("wordpiece", lambda spec: None),
    "unigram": ("unigram", lambda spec: None),
    "word_level": ("word_level", lambda spec: None),
}


@pytest.fixture(scope="session")
def plans(make: Make) -> dict[str, tuple[HuggingFaceTokenizer, ExtensionPlan]]:
    """A tokenizer of every kind, and what became of it."""
    bases = {name: make(family, change) for name, (family, change) in BASES.items()}
    return {name: (base, extended(base)) for name, base in bases.items()}


Plans = dict[str, tuple[HuggingFaceTokenizer, ExtensionPlan]]


@pytest.mark.parametrize("name", BASES)
def test_old_ids_stay_and_new_ones_follow(plans: Plans, name: str) -> None:
    base, plan = plans[name]
    assert [token.id for token in plan.tokens] == list(range(base.vocab_size, plan.tokenizer.vocab_size))
    assert plan.tokenizer.special_tokens == base.special_tokens
    for id in range(base.vocab_size):
        assert plan.tokenizer.token_bytes(id) == base.token_bytes(id)
        assert plan.tokenizer.decode([id]) == base.decode([id])


@pytest.mark.parametrize("name", BASES)
@settings(max_examples=150)
@given(text=TEXTS)
def test_a_text_without_new_tokens_is_cut_as_before(plans: Plans, name: str, text: str) -> None:
    base, plan = plans[name]
    for specials in ("none", "all"):
        ids = plan.tokenizer.encode(text, specials)  # type: ignore[arg-type]
        if max(ids, default=0) < base.vocab_size:
            assert ids == base.encode(text, specials)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["byte_level", "missing_bytes", "sentencepiece"])
@settings(max_examples=200)
@given(text=TEXTS)
def test_bpe_only_joins_what_the_base_left_apart(plans: Plans, name: str, text: str) -> None:
    base, plan = plans[name]
    parts = {token.id: token.parts for token in plan.tokens}
    assert plan.coarsens and plan.tokenizer.capabilities.coarsening
    assert [part for id in plan.tokenizer.encode(text) for part in parts.get(id, (id,))] == base.encode(text)


@settings(max_examples=100)
@given(text=TEXTS)
def test_where_words_are_taken_whole_no_text_is_cut_elsewhere(plans: Plans, text: str) -> None:
    """There a new token may take a word that the base cut in another way than the token's parts say."""
    base, plan = plans["whole_words"]
    new, old = ([len(t.token_bytes(id)) for id in t.encode(text)] for t in (plan.tokenizer, base))
    assert set(accumulate(new)) <= set(accumulate(old))


@pytest.mark.parametrize("name", BASES)
def test_uses_and_totals_are_what_encode_gives(plans: Plans, name: str) -> None:
    base, plan = plans[name]
    uses = Counter(id for ids in plan.tokenizer.encode_batch(LEARN) for id in ids)
    assert {token.id: token.uses for token in plan.tokens} == {token.id: uses[token.id] for token in plan.tokens}
    assert plan.tokens_after == sum(uses.values())
    assert plan.base_tokens == sum(map(len, base.encode_batch(LEARN)))
    assert plan.scaffolding == tuple(token for token in plan.tokens if not uses[token.id])


@pytest.mark.parametrize("name", ["byte_level", "whole_words", "sentencepiece", "wordpiece"])
def test_parts_are_the_base_s_ids_for_the_same_bytes(plans: Plans, name: str) -> None:
    base, plan = plans[name]
    for token in plan.tokens:
        assert len(token.parts) > 1
        assert base.decode_bytes(token.parts).replace(b"##", b"") == token.data.replace(b"##", b"")


@pytest.mark.parametrize("name", BASES)
def test_what_was_extended_is_saved_loaded_and_extended_again(plans: Plans, name: str, tmp_path: Path) -> None:
    _, plan = plans[name]
    plan.tokenizer.save(tmp_path)
    loaded = HuggingFaceBackend().load(tmp_path)
    assert loaded.fingerprint == plan.tokenizer.fingerprint
    more = extended(loaded, 2, ["hob hob baldo baldo lobsehe lobsehe"])
    assert more.tokens[0].id == plan.tokenizer.vocab_size
    assert all(more.tokenizer.token_bytes(token.id) == token.data for token in plan.tokens)


@pytest.mark.parametrize("name", ["byte_level", "missing_bytes", "wordpiece", "unigram"])
def test_transformers_loads_it_with_the_same_ids(plans: Plans, name: str, tmp_path: Path) -> None:
    _, plan = plans[name]
    plan.tokenizer.save(tmp_path)
    theirs = PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json"))
    assert len(theirs) == plan.tokenizer.vocab_size
    for text in LEARN:
        assert theirs(text, add_special_tokens=False)["input_ids"] == plan.tokenizer.encode(text, "all")


@pytest.mark.parametrize("listed", [True, False])
def test_transformers_finds_added_words_whether_the_configuration_lists_tokens(
    make: Make, tmp_path: Path, listed: bool
) -> None:
    tokens = {
        str(token["id"]): {key: value for key, value in token.items() if key != "id"}
        for token in make("byte_level").spec["added_tokens"]
    }
    config = {"added_tokens_decoder": tokens} if listed else {}
    base = make("byte_level", tokenizer_class="Qwen2Tokenizer", **config)
    plan = extended(base, 4, words=("zebra", " zebra"))
    plan.tokenizer.save(tmp_path)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    for text in ("a zebra", "zebrazebra <tool_call>", "hey hey"):
        assert theirs(text, add_special_tokens=False)["input_ids"] == plan.tokenizer.encode(text, "all")
    kept = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert len(kept.get("added_tokens_decoder", {})) == (7 if listed else 0)


def test_missing_bytes_come_first_and_no_text_is_lost_any_more(plans: Plans) -> None:
    base, plan = plans["missing_bytes"]
    assert [(token.data, token.parts) for token in plan.tokens[:3]] == [(b"\x04", ()), (b"\xc3", ()), (b"\xff", ())]
    assert not base.capabilities.lossless_unicode and plan.tokenizer.capabilities.lossless_unicode
    assert (
        base.decode(base.encode("a\x04é")) == "a\ufffd"
        and plan.tokenizer.decode(plan.tokenizer.encode("a\x04é")) == "a\x04é"
    )
    assert len(plan.tokenizer.spec["pre_tokenizer"]["pretokenizers"]) == 1
    assert all(len(token.data) > 1 for token in extended(base, missing_bytes=False).tokens)


def test_a_base_that_falls_back_on_bytes_gets_those_that_it_lacks(make: Make) -> None:
    def lose(spec: Spec) -> None:
        pieces = [piece for piece in spec["model"]["vocab"] if piece not in ("<0xE6>", "<0x97>")]
        spec["model"]["vocab"] = {piece: id for id, piece in enumerate(pieces)}
        spec["added_tokens"][-1]["id"] = len(pieces)

    base = make("sentencepiece", lose)
    plan = extended(base, 0)
    assert [token.data for token in plan.tokens] == [b"\x97", b"\xe6"]
    assert base.encode("日")[-1] == base.special_tokens["<unk>"]
    assert plan.tokenizer.decode(plan.tokenizer.encode("日")) == "日"
    assert not plan.coarsens


def test_bytes_and_the_unknown_are_never_joined(plans: Plans) -> None:
    """The library could not write <0xE6><0x97> as text again, nor <unk>a."""
    for name in ("sentencepiece", "unigram", "wordpiece"):
        model = model_of(plans[name][1])
        vocab = model["vocab"] if isinstance(model["vocab"], dict) else dict(model["vocab"])
        odd = [piece for piece in vocab if ("<0x" in piece and len(piece) > 6) or "unk" in piece.lower()[1:-1]]
        assert odd in ([], ["<unk>"], ["[UNK]"])


def test_no_token_is_learnt_that_spells_a_special_one(make: Make) -> None:
    plan = extended(make("unigram"), 30, ["</s> a</s>a </s>"] * 9)
    assert "</s>" in plan.tokenizer.decode(plan.tokenizer.encode("</s>"))
    assert not set(plan.tokenizer.encode("a </s>")) & set(plan.tokenizer.special_tokens.values())


def test_new_merges_cross_words_only_where_the_base_s_own_pieces_do(make: Make) -> None:
    """Even where the tokenizer has no pre-tokenizer."""

    def cross(spec: Spec) -> None:
        spec["model"]["vocab"]["e▁"] = len(spec["model"]["vocab"])
        spec["added_tokens"][-1]["id"] += 1

    texts = ["ha sa  ha sa"] * 9
    within = [token.data for token in extended(make("sentencepiece"), 99, texts).tokens]
    across = [token.data for token in extended(make("sentencepiece", cross), 99, texts).tokens]
    assert within and not any(b" " in data.lstrip() for data in within)
    assert any(b" " in data.lstrip() for data in across)


def test_words_are_added_by_how_often_they_occur_then_by_their_spelling(make: Make) -> None:
    plan = extended(make("word_level"), 3, ["z y y x x w a a a a"])
    assert [(token.data, token.uses) for token in plan.tokens] == [(b"x", 2), (b"y", 2)]
    plan = extended(make("word_level"), 3, ["z y y x x w"], min_frequency=1)
    assert [token.data for token in plan.tokens] == [b"x", b"y", b"w"]


def test_an_added_token_beyond_a_unigram_vocabulary_stays_out_of_other_words(make: Make) -> None:
    def add(spec: Spec) -> None:
        token = {**spec["added_tokens"][0], "id": len(spec["model"]["vocab"]), "content": "ab"}
        spec["added_tokens"].append({**token, "special": False, "single_word": True})

    base = make("unigram", add)
    plan = extended(base, 1, ["s<s< s<s<"])
    assert plan.tokens[0].id == base.vocab_size
    for text in ("ab", "abs", "b ab b"):
        assert plan.tokenizer.encode(text) == base.encode(text)


def test_old_merges_come_first(plans: Plans) -> None:
    for name in ("byte_level", "whole_words", "sentencepiece"):
        base, plan = plans[name]
        old = base.spec["model"]["merges"]
        assert model_of(plan)["merges"][: len(old)] == old


def test_merges_written_as_one_string_are_read(make: Make) -> None:
    def join(spec: Spec) -> None:
        spec["model"]["merges"] = [" ".join(merge) for merge in spec["model"]["merges"]]

    assert extended(make("byte_level", join)).tokens == extended(make("byte_level")).tokens


def test_unigram_scores_are_the_parts_and_a_little(plans: Plans) -> None:
    base, plan = plans["unigram"]
    scores = [score for _, score in model_of(plan)["vocab"]]
    for token in plan.tokens:
        floor = sum(scores[part] for part in token.parts)
        assert floor < scores[token.id] <= floor + 0.01 * (len(token.parts) - 1) + 1e-9
    assert scores[: base.vocab_size] == [score for _, score in base.spec["model"]["vocab"]]


def test_wordpiece_gets_the_characters_that_a_new_piece_may_strand(make: Make) -> None:
    """Else `ab` leaves `##c` of `abc`, which was `a` and `##bc`, and the word is unknown."""

    def lack(spec: Spec) -> None:
        pieces = ["[UNK]", "[SEP]", "a", "b", "##b", "##bc", "##x"]
        spec["model"]["vocab"] = {piece: id for id, piece in enumerate(pieces)}

    base = make("wordpiece", lack)
    plan = extended(base, 1, ["ab ab ab"])
    assert base.encode("abc") == [2, 5]
    assert list(model_of(plan)["vocab"])[7:] == ["ab", "##c"]
    assert plan.tokenizer.encode("abc") == [7, 8]
    with pytest.raises(RequestError, match="nothing to learn"):
        extended(base, 1, ["a b"])


def test_words_are_one_token_wherever_they_stand(make: Make) -> None:
    for family in ("byte_level", "sentencepiece", "wordpiece", "unigram", "word_level"):
        base = make(family, unk_token="[UNK]" if family.startswith("word") else "<unk>")
        plan = extended(base, 0, ["a haha b", "ahaha haha"], words=("haha", "se he"))
        ids = [token.id for token in plan.tokens]
        assert ids == [base.vocab_size, base.vocab_size + 1] and not plan.coarsens
        assert [token.uses for token in plan.tokens] == [3, 0]
        assert ids[0] in plan.tokenizer.encode("haha") and ids[1] in plan.tokenizer.encode("b se he")
        assert plan.tokens[0].parts == tuple(id for id in base.encode("haha") if id != base.role_token("unk"))
        assert plan.tokens_after == sum(map(len, plan.tokenizer.encode_batch(["a haha b", "ahaha haha"])))
        assert plan.base_tokens == sum(map(len, base.encode_batch(["a haha b", "ahaha haha"])))
        assert plan.tokenizer.encode("a b") == base.encode("a b")


def test_words_come_after_what_is_learnt_and_do_not_teach(make: Make) -> None:
    base = make("byte_level")
    plan = extended(base, 5, words=("sah", "he"))
    assert [token.data for token in plan.tokens[5:]] == [b"sah"], "he is a token already"
    assert plan.tokenizer.encode("xsah")[-1] == plan.tokens[5].id
    with pytest.raises(RequestError, match="a special one"):
        extended(base, 5, words=("<|im_end|>",))


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("<|im_end|>\n", r"it holds the special token '<\|im_end\|>'"),
        ("x<|", r"it ends as the special token '<\|.*' begins"),
        ("\udcff", "it is no Unicode text"),
        ("é", "it is a piece already, which texts are not cut into"),
    ],
)
def test_a_word_that_would_hide_another_token_is_refused(make: Make, word: str, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        extended(make("byte_level"), 0, words=(word,))


def test_a_word_may_begin_as_a_special_token_does(make: Make) -> None:
    plan = extended(make("byte_level"), 0, words=("<|im_", "|>x"))
    ids = plan.tokenizer.encode("a<|im_end|>x", "all")
    assert plan.tokenizer.special_tokens["<|im_end|>"] in ids and not {*ids} & {token.id for token in plan.tokens}


def test_a_word_of_which_the_normalizer_leaves_nothing_is_refused(make: Make) -> None:
    cleaning = {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "lowercase": True}
    base = make("wordpiece", lambda spec: spec.update(normalizer={**cleaning, "strip_accents": None}))
    for word in ("\ufeff", "\n"):
        with pytest.raises(RequestError, match="normalizer leaves '.?' of it"):
            extended(base, 0, words=(word,))


def test_a_word_that_wordpiece_writes_in_lowercase_is_found_in_any_case(make: Make) -> None:
    base = make("wordpiece", lambda spec: spec.update(normalizer={"type": "Lowercase"}))
    plan = extended(base, 0, ["Haha HAHA haha"], words=("Haha",))
    assert plan.tokenizer.encode("a HAHA") == [*base.encode("a"), plan.tokens[0].id]
    assert plan.tokens[0].uses == 3


@pytest.mark.parametrize("flags", [{"lstrip": True, "rstrip": True}, {"single_word": True}, {}])
def test_words_around_added_tokens_are_counted_as_they_are_cut(make: Make, flags: dict[str, bool]) -> None:
    base = make("byte_level", lambda spec: spec["added_tokens"][3].update(flags))
    texts = ["hey <tool_call> hey", "hey<tool_call>hey", "<tool_call>", "_<tool_call>", "ab <tool_call>, éé"] * 2
    plan = extended(base, 3, texts)
    assert plan.tokens_after == sum(map(len, plan.tokenizer.encode_batch(texts)))
    assert plan.base_tokens == sum(map(len, base.encode_batch(texts)))


@pytest.mark.parametrize("flags", [{"single_word": True}, {"normalized": False}])
def test_wordpiece_with_an_added_token_that_would_be_found_elsewhere_is_refused(
    make: Make, flags: dict[str, bool]
) -> None:
    def add(spec: Spec) -> None:
        spec["normalizer"] = {"type": "Lowercase"}
        token = {**spec["added_tokens"][0], "id": len(spec["model"]["vocab"]), "content": "hob", "special": False}
        spec["added_tokens"].append({**token, "normalized": True, **flags})

    with pytest.raises(RequestError, match="'hob' would be found in other places"):
        extended(make("wordpiece", add))


@pytest.mark.parametrize(
    ("texts", "spec", "message"),
    [
        ([], {"tokens": 3}, "nothing to learn"),
        (["", "a"], {"tokens": 3}, "nothing to learn"),
        (["ab cd"], {"tokens": 3}, "nothing to learn"),
        (LEARN, {"tokens": 0}, "nothing to add"),
        (LEARN, {"tokens": 0, "words": ("he",)}, "nothing to add"),
        (LEARN, {"tokens": 0, "words": ("",)}, "is empty"),
        (LEARN, {"tokens": -1}, "fewer than no tokens"),
    ],
)
def test_a_request_that_adds_nothing_is_refused(make: Make, texts: list[str], spec: Spec, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        extended(make("byte_level"), texts=texts, **spec)


def test_texts_are_iterated_once_and_what_they_raise_goes_through(make: Make) -> None:
    def once() -> Iterator[str]:
        yield from LEARN

    def broken() -> Iterator[str]:
        yield "a"
        raise DataError("this file is not UTF-8")

    base = make("byte_level")
    assert HuggingFaceBackend().extend(base, once(), ExtensionSpec(12)).tokens == extended(base).tokens
    with pytest.raises(DataError, match="not UTF-8"):
        HuggingFaceBackend().extend(base, broken(), ExtensionSpec(12))
    with pytest.raises(DataError, match="not UTF-8"):
        HuggingFaceBackend().extend(base, broken(), ExtensionSpec(12, words=("xyz",)))


def test_more_words_than_a_tokenizer_is_read_with_are_refused(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graftkit_tokenizers.extend.extend.MOST_ADDED", 5)
    with pytest.raises(RequestError, match=r"4 words beside the \d added tokens .* are too many: it may have 5"):
        HuggingFaceBackend().extend(make("byte_level"), LEARN, ExtensionSpec(0, words=("wa", "wb", "wc", "wd")))


def test_a_tokenizer_of_another_kind_is_refused() -> None:
    with pytest.raises(RequestError, match="dict is no tokenizer"):
        HuggingFaceBackend().extend({}, LEARN, ExtensionSpec(3))  # type: ignore[arg-type]


def test_a_splitting_that_gives_up_is_a_model_error(make: Make) -> None:
    def explode(spec: Spec) -> None:
        pattern = {"Regex": r"(a+)+(a+)+(a+)+b(?=c)(?<!d)"}
        split = {"type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": False}
        spec["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [split, spec["pre_tokenizer"]]}

    with pytest.raises(ModelError, match=r"a pattern in the pre_tokenizer of tokenizer\.json could take forever"):
        extended(make("byte_level", explode), 3, ["a" * 5000])


def test_the_extended_tokenizer_is_written_as_json(plans: Plans, tmp_path: Path) -> None:
    plans["byte_level"][1].tokenizer.save(tmp_path)
    assert json.loads((tmp_path / "tokenizer.json").read_text())["model"]["type"] == "BPE"
