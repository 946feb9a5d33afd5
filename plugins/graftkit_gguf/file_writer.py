"""Writes a GGUF file with one tensor in memory at a time."""

from __future__ import annotations

import shutil
import struct
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType, GGUFValueType, GGUFWriter

__all__ = ["StoredTensor", "write_gguf"]

StoredTensor = tuple[str, tuple[int, ...], str, np.ndarray[Any, Any]]
"""A tensor's name, its shape as `[out, in]` or `[size]`, its type in lower case, and its bytes."""

_ALIGNMENT = 32


def write_gguf(path: Path, metadata: Mapping[str, Any], tensors: Iterable[StoredTensor]) -> int:
    """Writes a file and returns the bytes of its tensors.

    Tensors are written beside it as they come, since a GGUF file lists them all before the first.

    Args:
        path: The file to write.
        metadata: Key -> a string, a whole number, a number, a boolean, bytes, or a list of strings, of numbers or of
            whole numbers; "general.architecture" among them.
        tensors: The tensors.
    """
    values = dict(metadata)
    writer = _Writer(path, values.pop("general.architecture"))
    for key, value in values.items():
        _add(writer, key, value)
    total = 0
    with tempfile.TemporaryFile(dir=path.parent) as data:
        for name, shape, type_, stored in tensors:
            writer.add_tensor_info(
                name, shape, np.dtype(np.float32), stored.nbytes, GGMLQuantizationType[type_.upper()]
            )
            data.write(stored.data)
            data.write(bytes(-stored.nbytes % _ALIGNMENT))
            total += stored.nbytes
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        assert writer.fout is not None
        [out] = writer.fout
        out.write(bytes(-out.tell() % _ALIGNMENT))
        data.seek(0)
        shutil.copyfileobj(data, out, 1 << 22)
    writer.close()
    return total


def _add(writer: GGUFWriter, key: str, value: Any) -> None:
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    elif len(value):
        writer.add_array(key, value if isinstance(value, bytes) else list(value))
    else:
        writer.add_key_value(key, [], GGUFValueType.ARRAY, GGUFValueType.STRING)


_NUMBERS = {int: (GGUFValueType.INT32, "<i4"), float: (GGUFValueType.FLOAT32, "<f4")}


class _Writer(GGUFWriter):  # type: ignore[misc]
    """A writer that writes lists at once, and empty ones: llama.cpp looks for merges where a tokenizer has none."""

    def _pack_val(self, val: Any, vtype: Any, add_vtype: bool, sub_type: Any = None) -> bytes:
        if vtype == GGUFValueType.ARRAY and isinstance(val, bytes):
            return struct.pack("<IIQ", vtype, GGUFValueType.UINT8, len(val)) + val
        if vtype == GGUFValueType.ARRAY and (not len(val) or isinstance(val[0], str)):
            texts = [text.encode() for text in val]
            parts = [part for text in texts for part in (len(text).to_bytes(8, "little"), text)]
            return struct.pack("<IIQ", vtype, GGUFValueType.STRING, len(texts)) + b"".join(parts)
        if vtype == GGUFValueType.ARRAY and type(val[0]) in _NUMBERS:
            number, form = _NUMBERS[type(val[0])]
            return struct.pack("<IIQ", vtype, number, len(val)) + np.array(val, form).tobytes()
        packed: bytes = super()._pack_val(val, vtype, add_vtype, sub_type)
        return packed
