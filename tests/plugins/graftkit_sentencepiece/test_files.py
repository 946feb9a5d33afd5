"""What is taken for a SentencePiece model, what is read from it and from the files beside it, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from graftkit.errors import ModelError
from graftkit.interfaces.vocabulary_limits import LONGEST_TOKEN, MOST_IDS
from graftkit_sentencepiece.backend import SentencePieceBackend
from graftkit_sentencepiece.files import SentencePieceFiles
from graftkit_sentencepiece.proto import Kind, ModelProto, Piece
from graftkit_sentencepiece.tokenizer import SentencePieceTokenizer
from graftkit_sentencepiece.wire import WireError, fields, write_bytes, write_float, write_varint
from hypothesis import given, settings
from hypothesis import strategies as st
from sentencepiece_models import AI21, BOTCHAN, MISTRAL, MODELS, loaded, model

BACKEND = SentencePieceBackend()


@pytest.mark.parametrize("name", sorted({*MODELS} - {AI21}))
def test_what_is_read_is_what_protobuf_reads(name: str) -> None:
    from sentencepiece import sentencepiece_model_pb2

    theirs = sentencepiece_model_pb2.ModelProto()
    theirs.ParseFromString(model(name).read_bytes())
    ours: ModelProto = loaded(name).proto
    assert [(p.piece, p.score, p.type) for p in theirs.pieces] == [tuple(piece) for piece in ours.pieces]
    trainer, normalizer = theirs.trainer_spec, theirs.normalizer_spec
    assert ours.model_type == trainer.ModelType.Name(trainer.model_type).lower()
    assert ours.byte_fallback == trainer.byte_fallback
    assert ours.splits["whitespace"] == trainer.split_by_whitespace
    assert ours.splits["number"] == trainer.split_by_number
    assert ours.splits["digits"] == trainer.split_digits
    assert ours.splits["unicode_script"] == trainer.split_by_unicode_script
    assert ours.splits["whitespace_only_pieces"] == trainer.allow_whitespace_only_pieces
    assert ours.unknown_surface == trainer.unk_surface
    assert ours.role_pieces["bos"] == trainer.bos_piece
    assert ours.charsmap == normalizer.precompiled_charsmap
    assert ours.adds_prefix == normalizer.add_dummy_prefix
    assert ours.trims_spaces == normalizer.remove_extra_whitespaces


@pytest.mark.parametrize("name", ["tokenizer.model", "spiece.model", "anything.model"])
def test_a_folder_and_the_file_in_it_are_the_same_tokenizer(name: str, tmp_path: Path) -> None:
    shutil.copy(model(BOTCHAN), tmp_path / name)
    for path in (tmp_path, tmp_path / name):
        assert BACKEND.accepts(path)
        assert BACKEND.load(path).fingerprint == loaded(BOTCHAN).fingerprint


def test_only_a_sentencepiece_model_is_accepted(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.model"
    assert not BACKEND.accepts(tmp_path) and not BACKEND.accepts(path)
    for other in (b"IQ== 0\nIg== 1\n", b"", b"{}", b"\x0a", b"\x0a\x03abc", b"\x0a\x04\x0a\x02\xff\xfe", b"GGUF" * 9):
        path.write_bytes(other)
        assert not BACKEND.accepts(path) and not BACKEND.accepts(tmp_path)
        with pytest.raises(ModelError, match="there is no SentencePiece model"):
            BACKEND.load(tmp_path)


def test_of_two_models_without_a_known_name_none_is_guessed(tmp_path: Path) -> None:
    for name in ("a.model", "b.model"):
        shutil.copy(model(BOTCHAN), tmp_path / name)
    assert not BACKEND.accepts(tmp_path) and BACKEND.accepts(tmp_path / "a.model")


@settings(max_examples=150)
@given(data=st.data())
def test_a_damaged_model_loads_or_is_refused_in_words(data: st.DataObject) -> None:
    whole = model(BOTCHAN).read_bytes()
    damaged = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.one_of(st.integers(0, 400), st.integers(0, len(whole) - 1)))
        damaged[place] = data.draw(st.integers(0, 255))
    cut = data.draw(st.one_of(st.just(len(whole)), st.integers(0, len(whole))))
    try:
        SentencePieceTokenizer(SentencePieceFiles(bytes(damaged[:cut]))).encode("a text\n日")
    except ModelError as error:
        assert str(error).startswith("tokenizer: ")


@pytest.mark.parametrize(
    "data",
    [
        write_bytes(2, b"") * 2_000,
        write_bytes(2, write_varint(40, 0) * 300_000),
        write_varint(9, 1),
        b"\x0a" + b"\xff" * 11,
        b"\x0a\xff\xff\xff\xff\x7f",
    ],
)
def test_what_would_take_long_or_much_memory_is_given_up_early(data: bytes) -> None:
    with pytest.raises(ModelError, match="this is no SentencePiece model"):
        SentencePieceTokenizer(SentencePieceFiles(data))


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        (2, write_bytes(44, b"?" * (LONGEST_TOKEN + 1)), "a text for special pieces has 8,193 characters"),
        (3, write_bytes(2, bytes(8) + b"b" * 65 + b"\0"), "replaces a character by 65 bytes; 64 are allowed"),
    ],
)
def test_a_model_that_makes_texts_very_long_is_refused(part: int, value: bytes, message: str) -> None:
    """100 characters, each replaced by a million, took 5 GB."""
    with pytest.raises(ModelError, match=message):
        SentencePieceTokenizer(SentencePieceFiles(_proto([UNK, NORMAL]) + write_bytes(part, value)))


@given(st.binary(max_size=60))
def test_any_bytes_are_fields_or_an_error(data: bytes) -> None:
    try:
        for _, kind, start, end in fields(data):
            assert kind == 0 or 0 <= start <= end <= len(data)
    except WireError:
        pass


UNK, NORMAL = Piece("<unk>", 0.0, Kind.UNKNOWN), Piece("a", -1.0, Kind.NORMAL)


@pytest.mark.parametrize(
    ("pieces", "message"),
    [
        ([NORMAL], "not exactly one of its pieces is the unknown one"),
        ([UNK, UNK._replace(text="?")], "not exactly one"),
        ([UNK, NORMAL, NORMAL], "a piece is there twice"),
        ([UNK, NORMAL._replace(score=float("nan"))], "with the score nan"),
        ([UNK, NORMAL._replace(text="")], "piece 1 is ''"),
        ([UNK, Piece("<0x41>", 0.0, Kind.BYTE)], "1 of 256 byte pieces"),
        ([UNK], "no pieces are loaded"),
        ([UNK, NORMAL._replace(text="a" * (LONGEST_TOKEN + 1))], "piece 1 has 8,193 characters"),
    ],
)
def test_a_model_that_cannot_be_right_is_refused(pieces: list[Piece], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        _made(pieces)


CONFIGS: list[tuple[dict[str, Any], str]] = [
    ({"added_tokens_decoder": {"0": {"content": "<x>"}}}, "has the id of the model's piece '<unk>'"),
    ({"added_tokens_decoder": {"9": {"content": "a"}}}, "is added as 9, but is the model's piece 1"),
    ({"added_tokens_decoder": {"x": {"content": "a"}}}, "added token 'x' of tokenizer_config.json is malformed"),
    ({"added_tokens_decoder": {"9" * 5000: {"content": "a"}}}, "of tokenizer_config.json is malformed"),
    ({"added_tokens_decoder": {"9": {"content": "<w>", "single_word": True}}}, "a whole word only"),
    (
        {"added_tokens_decoder": {f"{MOST_IDS}": {"content": "<w>"}}},
        f"has the id {MOST_IDS:,}; ids up to {MOST_IDS - 1:,}",
    ),
    ({"added_tokens_decoder": {"9": {"content": "w" * (LONGEST_TOKEN + 1)}}}, "the added token 9 has 8,193 characters"),
    ({"eos_token": "</nowhere>"}, "eos_token is '</nowhere>', which is no token"),
]


@pytest.mark.parametrize(("config", "message"), CONFIGS)
def test_a_configuration_that_contradicts_the_model_is_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        _made([UNK, NORMAL], **config)


@pytest.mark.parametrize("text", ["{", "[]", "[" * 100_000, "\udcff"])
def test_a_configuration_that_is_no_json_is_refused(text: str) -> None:
    beside = {"tokenizer_config.json": text.encode("utf-8", "surrogateescape")}
    with pytest.raises(ModelError, match=r"tokenizer_config\.json is no JSON"):
        SentencePieceTokenizer(SentencePieceFiles(_proto([UNK, NORMAL]), beside))


def test_a_user_defined_piece_is_text_unless_the_configuration_calls_it_special() -> None:
    pieces = [UNK, NORMAL, Piece("<turn>", 0.0, Kind.USER_DEFINED), *(Piece(c, -2.0, Kind.NORMAL) for c in "<turn>")]
    plain = _made(pieces)
    assert 2 in plain.encode("a<turn>a") and "<turn>" not in plain.special_tokens
    for config in (
        {"additional_special_tokens": ["<turn>"]},
        {"bos_token": "<turn>"},
        {"added_tokens_decoder": {"2": {"content": "<turn>", "special": True}}},
    ):
        special = _made(pieces, **config)
        assert special.special_tokens["<turn>"] == 2
        assert 2 not in special.encode("a<turn>a") and 2 in special.encode("a<turn>a", "all")


def test_roles_come_from_the_configuration_and_else_from_the_model() -> None:
    assert [loaded(MISTRAL).role_token(role) for role in ("bos", "eos", "pad", "unk")] == [1, 2, None, 0]
    pieces = [UNK, NORMAL, Piece("<s>", 0.0, Kind.CONTROL), Piece("</s>", 0.0, Kind.CONTROL)]
    given_roles = _made(pieces, eos_token={"content": "<s>"}, bos_token=None, add_bos_token=True)
    assert [given_roles.role_token(role) for role in ("bos", "eos")] == [None, 2]
    assert not given_roles.adds_bos, "there is no such token"
    assert _made(pieces, tokenizer_class="LlamaTokenizer").adds_bos, "as that class does"
    assert not _made(pieces).adds_bos


def test_a_chat_template_is_found_in_its_file_or_the_configuration() -> None:
    named = [{"name": "default", "template": "{{ b }}"}, {"name": "tools", "template": "{{ c }}"}]
    assert _made([UNK, NORMAL], chat_template="{{ a }}").chat_template == "{{ a }}"
    assert _made([UNK, NORMAL], chat_template=named).chat_template == "{{ b }}"
    files = SentencePieceFiles(_proto([UNK, NORMAL]), {"chat_template.jinja": b"{{ d }}"})
    assert SentencePieceTokenizer(files).chat_template == "{{ d }}"


def _proto(pieces: list[Piece]) -> bytes:
    spec = write_bytes(2, write_varint(3, 1) + write_varint(35, int(any(p.kind is Kind.BYTE for p in pieces))))
    bodies = (write_bytes(1, p.text.encode()) + write_float(2, p.score) + write_varint(3, p.kind) for p in pieces)
    return b"".join(write_bytes(1, body) for body in bodies) + spec


def _made(pieces: list[Piece], **config: Any) -> SentencePieceTokenizer:
    beside = {"tokenizer_config.json": json.dumps(config).encode()} if config else {}
    return SentencePieceTokenizer(SentencePieceFiles(_proto(pieces), beside))
