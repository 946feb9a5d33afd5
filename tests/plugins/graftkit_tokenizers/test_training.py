"""Tokenizers are learnt as the `tokenizers` library learns them, but for what it leaves to chance."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from graftkit.errors import DataError, ModelError, RequestError
from graftkit.interfaces.tokenizer import Tokenizer
from graftkit.interfaces.vocabulary import ExtensionSpec, TrainingSpec
from graftkit.interfaces.vocabulary_limits import LONGEST_TOKEN
from graftkit.tokenization.splitting import PATTERNS
from graftkit_tokenizers.config import (
    BpeConfig,
    ByteLevelConfig,
    CharacterConfig,
    WordConfig,
    WordPieceConfig,
)
from graftkit_tokenizers.tokenizer_json.splitting import named
from graftkit_tokenizers.tokenizer_json.wordpiece_parts import wordpiece_json
from graftkit_tokenizers.train.bpe import BpeBackend
from graftkit_tokenizers.train.byte_level import ByteLevelBackend
from graftkit_tokenizers.train.character import CharacterBackend
from graftkit_tokenizers.train.characters import CharacterCounts
from graftkit_tokenizers.train.pruning import pruned
from graftkit_tokenizers.train.word import WordBackend
from graftkit_tokenizers.train.wordpiece import WordPieceBackend, _inside_words, _within_planes
from hypothesis import given
from hypothesis import strategies as st
from tokenizer_texts import comparison_texts
from tokenizers import Regex, models, normalizers, pre_tokenizers, trainers
from tokenizers import Tokenizer as Library

SPEC = TrainingSpec(1500, ("<bos>", "<eos>"), {"bos": "<bos>", "eos": "<eos>"})


def texts() -> list[str]:
    return [text for text in comparison_texts() if len(text) < 4096]


def model_of(tokenizer: Any) -> dict[str, Any]:
    model: dict[str, Any] = json.loads(tokenizer._files["tokenizer.json"])["model"]
    return model


def learnt(library: Library, trainer: Any) -> dict[str, Any]:
    library.train_from_iterator(texts(), trainer)
    model: dict[str, Any] = json.loads(library.to_str())["model"]
    return model


@pytest.mark.parametrize("pattern", PATTERNS)
def test_bytes_are_merged_as_the_library_does(pattern: str) -> None:
    library = Library(models.BPE())
    split = pre_tokenizers.Split(Regex(PATTERNS[pattern]), "isolated")
    library.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])
    trainer = trainers.BpeTrainer(
        vocab_size=SPEC.vocab_size,
        min_frequency=2,
        special_tokens=list(SPEC.special_tokens),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    ours = ByteLevelBackend(ByteLevelConfig(pattern=pattern)).train(texts(), SPEC)
    assert model_of(ours) == learnt(library, trainer)


def test_words_are_those_that_the_library_finds() -> None:
    library = Library(models.WordLevel(unk_token="[UNK]"))
    library.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.WordLevelTrainer(
        vocab_size=500, min_frequency=2, special_tokens=["<bos>", "<eos>", "[UNK]"], show_progress=False
    )
    ours = WordBackend().train(texts(), TrainingSpec(500, SPEC.special_tokens))
    assert model_of(ours) == learnt(library, trainer)
    assert ours.role_token("unk") == 2


def test_wordpiece_learns_what_the_library_does_when_it_is_told_the_numbers_of_characters() -> None:
    code = [text for text in texts() if text.isascii()]
    characters = sorted(set("".join(code).lower()) - set(" \n\t\r"))
    library = Library(models.WordPiece(unk_token="[UNK]"))
    library.normalizer, library.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    inside = [f"##{character}" for character in characters]
    trainer = trainers.WordPieceTrainer(
        vocab_size=900, min_frequency=2, special_tokens=["[UNK]", *inside], show_progress=False
    )
    library.train_from_iterator(code, trainer)
    ours = WordPieceBackend().train(code, TrainingSpec(800))
    found = [ours._full.id_to_token(id) for id in range(ours.vocab_size)]
    expected = [library.id_to_token(id) for id in range(library.get_vocab_size())]
    longer = [piece for piece in expected if len(piece.removeprefix("##")) > 1 and piece != "[UNK]"]
    assert found[0] == "[UNK]" and len(found) == 800
    assert [piece for piece in found[1:] if len(piece.removeprefix("##")) > 1] == longer[: 800 - found.index(longer[0])]


@pytest.mark.parametrize("lowercase", [True, False])
def test_wordpiece_gives_the_library_every_character_that_can_stand_inside_a_word(lowercase: bool) -> None:
    text = " ".join("a" + chr(code) for code in range(sys.maxunicode + 1) if not 0xD800 <= code < 0xE000)
    library = Library.from_str(json.dumps(wordpiece_json({}, "[UNK]", lowercase=lowercase)))
    cleaned = library.normalizer.normalize_str("".join(_within_planes([text])))
    found = {character for word, _ in library.pre_tokenizer.pre_tokenize_str(cleaned) for character in word[1:]}
    given = {piece.removeprefix("##") for piece in _inside_words(WordPieceConfig(lowercase=lowercase))}
    assert len(found) > 30_000 and found <= given


def test_bpe_keeps_everything_but_its_own_mark_for_spaces() -> None:
    ours = BpeBackend().train(texts(), TrainingSpec(8000))
    for text in comparison_texts():
        found, expected = ours.decode(ours.encode(text)), text.replace("▁", " ")
        assert found == expected, [(a, b) for a, b in zip(found, expected, strict=False) if a != b][:5]
        assert ours.decode_bytes(ours.encode(text)) == text.replace("▁", " ").encode()


def test_rare_characters_become_bytes() -> None:
    corpus = ["the cat sat on the mat. " * 40, "日", "ж"]
    spec = TrainingSpec(300, ("<s>",))
    few, all = (BpeBackend(BpeConfig(coverage=coverage)).train(corpus, spec) for coverage in (0.99, 1.0))
    assert [few.token_bytes(id) for id in few.encode("日")] == [b"\xe6", b"\x97", b"\xa5"]
    assert [all.token_bytes(id) for id in all.encode("日")] == ["日".encode()]
    with pytest.raises(RequestError, match="too small") as refused:
        BpeBackend(BpeConfig(coverage=1.0)).train(corpus, TrainingSpec(260))
    assert "lower `coverage`" in refused.value.hint
    with pytest.raises(RequestError, match="a vocabulary of 300,001 is too large"):
        BpeBackend(BpeConfig()).train(corpus, TrainingSpec(300_001))


def test_characters_get_tokens_in_the_order_of_their_frequency() -> None:
    ours = CharacterBackend(CharacterConfig(min_frequency=2)).train(["aaabbbccd"], TrainingSpec(259, ("<s>",)))
    assert [ours.token_bytes(id) for id in range(257, ours.vocab_size)] == [b"a", b"b"]
    ours = CharacterBackend(CharacterConfig(min_frequency=2)).train(["aaabbbccd"], TrainingSpec(999, ("<s>",)))
    assert [ours.token_bytes(id) for id in range(257, ours.vocab_size)] == [b"a", b"b", b"c"]


@pytest.mark.parametrize("backend", [ByteLevelBackend, BpeBackend, WordPieceBackend, WordBackend, CharacterBackend])
def test_text_that_spells_a_special_token_or_a_byte_is_never_learnt_as_one(backend: Any) -> None:
    corpus = ["system <0x41> system at <0x41>"] * 50
    ours: Tokenizer = backend().train(corpus, TrainingSpec(700, ("system", "at")))
    ids = ours.encode("system <0x41> at")
    assert not {0, 1} & set(ids) - {ours.role_token("unk")}
    if ours.capabilities.lossless_bytes or backend is BpeBackend:
        assert ours.decode(ids) == "system <0x41> at"
    assert ours.encode("system at", "all")[0] == 0


@pytest.mark.parametrize("backend", [ByteLevelBackend, BpeBackend, WordPieceBackend, WordBackend])
def test_no_token_is_learnt_that_is_too_long_to_be_read_again(backend: Any) -> None:
    corpus = ["a" * (2 * LONGEST_TOKEN + 10), "bc bc"] * 2
    assert max(map(len, model_of(backend().train(corpus, TrainingSpec(400)))["vocab"])) <= LONGEST_TOKEN


def test_no_base_is_extended_by_a_token_too_long_to_be_read() -> None:
    corpus = ["a" * (2 * LONGEST_TOKEN + 10), "bc bc"] * 2
    base = ByteLevelBackend().train(corpus, TrainingSpec(258))
    extended = ByteLevelBackend().extend(base, corpus, ExtensionSpec(20)).tokenizer
    assert LONGEST_TOKEN // 2 < max(map(len, model_of(extended)["vocab"])) <= LONGEST_TOKEN


def test_a_special_token_is_not_named_as_a_byte_is() -> None:
    with pytest.raises(RequestError, match="'x' can't be special"):
        ByteLevelBackend().train(["some text"], TrainingSpec(300, ("x", "yy")))
    for backend in (BpeBackend(), CharacterBackend()):
        with pytest.raises(RequestError, match="'<0x41>' can't be special"):
            backend.train(["some text"], TrainingSpec(300, ("<0x41>",)))
    ours = CharacterBackend().train(["some text"], TrainingSpec(300, ("x",)))
    assert ours.decode(ours.encode("some text")) == "some text" and 0 not in ours.encode("x")


def test_wordpiece_drops_capitals_and_accents_unless_told_not_to() -> None:
    corpus = ["Über CAFÉ über café"] * 9
    assert WordPieceBackend().train(corpus, TrainingSpec(99)).normalize("Über") == "uber"
    cased = WordPieceBackend(WordPieceConfig(lowercase=False)).train(corpus, TrainingSpec(99))
    assert cased.normalize("Über") == "Über" and cased.decode(cased.encode("Über CAFÉ")) == "Über CAFÉ"


def test_words_may_be_whatever_stands_between_spaces() -> None:
    ours = WordBackend(WordConfig(split="spaces", lowercase=True)).train(["It's It's so"] * 2, TrainingSpec(9))
    assert ours.decode(ours.encode("it's SO")) == "it's so"


def test_an_error_on_the_way_to_the_texts_comes_through() -> None:
    def broken() -> Iterator[str]:
        yield "some text"
        raise DataError("line 3 is not UTF-8", where="corpus.txt")

    for backend in (ByteLevelBackend(), BpeBackend(), WordPieceBackend(), WordBackend(), CharacterBackend()):
        with pytest.raises(DataError, match="line 3"):
            backend.train(broken(), SPEC)


@pytest.mark.parametrize("pattern", ["qwen3", r"\p{N}{1,3}+|\S+", "("])
def test_a_pattern_that_is_none_is_refused(pattern: str) -> None:
    with pytest.raises(RequestError):
        ByteLevelBackend(ByteLevelConfig(pattern=pattern)).train(["some text"], SPEC)


def test_a_pattern_that_takes_for_ever_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = ByteLevelBackend(ByteLevelConfig(pattern=r"(?:\w|\w\w|\w+)*[!]{2}|\s|\w+"))
    with pytest.raises(RequestError, match="could take forever"):
        backend.train(["word" * 30 + "! "], SPEC)
    monkeypatch.setattr("graftkit_tokenizers.train.byte_level.named", str)  # as if it had been let pass
    with pytest.raises(ModelError, match="can't learn from these texts: .*retry-limit"):
        backend.train(["word" * 30 + "! "], SPEC)


@pytest.mark.parametrize("backend", [ByteLevelBackend, BpeBackend, WordPieceBackend, WordBackend, CharacterBackend])
def test_a_special_token_that_is_no_text_is_refused(backend: Any) -> None:
    with pytest.raises(RequestError, match="must be Unicode text"):
        backend().train(["some text"], TrainingSpec(700, ("\udcff",)))


def test_a_pattern_may_name_classes_repeatedly() -> None:
    assert named(r"\p{L}+|\p{N}++") == r"\p{L}+|\p{N}++"


@given(st.lists(st.text(max_size=9), max_size=9))
def test_characters_are_counted_whatever_they_are(found: list[str]) -> None:
    counts = CharacterCounts()
    assert list(counts.reading(found)) == found
    expected = Counter("".join(found))
    assert dict(counts.most_common()) == expected
    assert counts.most_common() == sorted(expected.items(), key=lambda item: (-item[1], item[0]))


@given(st.text("abcde", min_size=1), st.floats(0.01, 1), st.integers(0, 9))
def test_what_is_rare_is_no_more_than_coverage_leaves(text: str, coverage: float, most: int) -> None:
    counts = CharacterCounts()
    list(counts.reading([text]))
    rare = counts.rare(coverage, most)
    kept = [character for character in text if character not in rare]
    assert len(rare) <= most and len(kept) >= coverage * len(text) - 1e-9


def test_what_is_built_on_a_pruned_merge_goes_too() -> None:
    vocab = {piece: id for id, piece in enumerate(["<s>", "a", "b", "c", "ab", "abc", "bc"])}
    merges = [["a", "b"], ["ab", "c"], ["b", "c"]]
    assert pruned(vocab, merges, reserved=["ab"], size=9) == (
        {"<s>": 0, "a": 1, "b": 2, "c": 3, "ab": 4, "bc": 5},
        [["b", "c"]],
    )
