"""A safetensors header is believed only where all of it fits, in bounded time and memory."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from graftkit.errors import ModelError
from graftkit_models.safetensors_header import MAX_HEADER, MAX_TENSORS, StoredTensor, read_header
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

A = {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}
B = {"dtype": "U8", "shape": [4], "data_offsets": [24, 28]}


def stored(header: Any, data: bytes = bytes(28), *, length: int | None = None) -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw) if length is None else length) + raw + data


def header_of(tmp_path: Path, content: bytes) -> dict[str, StoredTensor]:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    return read_header(path)


def refusal(tmp_path: Path, content: bytes) -> str:
    with pytest.raises(ModelError) as caught:
        header_of(tmp_path, content)
    assert caught.value.where == str(tmp_path / "model.safetensors")
    assert caught.value.hint == "Download or copy the file again."
    return caught.value.message


def test_every_tensor_is_found_at_its_place(tmp_path: Path) -> None:
    content = stored({"b": B, "__metadata__": {"format": "pt"}, "a": A})
    start = len(content) - 28
    assert header_of(tmp_path, content) == {
        "a": StoredTensor((2, 3), "F32", start, start + 24),
        "b": StoredTensor((4,), "U8", start + 24, start + 28),
    }


def test_it_reads_what_the_library_writes(tmp_path: Path) -> None:
    arrays = {
        "scalar": np.array(1.5, dtype=np.float64),
        "empty": np.zeros((0, 3), dtype=np.float32),
        "a": np.arange(6, dtype=np.float16).reshape(2, 3),
        "flags": np.array([True, False]),
        "ü": np.arange(4, dtype=np.int64),
    }
    content = save(arrays, metadata={"format": "np"})
    found = header_of(tmp_path, content)
    assert {name: tensor.shape for name, tensor in found.items()} == {n: array.shape for n, array in arrays.items()}
    for name, array in arrays.items():
        assert content[found[name].start : found[name].end] == array.tobytes()


def test_a_truncated_file_is_refused_at_every_cut(tmp_path: Path) -> None:
    content = stored({"a": A, "b": B})
    for cut in range(len(content)):
        assert "truncated" in refusal(tmp_path, content[:cut])


def test_bytes_after_the_last_tensor_are_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path, stored({"a": A, "b": B}, bytes(31))) == "3 bytes follow its last tensor"


@pytest.mark.parametrize("length", [0, 1 << 63, (1 << 64) - 1, MAX_HEADER + 1, 200])
def test_an_impossible_length_is_refused_before_anything_is_read(tmp_path: Path, length: int) -> None:
    assert "length is impossible" in refusal(tmp_path, stored({"a": A, "b": B}, length=length))


def test_a_huge_file_with_a_huge_header_is_refused_at_once(tmp_path: Path) -> None:
    with (tmp_path / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", 1 << 39))
        file.truncate(1 << 40)
    with pytest.raises(ModelError, match="length is impossible"):
        read_header(tmp_path / "model.safetensors")


@pytest.mark.parametrize(
    "header",
    [b"{", b"\xff\xfe", b"[" * 100_000, b'{"a": ' + b"9" * 5000 + b"}", b"{}{}", b'{"a": {}, "a": {}}', b"hello"],
    ids=lambda header: repr(header[:10]),
)
def test_a_header_that_is_no_json_is_refused(tmp_path: Path, header: bytes) -> None:
    assert "its header is no JSON" in refusal(tmp_path, stored(header))


@pytest.mark.parametrize("header", [b"[]", b"null", b"3", b'"a"'])
def test_a_header_that_is_no_object_is_refused(tmp_path: Path, header: bytes) -> None:
    assert "its header is no JSON object" in refusal(tmp_path, stored(header))


def test_a_key_that_stands_twice_is_refused_at_any_depth(tmp_path: Path) -> None:
    entry = b'{"dtype": "U8", "shape": [28], "shape": [28], "data_offsets": [0, 28]}'
    assert "a key stands in it twice" in refusal(tmp_path, stored(b'{"a": ' + entry + b"}"))


@pytest.mark.parametrize(
    "change",
    [
        {"shape": [-2, -3]},
        {"shape": [2.0, 3]},
        {"shape": [True, 6]},
        {"shape": "23"},
        {"shape": 6},
        {"shape": None},
        {"shape": {"2": 3}},
        {"shape": [[2], 3]},
        {"shape": [2, 3, 1, 1, 1, 1, 1, 1, 1]},
        {"shape": [1 << 63, 0], "data_offsets": [0, 0]},
        {"dtype": "F31"},
        {"dtype": None},
        {"dtype": ["F32"]},
        {"data_offsets": [0]},
        {"data_offsets": [0, 24, 24]},
        {"data_offsets": [-24, 0]},
        {"data_offsets": [0, 24.0]},
        {"data_offsets": ["0", "24"]},
        {"data_offsets": [None, None]},
        {"data_offsets": "ab"},
        {"data_offsets": None},
        {"data_offsets": [0, 10**4000]},
        {"data_offsets": [10**4299 * 9, 10**4299 * 9 + 24]},
    ],
    ids=lambda change: str(change)[:50],
)
def test_an_entry_of_another_form_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    assert refusal(tmp_path, stored({"a": {**A, **change}, "b": B})) == "its entry for tensor 'a' is malformed"


@pytest.mark.parametrize("entry", [None, [], "a", 3, {}, {"dtype": "F32"}, {**A, "shape": []}])
def test_an_entry_that_says_too_little_is_refused(tmp_path: Path, entry: object) -> None:
    assert "tensor 'a'" in refusal(tmp_path, stored({"a": entry, "b": B}))


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 24]},
        {"dtype": "F16", "shape": [2, 3], "data_offsets": [0, 24]},
        {"dtype": "F32", "shape": [2, 3], "data_offsets": [24, 0]},
        {"dtype": "F32", "shape": [0, 3], "data_offsets": [0, 24]},
        {"dtype": "U8", "shape": [1 << 40, 1 << 40], "data_offsets": [0, 24]},
    ],
    ids=str,
)
def test_a_shape_that_does_not_take_its_bytes_is_refused(tmp_path: Path, entry: dict[str, Any]) -> None:
    message = refusal(tmp_path, stored({"a": entry, "b": B}))
    assert message.startswith("tensor 'a': shape ") and "does not take" in message


@pytest.mark.parametrize(
    ("first", "second"),
    [([0, 4], [4, 28]), ([0, 24], [20, 24]), ([0, 24], [25, 29]), ([1, 25], [25, 29]), ([0, 24], [0, 4])],
)
def test_tensors_that_overlap_or_leave_a_gap_are_refused(tmp_path: Path, first: list[int], second: list[int]) -> None:
    entries = {
        name: {"dtype": "U8", "shape": [place[1] - place[0]], "data_offsets": place}
        for name, place in (("a", first), ("b", second))
    }
    if (first, second) == ([0, 4], [4, 28]):
        assert len(header_of(tmp_path, stored(entries))) == 2
    else:
        assert "does not follow the one before it" in refusal(tmp_path, stored(entries))


def test_more_tensors_than_any_model_has_are_refused(tmp_path: Path) -> None:
    empty = {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}
    header = {str(number): empty for number in range(MAX_TENSORS + 1)}
    assert f"{MAX_TENSORS + 1:,} tensors" in refusal(tmp_path, stored(header, b""))


def test_a_file_that_cannot_be_opened_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "missing", tmp_path):
        with pytest.raises(ModelError, match=r"can't be read|no regular file"):
            read_header(path)


_SMALL = st.integers(-2, 40) | st.sampled_from([1 << 62, 1 << 64, 2.0, True, None, "0"])
_ENTRIES = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "U8", "BF16", "X", 3]),
        "shape": st.lists(_SMALL, max_size=3),
        "data_offsets": st.lists(_SMALL, max_size=3),
    }
)


@settings(max_examples=200)
@given(st.dictionaries(st.text(max_size=3), _ENTRIES | st.none(), max_size=3))
def test_no_header_raises_anything_but_a_model_error(
    tmp_path_factory: pytest.TempPathFactory, header: dict[str, Any]
) -> None:
    try:
        found = header_of(tmp_path_factory.getbasetemp(), stored(header))
    except ModelError:
        return
    assert sum(tensor.end - tensor.start for tensor in found.values()) == 28
