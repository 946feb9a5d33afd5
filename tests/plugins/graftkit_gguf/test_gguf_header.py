"""GGUF headers: what the reference reader finds, and files that mean no good."""

from __future__ import annotations

import os
import struct
import tracemalloc
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import gguf
import numpy as np
import pytest
from gguf.constants import GGML_QUANT_SIZES
from gguf.quants import _type_traits
from graftkit.errors import ModelError
from graftkit_gguf.header import HEADER_LIMIT, GgufHeader, read_header
from graftkit_gguf.tensor_types import GGML_TYPES, READABLE_TYPES
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

HUGE = 2**64 - 1


def string(text: str | bytes) -> bytes:
    raw = text if isinstance(text, bytes) else text.encode()
    return struct.pack("<Q", len(raw)) + raw


def entry(key: str | bytes, type_: int, payload: bytes) -> bytes:
    return string(key) + struct.pack("<I", type_) + payload


def array_of(type_: int, count: int, payload: bytes = b"") -> bytes:
    return struct.pack("<IQ", type_, count) + payload


def record(name: str | bytes, shape: Sequence[int] = (8,), type_: int = 0, offset: int = 0) -> bytes:
    return string(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, type_, offset)


def file_of(entries: Sequence[bytes] = (), records: Sequence[bytes] = (), data: int = 0, version: int = 3) -> bytes:
    head = struct.pack("<4sIQQ", b"GGUF", version, len(records), len(entries)) + b"".join((*entries, *records))
    return head + bytes(-len(head) % 32 + data)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "stranger.gguf"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A valid file with a value of every type and tensors of several."""
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_uint8("t.u8", 200)
    writer.add_int8("t.i8", -100)
    writer.add_uint16("t.u16", 60_000)
    writer.add_int16("t.i16", -30_000)
    writer.add_uint32("t.u32", 4_000_000_000)
    writer.add_int32("t.i32", -2_000_000_000)
    writer.add_uint64("t.u64", 2**63)
    writer.add_int64("t.i64", -(2**62))
    writer.add_float32("t.f32", 1e-5)
    writer.add_float64("t.f64", 0.1)
    writer.add_bool("t.bool", True)
    writer.add_string("t.text", "zwölf Ωmega 🐍")
    writer.add_array("t.texts", ["a", "", "日本"])
    writer.add_array("t.numbers", [1, -2, 3])
    writer.add_array("t.floats", [0.5, -0.25])
    writer.add_tensor("one", np.arange(12, dtype=np.float32).reshape(3, 4))
    writer.add_tensor("half", np.arange(7, dtype=np.float16))
    writer.add_tensor(
        "packed", np.zeros((2, 34), np.uint8), raw_dtype=gguf.GGMLQuantizationType.Q8_0, raw_shape=(2, 34)
    )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_metadata_equals_the_reference_readers(tiny: Path) -> None:
    metadata = read_header(tiny).metadata
    fields = gguf.GGUFReader(tiny).fields
    assert {key: field.contents() for key, field in fields.items() if not key.startswith("GGUF.")} == {
        key: value if isinstance(value, (bool, int, float, str)) else list(value) for key, value in metadata.items()
    }


def test_tensors_equal_the_reference_readers(tiny: Path) -> None:
    found = {
        name: (tensor.shape, tensor.type.name, tensor.offset, tensor.nbytes)
        for name, tensor in read_header(tiny).tensors.items()
    }
    assert found == {
        tensor.name: (tuple(tensor.shape), tensor.tensor_type.name, tensor.data_offset, tensor.n_bytes)
        for tensor in gguf.GGUFReader(tiny).tensors
    }


def test_version_2_is_read_like_version_3(tiny: Path, path: Path) -> None:
    path.write_bytes(b"GGUF\2\0\0\0" + tiny.read_bytes()[8:])
    assert read_header(path).version == 2
    assert read_header(path).tensors == read_header(tiny).tensors


def test_the_table_of_types_is_the_reference_librarys() -> None:
    for number, type_ in GGML_TYPES.items():
        reference = gguf.GGMLQuantizationType(number)
        assert (type_.name, (type_.block, type_.nbytes)) == (reference.name, GGML_QUANT_SIZES[reference])
    assert {type_.name for type_ in _type_traits} | {"F32", "F16"} >= READABLE_TYPES


def test_text_that_is_no_utf8_is_kept_in_a_value_and_refused_in_a_key(path: Path) -> None:
    path.write_bytes(file_of([entry("a", 8, string(b"\xff\xfe")), entry("b", 9, array_of(8, 1, string(b"\xc3")))]))
    assert read_header(path).metadata == {"a": "\udcff\udcfe", "b": ["\udcc3"]}
    path.write_bytes(file_of([entry(b"\xff", 8, string("x"))]))
    with pytest.raises(ModelError, match="a metadata key is no UTF-8"):
        read_header(path)


HOSTILE = {
    "no GGUF file": b"PK\3\4" + bytes(100),
    "version 1 is not supported": file_of(version=1),
    "version 4 is not supported": file_of(version=4),
    "big-endian": file_of(version=3 << 24),
    "the file is empty": b"",
    "claims 100,001 tensors": struct.pack("<4sIQQ", b"GGUF", 3, 100_001, 0) + bytes(4_000_000),
    "tensors, more than fit": struct.pack("<4sIQQ", b"GGUF", 3, 5, 0) + bytes(100),
    "claims 100,001 metadata keys": struct.pack("<4sIQQ", b"GGUF", 3, 0, 100_001) + bytes(2_000_000),
    "metadata keys, more than fit": struct.pack("<4sIQQ", b"GGUF", 3, 0, 50) + bytes(100),
    "number of tensors would end": b"GGUF\3\0\0\0\1",
    "a metadata key is 0 bytes": file_of([entry("", 4, bytes(4))]),
    "a metadata key is 65,536 bytes": file_of([entry("k" * 65_536, 4, bytes(4))]),
    "key 'k' occurs twice": file_of([entry("k", 4, bytes(4))] * 2),
    "'k' is of the unknown type 13": file_of([entry("k", 13, bytes(8))]),
    "'k' is a boolean of the value 2": file_of([entry("k", 7, b"\2")]),
    "'k' would end at byte": file_of([entry("k", 8, struct.pack("<Q", HUGE))]),
    "'k' claims 18,446,744,073,709,551,615 elements": file_of([entry("k", 9, array_of(4, HUGE))]),
    "'k' is an array of arrays": file_of([entry("k", 9, array_of(9, 1, array_of(4, 1, bytes(4))))]),
    "'k' is an array of the unknown type 99": file_of([entry("k", 9, array_of(99, 1, bytes(8)))]),
    "element 1 of 2 doesn't fit": file_of([entry("k", 9, array_of(8, 2, string("a") + struct.pack("<Q", HUGE)))]),
    "more than 2,000,000 elements": file_of([entry(k, 9, array_of(0, 1_200_000, bytes(1_200_000))) for k in "ab"]),
    "general.alignment is 0": file_of([entry("general.alignment", 4, struct.pack("<I", 0))]),
    "general.alignment is 2147483648": file_of([entry("general.alignment", 4, struct.pack("<I", 2**31))]),
    "general.alignment is 48, which is no power": file_of([entry("general.alignment", 4, struct.pack("<I", 48))]),
    "general.alignment is '32'": file_of([entry("general.alignment", 8, string("32"))]),
    "a tensor's name is 65 bytes": file_of(records=[record("x" * 65)], data=32),
    "a tensor's name is no UTF-8": file_of(records=[record(b"\xff")], data=32),
    "'x' occurs twice": file_of(records=[record("x"), record("x", offset=32)], data=64),
    "'x' has 0 dimensions": file_of(records=[record("x", ())], data=32),
    "'x' has 5 dimensions": file_of(records=[record("x", (1,) * 5)], data=32),
    "the impossible shape [8, 0]": file_of(records=[record("x", (8, 0))], data=32),
    "the impossible shape [4294967296, 4294967296]": file_of(records=[record("x", (2**32, 2**32))], data=32),
    "'x' is of the unknown type 4": file_of(records=[record("x", type_=4)], data=32),
    "rows of 33, no multiple of the 32 of Q8_0": file_of(records=[record("x", (33,), 8)], data=99),
    "'x' is not aligned to 32": file_of(records=[record("x", offset=16)], data=64),
    "'x' ends at byte": file_of(records=[record("x", (9,))], data=32),
    "'x' ends at byte 18,446,744,073,709": file_of(records=[record("x", offset=2**64 - 32)], data=32),
    "'x' and 'y' overlap": file_of(records=[record("y", offset=32), record("x", (16,))], data=64),
}


@pytest.mark.parametrize("message", HOSTILE)
def test_a_file_that_lies_is_refused_with_its_name_and_what_is_wrong(path: Path, message: str) -> None:
    path.write_bytes(HOSTILE[message])
    with pytest.raises(ModelError) as caught:
        read_header(path)
    assert message in caught.value.message
    assert caught.value.where == str(path)


def test_a_damaged_file_is_to_be_downloaded_again(path: Path) -> None:
    path.write_bytes(file_of(records=[record("x", (9,))], data=32))
    with pytest.raises(ModelError) as caught:
        read_header(path)
    assert "download it again" in caught.value.hint


def test_a_header_beyond_the_limit_is_refused(path: Path) -> None:
    path.write_bytes(file_of([entry("k", 8, struct.pack("<Q", HEADER_LIMIT))]))
    with path.open("r+b") as file:
        file.truncate(2 * HEADER_LIMIT)
    with pytest.raises(ModelError, match="but a header may take 67,108,864 bytes at most"):
        read_header(path)


@pytest.mark.parametrize("name", ["missing.gguf", ".", "nul\0byte", "long" * 1000])
def test_what_is_no_file_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ModelError):
        read_header(tmp_path / name)


def test_every_cut_of_a_file_is_refused(tiny: Path, path: Path) -> None:
    path.write_bytes(tiny.read_bytes())
    end = max(tensor.offset + tensor.nbytes for tensor in read_header(tiny).tensors.values())
    with path.open("r+b") as file:
        for cut in reversed(range(end)):
            file.truncate(cut)
            with pytest.raises(ModelError):
                read_header(path)


def outcome(path: Path) -> GgufHeader | None:
    """Reads a header; anything but success or a `ModelError` fails the test."""
    try:
        return read_header(path)
    except ModelError as error:
        assert len(str(error)) < 2000
        return None


def test_no_lie_about_a_length_does_more_than_be_refused(tiny: Path, path: Path) -> None:
    whole = tiny.read_bytes()
    first = min(tensor.offset for tensor in read_header(tiny).tensors.values())
    path.write_bytes(whole)
    tracemalloc.start()
    with path.open("r+b", buffering=0) as file:
        for lie, position in product((0, 1, len(whole), 2**31, 2**32, 2**63, HUGE), range(4, first - 8)):
            os.pwrite(file.fileno(), struct.pack("<Q", lie), position)
            outcome(path)
            os.pwrite(file.fileno(), whole[position : position + 8], position)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * 2**20


@settings(max_examples=300, deadline=1000, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=8))
def test_no_flipped_byte_does_more_than_be_refused(tiny: Path, path: Path, flips: list[tuple[float, int]]) -> None:
    changed = bytearray(tiny.read_bytes())
    for place, byte in flips:
        changed[int(place * len(changed))] = byte
    path.write_bytes(changed)
    outcome(path)


@settings(max_examples=200, deadline=1000, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rest=st.binary(max_size=400))
def test_no_random_bytes_do_more_than_be_refused(path: Path, rest: bytes) -> None:
    path.write_bytes(b"GGUF\3\0\0\0" + rest)
    outcome(path)
