"""A model's folder whose weights are malformed: headers, offsets, types, shards and their index."""

from __future__ import annotations

import json
import random
import struct
from pathlib import Path
from typing import Any

from graftkit_models.huggingface import HuggingFaceSource

from hostile.mutate import Duplicates, apply, bytes_changed, change_json, dumped, hostile_string, place_oddly, spliced

PENDING: frozenset[str] = frozenset()

_INDEX = "model.safetensors.index.json"
_ITEMS = {"F32": 4, "F16": 2, "BF16": 2, "F64": 8, "I64": 8, "U8": 1, "BOOL": 1}
_OTHER_TYPES = ("F8_E4M3", "F4", "I32", "C64", "f32", "", "F8_E8M0", "I8", "U64", "BOOL", None, 3, ["F32"])
_KINDS = [
    ("length of the header", 4),
    ("offsets", 5),
    ("shape", 5),
    ("type", 3),
    ("entry", 5),
    ("a tensor twice", 2),
    ("many tensors", 1),
    ("name", 3),
    ("metadata", 2),
    ("padding", 2),
    ("size of the data", 3),
    ("bytes", 5),
    ("spliced", 2),
    ("index", 5),
    ("index leaves the folder", 3),
    ("shards differ", 2),
    ("place", 3),
]


def _tensors(draw: random.Random) -> dict[str, Any]:
    found, end = {}, 0
    for number in range(draw.randrange(1, 5)):
        dtype = draw.choice(("F32", "F32", "F16", "BF16", "F64"))
        shape = (
            [draw.randrange(4) for _ in range(draw.randrange(3))] if draw.random() < 0.2 else [draw.randrange(1, 5), 4]
        )
        size = _ITEMS[dtype]
        for length in shape:
            size *= length
        found[f"model.layers.{number}.mlp.down_proj.weight"] = {
            "dtype": dtype, "shape": shape, "data_offsets": [end, end + size],
        }  # fmt: skip
        end += size
    return found


def _end(header: Any) -> int:
    return max((entry["data_offsets"][1] for entry in header.values()), default=0)


class _File:
    """A safetensors file in parts."""

    def __init__(self, draw: random.Random) -> None:
        self.header: Any = _tensors(draw)
        self.data = draw.randbytes(_end(self.header))
        self.length: int | None = None
        self.padding = b""
        self.after: list[tuple[str, int]] = []

    def bytes(self) -> bytes:
        header = dumped(self.header).encode("utf-8", "surrogatepass") + self.padding
        return struct.pack("<Q", len(header) if self.length is None else self.length) + header + self.data


def make(draw: random.Random, folder: Path) -> list[str]:
    valid(folder, draw)
    kinds = apply(draw, _KINDS, PENDING)
    files = [_File(draw) for _ in range(draw.choice((1, 1, 1, 2)))]
    if len(files) == 2:
        files[1].header = {name.replace("layers.", "layers.1"): entry for name, entry in files[1].header.items()}
    index = {"weight_map": {name: f"{n}.safetensors" for n, file in enumerate(files) for name in file.header}}
    for kind in kinds:
        _change(draw, draw.choice(files), kind)
    contents = [file.bytes() for file in files]
    if "bytes" in kinds:
        contents[0] = bytes_changed(draw, contents[0])
    if "spliced" in kinds:
        contents[0] = spliced(draw, contents[0], _File(draw).bytes())
    single = len(files) == 1 and not any(kind.startswith(("index", "shards")) for kind in kinds)
    names = ["model.safetensors"] if single else [f"{n}.safetensors" for n in range(len(files))]
    if single:
        (folder / names[0]).unlink()
    else:
        (folder / "model.safetensors").unlink()
        _write_index(draw, folder, index, kinds)
    for name, content in zip(names, contents, strict=True):
        (folder / name).write_bytes(content)
    if "place" in kinds:
        place_oddly(draw, folder / draw.choice(sorted(path.name for path in folder.iterdir())))
    return kinds


def _write_index(draw: random.Random, folder: Path, index: Any, kinds: list[str]) -> None:
    weight_map: dict[str, Any] = index["weight_map"]
    if "index leaves the folder" in kinds:
        outside = folder.parent / "outside.safetensors"
        outside.write_bytes(_File(random.Random(0)).bytes())
        name = draw.choice(("../outside.safetensors", str(outside), "./0.safetensors", "a/../0.safetensors", "..", "",
        "/dev/zero",
                            "0.safetensors\0", "x" * 300, "sub/0.safetensors", "\ud800",
                            "..\\outside.safetensors"))  # fmt: skip
        for key in draw.sample(sorted(weight_map), draw.randrange(len(weight_map)) + 1):
            weight_map[key] = name
    if "shards differ" in kinds:
        key = draw.choice(sorted(weight_map))
        weight_map[draw.choice((key + "x", key))] = draw.choice(("0.safetensors", "1.safetensors", "2.safetensors"))
    changed = change_json(draw, index) if "index" in kinds else index
    (folder / _INDEX).write_text(dumped(changed), encoding="utf-8")


def _offsets(entry: dict[str, Any]) -> tuple[int, int]:
    """Returns where a tensor starts and ends; zeros where another change has left something else there."""
    match entry.get("data_offsets"):
        case [int(start), int(end)]:
            return start, end
        case _:
            return 0, 0


def _change(draw: random.Random, file: _File, kind: str) -> None:
    if not isinstance(file.header, dict) or not all(isinstance(entry, dict) for entry in file.header.values()):
        return
    name = draw.choice(sorted(file.header))
    entry = file.header[name]
    size = len(file.data)
    if kind == "length of the header":
        length = len(dumped(file.header))
        file.length = draw.choice(
            (0, 1, 7, length - 1, length + 1, length * 2, 2**24, 2**31, 2**32, 2**63, 2**64 - 1, 100_000_001)
        )
    elif kind == "offsets":
        start, end = _offsets(entry)
        entry["data_offsets"] = draw.choice(
            ([end, start], [start, end + 1], [start + 1, end + 1], [start - 1, end], [0, size], [size, size * 2], [-4,
            0], [start], [],
             [start, end, end], [2**63, 2**63 + end], [2**64 - 4, 2**64], [0.0, 16.0], ["0", "16"], [True, 16], None,
             [0, 0], {"0": 0})
        )  # fmt: skip
    elif kind == "shape":
        entry["shape"] = draw.choice(
            ([0], [0, 2**62], [2**32, 2**32], [2**31, 2], [-1, -4], [-4], [1] * 9, [1] * 200, [], [4.0, 4], ["4", 4],
            [True, 4], 16, "44",
             [2**63], [2**64, 0], [10**40, 0], None, [[4], 4], {"4": 4}, [2**61, 2**61, 0])
        )  # fmt: skip
    elif kind == "type":
        entry["dtype"] = draw.choice((*_OTHER_TYPES, *_ITEMS))
    elif kind == "entry":
        file.header[name] = change_json(draw, entry)
    elif kind == "a tensor twice":
        file.header = Duplicates([*file.header.items(), (name, entry)])
    elif kind == "many tensors":
        file.header |= {
            f"t{n}": {"dtype": "F32", "shape": [0], "data_offsets": [size, size]}
            for n in range(draw.choice((50, 3000)))
        }
    elif kind == "name":
        file.header[hostile_string(draw)] = file.header.pop(name)
    elif kind == "metadata":
        file.header["__metadata__"] = draw.choice(
            ({"format": "pt"}, {"format": 3}, {"a": {"b": 1}}, [], "x", None, {"x": "y" * 100_000})
        )
    elif kind == "padding":
        file.padding = draw.choice((b" " * 7, b"\0" * 8, b" " * 100_000, b"\n", b"x", b"{}", b"\xff"))
    elif kind == "size of the data":
        file.data = draw.choice((b"", file.data[:-1], file.data + b"\0", file.data * 2, file.data + b"\0" * 4096))


def valid(folder: Path, draw: random.Random | None = None) -> None:
    draw = draw or random.Random(0)
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "hidden_size": 4}))
    (folder / "model.safetensors").write_bytes(_File(draw).bytes())


def read(folder: Path) -> None:
    files = HuggingFaceSource().open(str(folder))
    assert all(path.resolve().is_relative_to(folder.resolve()) for path in files.files), (
        "it reads outside of its folder"
    )
    found = dict(files.read())
    assert found.keys() == files.tensors.keys(), "other tensors are read than were named"
    for name, tensor in found.items():
        assert tuple(tensor.shape) == files.tensors[name].shape, "a tensor has another shape than was said"
        tensor.float().sum()
