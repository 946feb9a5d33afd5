"""Training is the library's own trainer on the same lines, whatever order the texts come in."""

from __future__ import annotations

import io
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
import sentencepiece
from graftkit.errors import RequestError
from graftkit.interfaces.vocabulary import TrainingSpec
from graftkit_sentencepiece.backend import SentencePieceBackend
from graftkit_sentencepiece.config import SentencePieceConfig
from graftkit_sentencepiece.proto import ModelProto
from graftkit_sentencepiece.sentences import in_order, sentences
from hypothesis import given
from hypothesis import strategies as st
from sentencepiece_models import corpus

ModelType = Literal["bpe", "unigram"]
TYPES: tuple[ModelType, ...] = ("bpe", "unigram")
SPEC = TrainingSpec(
    2600, ("<unk>", "<s>", "</s>", "<|user|>"), {"unk": "<unk>", "bos": "<s>", "eos": "</s>"}, adds_bos=True
)


def _trained(model_type: ModelType, texts: Any, **fields: Any) -> Any:
    return SentencePieceBackend(SentencePieceConfig(model_type=model_type, **fields)).train(texts, SPEC)


@pytest.mark.parametrize("model_type", TYPES)
def test_the_pieces_are_those_of_the_library_called_directly(model_type: ModelType, tmp_path: Path) -> None:
    lines = sorted(line for text in corpus() for line in text.replace("\r", "\n").split("\n") if line.strip("\0"))
    lines = [line for line in lines if "\0" not in line]
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=written, model_type=model_type, vocab_size=2600, minloglevel=2,
        byte_fallback=True, normalization_rule_name="identity", remove_extra_whitespaces=False, split_digits=True,
        allow_whitespace_only_pieces=True, hard_vocab_limit=False, control_symbols=["<|user|>"],
    )  # fmt: skip
    _trained(model_type, lines).save(tmp_path)
    saved = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "tokenizer.model"))
    theirs = ModelProto.read(written.getvalue(), "theirs")
    assert [(saved.id_to_piece(id), saved.get_score(id)) for id in range(len(saved))] == [
        (piece.text, piece.score) for piece in theirs.pieces
    ]


@pytest.mark.parametrize("model_type", TYPES)
def test_the_order_of_texts_changes_no_byte(model_type: ModelType) -> None:
    texts = list(corpus())
    models = set()
    for seed in range(3):
        random.Random(seed).shuffle(texts)
        models.add(_trained(model_type, iter(texts)).files.model)
    assert len(models) == 1


@pytest.mark.parametrize("model_type", TYPES)
def test_lines_too_long_for_the_trainer_are_cut_instead_of_skipped(model_type: ModelType) -> None:
    words = [f"zebra{'abcdefg'[n % 7]} " for n in range(4000)]
    trained = _trained(model_type, ["".join(words)], max_sentence_length=64)
    assert len(trained.encode("zebrad")) == 1


def test_a_tab_a_newline_and_a_null_come_back_from_their_bytes() -> None:
    trained = _trained("bpe", corpus())
    assert trained.decode(trained.encode("a\tb\nc\0d  e ")) == "a\tb\nc\0d  e "


def test_an_error_of_whoever_gives_the_texts_comes_through() -> None:
    class BrokenDisk(Exception):
        pass

    def texts() -> Iterator[str]:
        yield from corpus()
        raise BrokenDisk

    for model_type in TYPES:
        with pytest.raises(BrokenDisk):
            _trained(model_type, texts())


def test_a_vocabulary_too_small_for_the_characters_says_what_to_do() -> None:
    backend = SentencePieceBackend(SentencePieceConfig(model_type="unigram", character_coverage=1.0))
    with pytest.raises(RequestError, match=r"this: Vocabulary size is smaller.*\nAsk for a larger"):
        backend.train(corpus(), TrainingSpec(300))


@given(st.text(st.sampled_from("ab é日🎉"), min_size=1), st.integers(8, 40))
def test_cutting_a_line_loses_no_character_but_the_space_it_was_cut_at(line: str, longest: int) -> None:
    for prefixed in (True, False):
        parts = list(sentences([line], longest, prefixed=prefixed))
        assert all(0 < len(part.encode()) <= longest for part in parts)
        joined = "".join(parts)
        assert joined.replace(" ", "") == line.replace(" ", "")
        assert prefixed or joined == line


@given(st.lists(st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\n"), max_size=6)))
def test_lines_sorted_through_files_are_as_if_sorted_in_memory(lines: list[str]) -> None:
    with in_order(iter(lines), at_once=9) as ordered:
        assert list(ordered) == sorted(lines)
