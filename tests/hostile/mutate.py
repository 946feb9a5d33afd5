"""Changes valid documents the way damaged and hostile files differ from them: JSON, bytes, lines, folders.

Everything is drawn from a `random.Random` that is seeded by the parser's name and a number, so that the same seed
gives the same input on every machine.
"""

from __future__ import annotations

import copy
import json
import os
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = [
    "JSON_KINDS",
    "Duplicates",
    "Raw",
    "apply",
    "bytes_changed",
    "change_json",
    "dumped",
    "hostile_string",
    "hostile_value",
    "nudged",
    "place_oddly",
    "spliced",
    "text_changed",
]

Path_ = tuple[Any, ...]


class Raw(str):
    """A piece of JSON that is written as it is."""


class Duplicates(list[tuple[Any, Any]]):
    """An object as pairs, so that a key can stand in it twice."""


_DEEPEST = 300


def dumped(value: Any, depth: int = 0) -> str:
    """Writes JSON with `Raw` and `Duplicates` in it; lone surrogates are escaped, and what lies too deep is null.

    Of `Duplicates` whose pairs were changed themselves, those are left out that are none any more.
    """
    if depth > _DEEPEST:
        return "null"
    if isinstance(value, Raw):
        return str(value)
    if isinstance(value, Mapping | Duplicates):
        pairs = value.items() if isinstance(value, Mapping) else [pair for pair in value if len(pair) == 2]
        return "{" + ", ".join(f"{json.dumps(str(key))}: {dumped(item, depth + 1)}" for key, item in pairs) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(dumped(item, depth + 1) for item in value) + "]"
    return json.dumps(value)


# --- values ---------------------------------------------------------------------------------------------------------

_STRINGS = (
    "", " ", "\x00", "a\x00b", "../../../etc/passwd", "/etc/passwd", "..", ".", "C:\\x", "\ud800", "\udfff\ud800",
    "\ufeff",
    "\u202e\u0000\u001b[31m", "\U0010ffff", "é" * 7, "e\u0301", "İ", "ﬁ", "\n", "\r\n", "\t", "%s%n", "${HOME}",
    "{{7*7}}", "{% for",
    "__class__", "__proto__", "~root", "~nobody-is-called-so", "hub:a/b", "file:///dev/zero", "null", "NaN", "true",
    "-1",
    "org/name", "1e400", "a" * 300, "a" * 70_000, "\u2581" * 50, "<0xFF>", "<|endoftext|>", "(a+)+$", "[", "\\", "(?",
    "\\p{L}", "*",
)  # fmt: skip

_NUMBERS = (
    0, -1, 1, 2, 3, 7, 255, 256, 257, 65_536, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**53 + 1, 2**63 - 1, 2**63,
    2**64 - 1, 2**64,
    -(2**31) - 1, -(2**63) - 1, 10**30, -0.0, 0.5, 1.5, -1.5, 1e-320, 1e308, -1e308,
)  # fmt: skip

_RAW = (
    "NaN",
    "Infinity",
    "-Infinity",
    "1e999",
    "-1e999",
    "1" * 5000,
    "0." + "1" * 5000,
    "[" * 60 + "]" * 60,
    "{}",
    '"\\ud834"',
)


def hostile_string(draw: random.Random) -> str:
    """Returns a string that code stumbles over."""
    if draw.random() < 0.8:
        return draw.choice(_STRINGS)
    return "".join(
        chr(draw.choice((draw.randrange(128), draw.randrange(0x3000), 0x1F600))) for _ in range(draw.randrange(12))
    )


def hostile_value(draw: random.Random) -> Any:
    """Returns any JSON value, of any type."""
    kind = draw.randrange(8)
    if kind < 2:
        return hostile_string(draw)
    if kind < 4:
        return draw.choice(_NUMBERS)
    if kind == 4:
        return draw.choice((None, True, False))
    if kind == 5:
        return Raw(draw.choice(_RAW))
    inner = [copy.deepcopy(draw.choice(_NUMBERS + _STRINGS[:20])) for _ in range(draw.randrange(4))]
    if kind == 6:
        return inner if draw.random() < 0.7 else [inner, {}]
    return {hostile_string(draw)[:80]: item for item in inner}


def nudged(draw: random.Random, number: Any) -> Any:
    """Returns a number near another one, or of another order of magnitude."""
    if isinstance(number, float):
        return draw.choice((-number, number * 1e30, number / 1e30, 0.0, number + 1))
    return draw.choice(
        (number + 1, number - 1, -number, number * 2, number * 1000, number // 2, number + 2**32, 2**63 - number)
    )


# --- JSON -----------------------------------------------------------------------------------------------------------


def _paths(value: Any, here: Path_ = ()) -> list[Path_]:
    """Returns every path of a document, of long lists the first entries alone."""
    found = [here]
    if isinstance(value, dict):
        for key, item in list(value.items())[:60]:
            found += _paths(item, (*here, key))
    elif isinstance(value, list) and not isinstance(value, Duplicates):
        for place, item in enumerate(value[:12]):
            found += _paths(item, (*here, place))
    return found


def _at(document: Any, path: Path_) -> Any:
    for key in path:
        document = document[key]
    return document


def _put(document: Any, path: Path_, value: Any) -> Any:
    if not path:
        return value
    _at(document, path[:-1])[path[-1]] = value
    return document


def _pick(draw: random.Random, document: Any, wanted: Callable[[Any], bool] = lambda value: True) -> Path_ | None:
    """Draws a path, level by level, so that one deep list does not outweigh the rest."""
    paths = [path for path in _paths(document) if wanted(_at(document, path))]
    if not paths:
        return None
    depth = draw.choice(sorted({len(path) for path in paths}))
    return draw.choice([path for path in paths if len(path) == depth])


def _of_type(*types: type) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, types) and not isinstance(value, bool | Raw | Duplicates)


def _another_type(draw: random.Random, document: Any) -> Any:
    path = _pick(draw, document)
    return document if path is None else _put(document, path, hostile_value(draw))


def _another_number(draw: random.Random, document: Any) -> Any:
    path = _pick(draw, document, _of_type(int, float))
    if path is None:
        return document
    value = _at(document, path)
    return _put(document, path, draw.choice(_NUMBERS) if draw.random() < 0.4 else nudged(draw, value))


def _another_string(draw: random.Random, document: Any) -> Any:
    path = _pick(draw, document, _of_type(str))
    if path is None:
        return document
    value = _at(document, path)
    cut = draw.randrange(len(value) + 1)
    odd = hostile_string(draw)
    return _put(
        document, path, draw.choice((odd, value[:cut], value[:cut] + odd[:50] + value[cut:], value * 2, value.upper()))
    )


def _lacking(draw: random.Random, document: Any) -> Any:
    path = _pick(draw, document, _of_type(dict, list))
    if path is None or not _at(document, path):
        return document
    inside = _at(document, path)
    del inside[draw.choice(list(inside)) if isinstance(inside, dict) else draw.randrange(len(inside))]
    return document


def _a_key_twice(draw: random.Random, document: Any) -> Any:
    path = _pick(draw, document, _of_type(dict))
    if path is None or not _at(document, path):
        return document
    pairs = Duplicates(_at(document, path).items())
    key, value = draw.choice(pairs)
    pairs.insert(draw.randrange(len(pairs) + 1), (key, draw.choice((value, hostile_value(draw)))))
    return _put(document, path, pairs)


def _a_strange_key(draw: random.Random, document: Any) -> Any:
    path = _pick(draw, document, _of_type(dict))
    if path is None:
        return document
    inside = _at(document, path)
    name = hostile_string(draw)
    if inside and draw.random() < 0.5:
        old = draw.choice(list(inside))
        inside[name] = inside.pop(old)
    else:
        inside[name] = hostile_value(draw)
    return document


def _swapped(draw: random.Random, document: Any) -> Any:
    first, second = _pick(draw, document), _pick(draw, document)
    if not first or not second or first[: len(second)] == second or second[: len(first)] == first:
        return document
    one, other = _at(document, first), _at(document, second)
    return _put(_put(document, first, copy.deepcopy(other)), second, copy.deepcopy(one))


def _a_list_changed(draw: random.Random, document: Any) -> Any:
    path = _pick(draw, document, _of_type(list))
    if path is None:
        return document
    values = list(_at(document, path))
    kind = draw.randrange(5)
    if kind == 0:
        values = []
    elif kind == 1:
        draw.shuffle(values)
    elif kind == 2:
        values = values * draw.choice((2, 3, 50))
    elif kind == 3 and values:
        values.insert(draw.randrange(len(values) + 1), copy.deepcopy(draw.choice(values)))
    else:
        values.append(hostile_value(draw))
    return _put(document, path, values)


def _nested(draw: random.Random, document: Any) -> Any:
    path = _pick(draw, document)
    depth = draw.choice((20, 90, 500, 3000, 100_000))
    opening, closing = draw.choice((("[", "]"), ('{"a":', "}"), ('[{"type":', "}]")))
    return document if path is None else _put(document, path, Raw(opening * depth + "1" + closing * depth))


def _inside_itself(draw: random.Random, document: Any) -> Any:
    """Puts a part of the document below itself, as decoders, normalizers and settings may be nested."""
    path = _pick(draw, document, _of_type(dict))
    if not path:
        return document
    part = _at(document, path)
    key = draw.choice(list(part)) if part else "a"
    return _put(document, path, {**part, key: copy.deepcopy(part)})


JSON_KINDS: dict[str, Callable[[random.Random, Any], Any]] = {
    "another type": _another_type,
    "another number": _another_number,
    "another string": _another_string,
    "lacking": _lacking,
    "a key twice": _a_key_twice,
    "a strange key": _a_strange_key,
    "swapped": _swapped,
    "a list changed": _a_list_changed,
    "nested": _nested,
    "inside itself": _inside_itself,
}
"""What can be done to any JSON document, by name."""


def change_json(draw: random.Random, document: Any) -> Any:
    """Returns a document with one change somewhere in it, of a kind that is drawn."""
    name = draw.choices(list(JSON_KINDS), weights=[5, 5, 4, 3, 1, 2, 2, 2, 1, 1])[0]
    return JSON_KINDS[name](draw, document)


# --- bytes and text -------------------------------------------------------------------------------------------------


def bytes_changed(draw: random.Random, data: bytes) -> bytes:
    """Returns the bytes truncated, with bits flipped, a stretch doubled, removed or filled, or more behind them."""
    if not data:
        return bytes(draw.randrange(256) for _ in range(draw.randrange(64)))
    start = draw.randrange(len(data))
    length = draw.choice((1, 2, 4, 8, 64, 1000))
    kind = draw.randrange(8)
    if kind == 0:
        return data[:start]
    if kind == 1:
        changed = bytearray(data)
        for _ in range(draw.choice((1, 1, 2, 8))):
            changed[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        return bytes(changed)
    if kind == 2:
        return data[:start] + data[start : start + length] * 2 + data[start + length :]
    if kind == 3:
        return data[:start] + data[start + length :]
    if kind == 4:
        return (
            data[:start]
            + bytes([draw.choice((0, 255, 128, 10))]) * min(length, len(data) - start)
            + data[start + length :]
        )
    if kind == 5:
        return data + draw.choice((b"\0", b"\n", b"}", b"\xff" * 100, data[:start]))
    if kind == 6:
        return draw.choice((b"", b"\xef\xbb\xbf", b"\xff\xfe", b"\0", b" ", b"PK\x03\x04", b"\x80\x04")) + data
    number = draw.choice((0, 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1, draw.randrange(2**16))).to_bytes(8, "little")
    return data[:start] + number[:length] + data[start + min(length, 8) :]


def spliced(draw: random.Random, data: bytes, other: bytes) -> bytes:
    """Returns the beginning of one document and the end of another."""
    return data[: draw.randrange(len(data) + 1)] + other[draw.randrange(len(other) + 1) :]


def text_changed(draw: random.Random, data: bytes) -> bytes:
    """Returns a text with its lines in another order, or in another encoding, or with other ends of lines."""
    lines = data.split(b"\n")
    place = draw.randrange(len(lines))
    kind = draw.randrange(9)
    if kind == 0:
        draw.shuffle(lines)
    elif kind == 1:
        lines.insert(place, draw.choice(lines))
    elif kind == 2:
        del lines[place]
    elif kind == 3:
        lines[place] = hostile_string(draw).encode("utf-8", "surrogatepass")
    elif kind == 4:
        return data.replace(b"\n", draw.choice((b"\r", b"\r\n", b"\x0b", b"\x0c", b"\xc2\x85", b"\xe2\x80\xa8", b"")))
    elif kind == 5:
        return data.decode("utf-8", "replace").encode(
            draw.choice(("utf-16", "utf-16-le", "utf-32", "utf-7", "cp037")), "replace"
        )
    elif kind == 6:
        lines[place] = lines[place] + draw.choice((b" ", b"\t", b"\0", b"\xc2\xa0", b"\xed\xa0\x80", b"\xff"))
    elif kind == 7:
        lines[place] = lines[place][:2000] * draw.choice((2, 100, 3000))
    else:
        lines[place] = b" " * draw.choice((1, 5, 1000)) + lines[place]
    return b"\n".join(lines)


# --- files ----------------------------------------------------------------------------------------------------------


def place_oddly(draw: random.Random, path: Path) -> None:
    """Puts something else in a file's place: nothing, a folder, a link to nowhere, to itself or a device, a pipe."""
    kept = path.read_bytes() if path.is_file() else b""
    path.unlink(missing_ok=True)
    kind = draw.randrange(8)
    if kind == 0:
        path.write_bytes(b"")
    elif kind == 1:
        path.mkdir()
    elif kind == 2:
        path.symlink_to(path.name)
    elif kind == 3:
        path.symlink_to(path.parent / "nowhere")
    elif kind == 4:
        path.symlink_to(draw.choice(("/dev/zero", "/dev/full", "/proc/self/mem", "/", "/etc/passwd", "..")))
    elif kind == 5:
        os.mkfifo(path)
    elif kind == 6:
        (path.parent / f"{path.name}.real").write_bytes(kept)
        path.symlink_to(f"{path.name}.real")


def apply(draw: random.Random, kinds: Sequence[tuple[str, int]], pending: frozenset[str], most: int = 3) -> list[str]:
    """Draws which kinds of change an input gets: none now and then, mostly one.

    Args:
        draw: What is drawn with.
        kinds: The kinds and how often each is drawn, relative to the others.
        pending: Kinds that are left out, since what they find is known.
        most: Changes at most.
    """
    names = [name for name, _ in kinds if name not in pending]
    weights = [weight for name, weight in kinds if name not in pending]
    count = draw.choices(range(most + 1), weights=[1, 12, 5, 2][: most + 1])[0]
    return draw.choices(names, weights=weights, k=count)
