"""GGUF files: counts, lengths, types, alignment, places of tensors, metadata and the tokenizer in it."""

from __future__ import annotations

import copy
import random
import struct
import tempfile
from pathlib import Path
from typing import Any

from graftkit.errors import GraftkitError
from graftkit_gguf.source import GgufSource
from graftkit_tokenizers.huggingface import HuggingFaceBackend

from hostile.mutate import apply, bytes_changed, hostile_string, nudged, place_oddly, spliced

PENDING: frozenset[str] = frozenset()

_U32, _F32, _BOOL, _STRING, _ARRAY, _U64, _F64 = 4, 6, 7, 8, 9, 10, 12
_CODES = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "B", 10: "Q", 11: "q", 12: "d"}
_COUNTS = (0, 1, 2, 2**16, 2**31, 2**32 - 1, 2**32, 2**48, 2**60, 2**63, 2**64 - 1, 2_000_001)
_PRE = ("default", "gpt-2", "llama-bpe", "qwen2", "smollm", "no-such", "")
_KINDS = [
    ("a value", 8),
    ("type of a value", 4),
    ("a key", 4),
    ("a list", 6),
    ("counts", 3),
    ("version", 1),
    ("a tensor", 8),
    ("two tensors", 3),
    ("alignment", 2),
    ("length of a string", 3),
    ("size of the data", 2),
    ("bytes", 6),
    ("spliced", 2),
    ("place", 1),
]
_ALPHABET = [chr(n) for n in (*range(33, 127), *range(161, 173), *range(174, 256), *range(256, 324))]


class _File:
    """A GGUF file in parts."""

    def __init__(self) -> None:
        hidden, inner, rows = 32, 32, 260
        tokens = [*_ALPHABET, "<s>", "</s>", "ab", "abc"]
        self.version, self.alignment = 3, 32
        self.counts: list[int | None] = [None, None]
        self.keys: list[list[Any]] = [
            ["general.architecture", _STRING, "llama"],
            ["general.alignment", _U32, 32],
            ["llama.block_count", _U32, 1],
            ["llama.context_length", _U32, 64],
            ["llama.embedding_length", _U32, hidden],
            ["llama.feed_forward_length", _U32, inner],
            ["llama.attention.head_count", _U32, 2],
            ["llama.attention.head_count_kv", _U32, 1],
            ["llama.attention.layer_norm_rms_epsilon", _F32, 1e-5],
            ["llama.rope.freq_base", _F32, 10000.0],
            ["llama.rope.dimension_count", _U32, 16],
            ["llama.vocab_size", _U32, rows],
            ["tokenizer.ggml.model", _STRING, "gpt2"],
            ["tokenizer.ggml.pre", _STRING, "smollm"],
            ["tokenizer.ggml.tokens", _ARRAY, (_STRING, tokens)],
            ["tokenizer.ggml.token_type", _ARRAY, (5, [1] * 256 + [3, 3, 1, 1])],
            ["tokenizer.ggml.merges", _ARRAY, (_STRING, ["a b", "ab c"])],
            ["tokenizer.ggml.bos_token_id", _U32, 256],
            ["tokenizer.ggml.eos_token_id", _U32, 257],
            ["tokenizer.ggml.add_bos_token", _BOOL, 0],
            ["tokenizer.chat_template", _STRING, "{{ messages[0]['content'] }}"],
        ]
        self.tensors: list[list[Any]] = []
        end = 0
        for name, shape, kind in (
            ("token_embd.weight", [hidden, rows], 0),
            ("output_norm.weight", [hidden], 0),
            ("blk.0.attn_norm.weight", [hidden], 0),
            ("blk.0.attn_q.weight", [hidden, hidden], 1),
            ("blk.0.attn_k.weight", [hidden, 16], 8),
            ("blk.0.attn_v.weight", [hidden, 16], 2),
            ("blk.0.attn_output.weight", [hidden, hidden], 3),
            ("blk.0.ffn_norm.weight", [hidden], 0),
            ("blk.0.ffn_gate.weight", [hidden, inner], 0),
            ("blk.0.ffn_up.weight", [hidden, inner], 30),
            ("blk.0.ffn_down.weight", [inner, hidden], 6),
        ):
            values = shape[0] * (shape[1] if len(shape) > 1 else 1)
            size = {
                0: values * 4,
                1: values * 2,
                30: values * 2,
                2: values // 32 * 18,
                3: values // 32 * 20,
                6: values // 32 * 22,
                8: values // 32 * 34,
            }[kind]
            self.tensors.append([name, shape, kind, end])
            end += -(-size // 32) * 32
        self.data = b"\0" * end
        self.lengths: dict[int, int] = {}

    def bytes(self) -> bytes:
        written = 0

        def text(value: Any) -> bytes:
            nonlocal written
            data = value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogatepass")
            written += 1
            return struct.pack("<Q", self.lengths.get(written, len(data)) % 2**64) + data

        def typed(kind: int, value: Any) -> bytes:
            if kind == _STRING:
                return text(value)
            if kind == _ARRAY and isinstance(value, tuple):
                inner, items = value[:2]
                count = value[2] if len(value) > 2 else len(items)
                return struct.pack("<IQ", inner % 2**32, count % 2**64) + b"".join(typed(inner, item) for item in items)
            code = _CODES.get(kind, "Q")
            number = value if isinstance(value, int | float) else 7
            if code in "fd":
                try:
                    return struct.pack(f"<{code}", number)
                except OverflowError:
                    return struct.pack(f"<{code}", float("inf"))
            whole = int(number) if abs(number) < float("inf") else 0
            size = struct.calcsize(code)
            return (whole % 2 ** (8 * size)).to_bytes(size, "little")

        head = b"".join(
            text(key) + struct.pack("<I", kind % 2**32) + typed(kind, value) for key, kind, value in self.keys
        )
        for name, shape, kind, offset in self.tensors:
            head += text(name) + struct.pack(f"<I{len(shape)}Q", len(shape), *(length % 2**64 for length in shape))
            head += struct.pack("<IQ", kind % 2**32, offset % 2**64)
        counts = [
            len(self.tensors) if self.counts[0] is None else self.counts[0],
            len(self.keys) if self.counts[1] is None else self.counts[1],
        ]
        start = b"GGUF" + struct.pack("<IQQ", self.version, *counts) + head
        return start + b"\0" * (-len(start) % self.alignment) + self.data


def make(draw: random.Random, folder: Path) -> list[str]:
    kinds = apply(draw, _KINDS, PENDING)
    file = _File()
    if draw.random() < 0.1:
        file.data = draw.randbytes(len(file.data))
    for kind in kinds:
        _change(draw, file, kind)
    data = file.bytes()
    if "bytes" in kinds:  # mostly the header, which the data outweighs
        cut = len(data) - len(file.data)
        data = bytes_changed(draw, data[:cut]) + data[cut:] if draw.random() < 0.8 else bytes_changed(draw, data)
    if "spliced" in kinds:
        data = spliced(draw, data, _File().bytes())
    (folder / "model.gguf").write_bytes(data)
    if "place" in kinds:
        place_oddly(draw, folder / "model.gguf")
    return kinds


def _change(draw: random.Random, file: _File, kind: str) -> None:
    key = draw.choice(file.keys)
    tensor = draw.choice(file.tensors)
    if kind == "a value" and not isinstance(key[2], tuple):
        if key[0] == "tokenizer.ggml.pre":
            key[2] = draw.choice(_PRE)
        else:
            key[2] = draw.choice((hostile_string(draw), "\udc80", b"\xff\xfe",
            "x")) if key[1] == _STRING or not isinstance(key[2], int | float) else draw.choice(
                (nudged(draw, key[2]), 0, 2**31 - 1, 2**32 - 1, float("nan"), float("inf"), -1, 3))  # fmt: skip
    elif kind == "type of a value":
        key[1] = draw.choice((*range(13), 13, 255, 2**32 - 1))
        if key[1] == _ARRAY and not isinstance(key[2], tuple):
            key[2] = (draw.choice((_U32, _STRING, _ARRAY, 6, 99)), [1, 2, 3])
    elif kind == "a key":
        _change_key(draw, file, key)
    elif kind == "a list":
        _change_list(draw, file)
    elif kind == "counts":
        file.counts[draw.randrange(2)] = draw.choice((*_COUNTS, len(file.keys) + 1, len(file.tensors) - 1))
    elif kind == "version":
        file.version = draw.choice((0, 1, 2, 4, 3 << 24, 2**32 - 1))
    elif kind == "a tensor":
        _change_tensor(draw, file, tensor)
    elif kind == "two tensors":
        other = draw.choice(file.tensors)
        change = draw.randrange(4)
        if change == 3:
            file.tensors.append(copy.deepcopy(tensor))
        else:
            position = (0, 1, 3)[change]
            tensor[position] = copy.deepcopy(other[position])
    elif kind == "alignment":
        file.keys[1][2] = draw.choice((0, 1, 8, 31, 33, 64, 2**20, 2**21, 2**31, 2**32 - 1))
        file.alignment = draw.choice((file.alignment, max(1, min(file.keys[1][2], 4096))))
    elif kind == "length of a string":
        file.lengths[draw.randrange(1, 60)] = draw.choice((0, 1, *_COUNTS))
    elif kind == "size of the data":
        file.data = draw.choice(
            (b"", file.data[:-1], file.data[: draw.randrange(len(file.data) + 1)], file.data + b"\0" * 100)
        )


def _change_key(draw: random.Random, file: _File, key: list[Any]) -> None:
    change = draw.randrange(5)
    if change == 0:
        file.keys.remove(key)
    elif change == 1:
        file.keys.append(copy.deepcopy(key))
    elif change == 2:
        key[0] = draw.choice(
            (
                hostile_string(draw),
                "",
                "x" * 70_000,
                "llama.expert_count",
                "llama.rope.scaling.type",
                "llama.attention.causal",
            )
        )
    elif change == 3:
        file.keys += [[f"k{n}", _U32, n] for n in range(draw.choice((100, 3000)))]
    else:
        file.keys.append(
            [
                draw.choice(
                    ("llama.rope.scaling.factor", "llama.expert_count", "split.count", "llama.attention.sliding_window")
                ),
                _U32,
                4,
            ]
        )


def _change_list(draw: random.Random, file: _File) -> None:
    lists = [key for key in file.keys if isinstance(key[2], tuple)]
    key = draw.choice(lists) if lists else None
    if key is None:
        return
    kind, items = key[2][0], list(key[2][1])
    change = draw.randrange(8)
    if change == 0 and items:
        items.pop(draw.randrange(len(items)))
    elif change == 1 and items:
        items[draw.randrange(len(items))] = (
            hostile_string(draw) if kind == _STRING else draw.choice((0, 2, 3, 4, 6, 7, 99, -1))
        )
    elif change == 2 and items:
        items.append(draw.choice(items))
    elif change == 3:
        items = []
    elif change == 4:
        draw.shuffle(items)
    elif change == 5:
        key[2] = (kind, items, draw.choice((*_COUNTS, len(items) + 1)))
        return
    elif change == 6:
        kind = draw.choice((0, 4, 6, 7, 8, 9, 12, 13, 2**32 - 1))
    else:
        items = items * draw.choice((2, 20))
    key[2] = (kind, items)


def _change_tensor(draw: random.Random, file: _File, tensor: list[Any]) -> None:
    change = draw.randrange(6)
    if change == 0:
        tensor[0] = draw.choice(
            (
                hostile_string(draw),
                "x" * 65,
                "",
                "rope_freqs.weight",
                "blk.0.attn_q.bias",
                "blk.1.attn_q.weight",
                "blk.99999999999.attn_q.weight",
            )
        )
    elif change == 1:
        shape = tensor[1]
        tensor[1] = draw.choice(
            (
                [],
                [0],
                [1] * 5,
                [2**63, 2],
                [2**32, 2**32],
                [31, 3],
                shape[::-1],
                [*shape, 1],
                [nudged(draw, shape[0]), *shape[1:]],
                [2**64 - 1],
            )
        )
    elif change == 2:
        tensor[2] = draw.choice((*range(42), 99, 2**31, 2**32 - 1))
    elif change == 3:
        tensor[3] = draw.choice(
            (nudged(draw, tensor[3]), 0, 1, 32, 2**63, 2**64 - 32, len(file.data), len(file.data) - 32)
        )
    elif change == 4:
        file.tensors.remove(tensor)
    else:
        file.data = draw.randbytes(64) + b"\x00\x00\xc0\x7f" * 16 + file.data[128:]  # NaN among the numbers


def valid(folder: Path) -> None:
    (folder / "model.gguf").write_bytes(_File().bytes())


def read(folder: Path) -> None:
    reference, problems = str(folder / "model.gguf"), []
    for part in (_read_weights, _read_tokenizer):
        try:
            part(reference)
        except GraftkitError as error:
            problems.append(error)
    if problems:
        raise problems[0]


def _read_weights(reference: str) -> None:
    files = GgufSource().open(reference)
    found = dict(files.read())
    assert found.keys() == files.tensors.keys(), "other tensors are read than were named"
    for name, tensor in found.items():
        assert tuple(tensor.shape) == files.tensors[name].shape, "a tensor has another shape than was said"


def _read_tokenizer(reference: str) -> None:
    with tempfile.TemporaryDirectory(dir=Path(reference).parent) as folder:
        GgufSource().open_tokenizer(reference).save_tokenizer(Path(folder))
        tokenizer = HuggingFaceBackend().load(Path(folder))
        tokenizer.decode(tokenizer.encode("abc Grüße 🙂\n<s>", "all"))
