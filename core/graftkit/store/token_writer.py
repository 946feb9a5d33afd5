"""Writes a token store piece by piece, so that it need not fit into memory and a kill loses little."""

from __future__ import annotations

import json
import os
import shutil
import zlib
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

import numpy as np

from graftkit.errors import StorageError
from graftkit.interfaces.bounded_json import parse_json
from graftkit.interfaces.regular_file import open_regular, read_regular
from graftkit.store.array_file import map_arrays, read_metadata, write_arrays
from graftkit.store.files import write_json
from graftkit.store.system import guarded, make_folder, open_in_place, sync_folder
from graftkit.store.token_store import ARRAYS, BY_EXAMPLE, BY_TOKEN, TokenStore, file_order

__all__ = ["TokenWriter", "find_store"]

PROGRESS = "progress.json"
_CHUNK = 1 << 20


class TokenWriter:
    """A store that grows in a folder of its own: a file an array, and a small JSON file that says how far it came.

    What was appended after the last `checkpoint` is forgotten when the folder is taken up again.

    Args:
        folder: The folder; made where it is missing.
        key: What the tokens depend on. A folder with another key is begun anew, as is one that is damaged.

    Attributes:
        note: What the last checkpoint kept, or None where there is none.
        tokens: How many tokens there are.

    Raises:
        StorageError: The system refused.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self._folder = folder
        self._key = key
        with guarded(folder), ExitStack() as opened:
            make_folder(folder)
            progress = _progress(folder, key)
            self.note: Any = progress.get("note")
            types = {name: np.dtype(text) for name, text in progress.get("types", {}).items()}
            self._types: dict[str, np.dtype[Any]] = types or dict(ARRAYS)
            self._widths: dict[str, int] = progress.get("widths", {})
            sizes = progress.get("sizes", dict.fromkeys(self._types, 0))
            self._sums: dict[str, int] = progress.get("crc32", dict.fromkeys(self._types, 0))
            self._files = {name: opened.enter_context(_open_at(folder / name, sizes[name])) for name in self._types}
            opened.pop_all()
        self.tokens = sizes["ids"] // ARRAYS["ids"].itemsize
        self._begun = sizes["prompt_lengths"] > 0
        if not sizes["offsets"]:
            self._write("offsets", np.zeros(1, ARRAYS["offsets"]))

    def append(self, examples: TokenStore) -> None:
        """Adds examples at the end. The first ones say which columns all of them have.

        Raises:
            ValueError: They have other columns than those before them, or one of another type or width.
            StorageError: The system refused.
        """
        if not len(examples):
            return
        arrays = examples.arrays() | {"offsets": examples.offsets[1:] + self.tokens}
        types = {name: values.dtype for name, values in arrays.items()}
        widths = {name: values.shape[1] for name, values in arrays.items() if values.ndim > 1}
        if not self._begun:
            self._add_columns({name: dtype for name, dtype in types.items() if name not in ARRAYS}, widths)
        if types != self._types:
            raise ValueError(f"these examples have {_named(types)}, those before them {_named(self._types)}")
        if widths != self._widths:
            raise ValueError(f"these examples have columns of {widths} numbers, those before them of {self._widths}")
        for name, values in arrays.items():
            self._write(name, values)
        self.tokens += len(examples.ids)

    def _add_columns(self, types: Mapping[str, np.dtype[Any]], widths: Mapping[str, int]) -> None:
        with guarded(self._folder):
            self._files |= {name: _open_at(self._folder / name, 0) for name in types}
        self._sums |= dict.fromkeys(types, 0)
        self._types |= types
        self._widths |= widths
        self._begun = True

    def checkpoint(self, note: Any) -> None:
        """Makes sure that all examples so far are on the disk, and keeps a note of where they came from.

        Args:
            note: JSON; `note` is this when the folder is taken up again.

        Raises:
            StorageError: The system refused.
        """
        with guarded(self._folder):
            for file in self._files.values():
                file.flush()
                os.fsync(file.fileno())
            sync_folder(self._folder)
        sizes = {name: file.tell() for name, file in self._files.items()}
        self.note = note
        types = {name: dtype.str for name, dtype in self._types.items()}
        progress = {
            "key": self._key,
            "types": types,
            "widths": self._widths,
            "sizes": sizes,
            "crc32": self._sums,
            "note": note,
        }
        write_json(self._folder / PROGRESS, progress)

    @property
    def size(self) -> int:
        """How many bytes the examples so far take."""
        return sum(file.tell() for file in self._files.values())

    def seal(self, path: Path, metadata: Mapping[str, str]) -> None:
        """Writes the store as one file, with a checksum of each array in its header; the folder stays as it is.

        Raises:
            StorageError: The system refused.
        """
        arrays = []
        for name, dtype in sorted(self._types.items(), key=lambda item: file_order(*item)):
            self._files[name].flush()
            count, width = self._files[name].tell() // dtype.itemsize, self._widths.get(name)
            arrays.append((name, dtype, (count,) if width is None else (count // width, width)))
        about = {**metadata, "key": self._key, "crc32": json.dumps(self._sums), "note": json.dumps(self.note)}
        write_arrays(path, arrays, self._copy, about)

    def close(self) -> None:
        """Closes the files."""
        for file in self._files.values():
            with guarded(self._folder):
                file.close()

    def _write(self, name: str, values: np.ndarray[Any, Any]) -> None:
        data = np.ascontiguousarray(values, self._types[name]).tobytes()
        self._sums[name] = zlib.crc32(data, self._sums[name])
        with guarded(self._folder / name):
            self._files[name].write(data)

    def _copy(self, name: str, target: IO[bytes]) -> None:
        with (self._folder / name).open("rb") as source:
            shutil.copyfileobj(source, target, _CHUNK)


def find_store(path: Path, key: str) -> Any:
    """Returns the note of a sealed store's last checkpoint, if the store has this key and is undamaged, else None."""
    try:
        about = read_metadata(path)
        sums = json.loads(about["crc32"])
        arrays = map_arrays(path, ARRAYS, (BY_TOKEN, BY_EXAMPLE))
        whole = about["key"] == key and {name: _crc32(values) for name, values in arrays.items()} == sums
        return json.loads(about["note"]) if whole else None
    except (StorageError, KeyError, TypeError, ValueError):
        return None


def _progress(folder: Path, key: str) -> dict[str, Any]:
    """Returns what the progress file says; nothing where the files beside it are not as it says."""
    try:
        progress: dict[str, Any] = parse_json(read_regular(folder / PROGRESS))
        whole = (
            progress["key"] == key
            and ARRAYS.keys() <= progress["types"].keys()
            and all(type(width) is int and width > 0 for width in progress.get("widths", {}).values())
            and all(
                _crc32_of(folder / name, progress["sizes"][name]) == progress["crc32"][name]
                for name in progress["types"]
            )
        )
    except (OSError, KeyError, TypeError, ValueError, AttributeError):
        return {}
    return progress if whole else {}


def _named(types: Mapping[str, np.dtype[Any]]) -> str:
    return ", ".join(f"{name} ({dtype})" for name, dtype in sorted(types.items()))


def _open_at(path: Path, size: int) -> IO[bytes]:
    """Opens a file to go on after so many bytes; what stands after them is dropped."""
    file = open_in_place(path, "r+b" if path.exists() else "w+b")
    file.truncate(size)
    file.seek(size)
    return file


def _crc32_of(path: Path, size: int) -> int:
    found, left = 0, size
    with open_regular(path) as file:
        while left:
            data = file.read(min(_CHUNK, left))
            if not data:
                return -1
            found, left = zlib.crc32(data, found), left - len(data)
    return found


def _crc32(array: np.ndarray[Any, Any]) -> int:
    found, flat = 0, array.reshape(-1)
    for start in range(0, len(flat), _CHUNK):
        found = zlib.crc32(flat[start : start + _CHUNK].tobytes(), found)
    return found
