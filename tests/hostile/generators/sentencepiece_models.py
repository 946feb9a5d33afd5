"""SentencePiece models: fields and lengths of the protobuf, pieces, scores, types, normalization rules."""

from __future__ import annotations

import json
import random
import struct
from pathlib import Path
from typing import Any

from graftkit_sentencepiece.backend import SentencePieceBackend

from hostile.mutate import apply, bytes_changed, change_json, dumped, hostile_string, place_oddly, spliced
from hostile.tokenizer_use import use_tokenizer

PENDING: frozenset[str] = frozenset()

_WORDS = ("▁", "▁a", "a", "b", "ab", "▁ab", "H", "e", "l", "o", "he", "1", "2", "é")
_NUMBERS = (0, 1, 2, 3, 4, 5, 16, 127, 2**31 - 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1)
_KINDS = [
    ("a piece", 10),
    ("pieces", 6),
    ("trainer", 6),
    ("normalizer", 6),
    ("rules", 4),
    ("unknown field", 3),
    ("length", 5),
    ("type on the wire", 4),
    ("bytes", 8),
    ("spliced", 2),
    ("beside", 4),
    ("place", 2),
]


def _varint(number: int) -> bytes:
    number %= 2**64
    written = bytearray()
    while number > 127:
        written.append(number & 127 | 128)
        number >>= 7
    return bytes([*written, number])


def _field(number: int, value: Any, kind: int | None = None, length: int | None = None) -> bytes:
    if isinstance(value, int):
        return _varint(number << 3 | (0 if kind is None else kind)) + _varint(value)
    if isinstance(value, float):
        return _varint(number << 3 | (5 if kind is None else kind)) + struct.pack("<f", value)
    data = value if isinstance(value, bytes) else value.encode("utf-8", "surrogatepass")
    return (
        _varint(number << 3 | (2 if kind is None else kind)) + _varint(len(data) if length is None else length) + data
    )


class _Model:
    """A model in parts: pieces, the trainer's and the normalizer's fields."""

    def __init__(self, draw: random.Random) -> None:
        self.kind = draw.choice((1, 2, 2, 3, 4))
        self.bytewise = draw.random() < 0.3
        self.pieces: list[list[Any]] = [["<unk>", 0.0, 2], ["<s>", 0.0, 3], ["</s>", 0.0, 3]]
        if self.bytewise:
            self.pieces += [[f"<0x{n:02X}>", 0.0, 6] for n in range(256)]
        self.pieces += [[word, -float(n), 1] for n, word in enumerate(_WORDS)]
        self.trainer: dict[int, Any] = {3: self.kind, 35: int(self.bytewise), 45: "<unk>", 46: "<s>", 47: "</s>"}
        self.normalizer: dict[int, Any] = {1: "identity", 3: draw.randrange(2), 4: draw.randrange(2), 5: 1}
        self.more = b""

    def bytes(self, draw: random.Random, kinds: list[str]) -> bytes:
        parts = [_field(1, self._piece(piece)) for piece in self.pieces]
        parts += [_field(number, _message(values)) for number, values in ((2, self.trainer), (3, self.normalizer))]
        for kind in kinds:
            place = draw.randrange(len(parts))
            if kind == "length":
                body = parts[place][2:]
                parts[place] = (
                    _varint(draw.choice((0x0A, 0x12, 0x1A)))
                    + _varint(draw.choice((0, 1, len(body) + 1, *_NUMBERS)))
                    + body
                )
            elif kind == "type on the wire":
                parts.insert(
                    place,
                    _field(draw.choice((0, 1, 2, 3, 4, 99)), draw.choice((b"abc", 3, 1.0)), kind=draw.choice(range(8))),
                )
        return b"".join(parts) + self.more

    def _piece(self, piece: list[Any]) -> bytes:
        text, score, kind = piece[:3]
        return _field(1, text) + _field(2, score) + (_field(3, kind) if kind != 1 else b"") + b"".join(piece[3:])


def _message(values: dict[int, Any]) -> bytes:
    return b"".join(_field(number, value) for number, value in values.items())


def make(draw: random.Random, folder: Path) -> list[str]:
    kinds = apply(draw, _KINDS, PENDING)
    model = _Model(draw)
    for kind in kinds:
        _change(draw, model, kind)
    data = model.bytes(draw, kinds)
    if "bytes" in kinds:
        data = bytes_changed(draw, data)
    if "spliced" in kinds:
        data = spliced(draw, data, _Model(draw).bytes(draw, []))
    (folder / "tokenizer.model").write_bytes(data)
    if "beside" in kinds:
        config: Any = {
            "bos_token": "<s>",
            "add_bos_token": True,
            "legacy": False,
            "added_tokens_decoder": {"300": {"content": "<x>", "special": True}},
        }
        for name, document in (
            ("tokenizer_config.json", config),
            ("added_tokens.json", {"<x>": 300}),
            ("special_tokens_map.json", {"eos_token": "</s>"}),
        ):
            if draw.random() < 0.6:
                (folder / name).write_bytes(
                    dumped(change_json(draw, json.loads(json.dumps(document)))).encode("utf-8", "surrogatepass")
                )
    if "place" in kinds:
        place_oddly(draw, folder / draw.choice(sorted(path.name for path in folder.iterdir())))
    return kinds


def _change(draw: random.Random, model: _Model, kind: str) -> None:
    piece = draw.choice(model.pieces or [["a", 0.0, 1]])
    if kind == "a piece":
        change = draw.randrange(5)
        if change == 0:
            piece[0] = draw.choice(
                (hostile_string(draw), b"\xff\xfe", b"", "<0xZZ>", "<0x100>", draw.choice(_WORDS), "▁" * 200)
            )
        elif change == 1:
            piece[1] = draw.choice((float("nan"), float("inf"), -1e38, 1e38, 0.0, -1e-45, 5))
        elif change == 2:
            piece[2] = draw.choice((*range(8), 2**31, 2**64 - 1))
        elif change == 3:
            piece.append(_field(draw.choice((1, 2, 3, 9)), draw.choice(("z", 1.0, 4)), length=None))
        else:
            piece += [_field(200, b"x")] * 40
    elif kind == "pieces":
        change = draw.randrange(6)
        if change == 0:
            model.pieces = model.pieces[:-1]
        elif change == 1:
            model.pieces.append(list(piece))
        elif change == 2:
            draw.shuffle(model.pieces)
        elif change == 3:
            model.pieces = draw.choice(([], model.pieces[:1], model.pieces[:3]))
        elif change == 4:
            model.pieces += [[f"w{n}", -float(n), draw.choice((1, 4))] for n in range(2000)]
        else:
            model.pieces.insert(draw.randrange(len(model.pieces) + 1), [f"<0x{draw.randrange(256):02X}>", 0.0, 6])
    elif kind in ("trainer", "normalizer"):
        values = model.trainer if kind == "trainer" else model.normalizer
        number = draw.choice((1, 2, 3, 4, 5, 10, 20, 21, 24, 25, 26, 35, 40, 41, 42, 44, 45, 46, 47, 48, 53))
        values[number] = draw.choice((draw.choice(_NUMBERS), hostile_string(draw), b"\xff", 1.5, b""))
    elif kind == "rules":
        model.normalizer[2] = draw.choice((b"", b"\0", draw.randbytes(50), struct.pack("<I", 2**32 - 4) + b"a",
        struct.pack("<I", 4) + b"\0\0\0\0\0",
                                           struct.pack("<I", 1024) + draw.randbytes(1024) + b"abc\0", struct.pack("<I",
                                           1024) + b"\xff" * 1024 + b"x"))  # fmt: skip
    elif kind == "unknown field":
        model.more = draw.choice(
            (
                _field(99, b"x" * 100),
                _field(5, _field(2, b"\1\2\3")),
                _field(4, b"\xff"),
                _field(2**28, 1),
                b"\x0a",
                b"\0",
                _field(6, 1) * 2000,
            )
        )


def valid(folder: Path) -> None:
    draw = random.Random(1)
    (folder / "tokenizer.model").write_bytes(_Model(draw).bytes(draw, []))


def read(folder: Path) -> None:
    tokenizer = SentencePieceBackend().load(folder)
    use_tokenizer(tokenizer)
