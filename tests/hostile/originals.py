"""A finished run with its exports, made once and copied for each input that is a damaged part of it."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import random
import shutil
from pathlib import Path
from typing import Any

import graftkit
from graftkit.testing import isolated_host, tiny_model_folder, tiny_records

from hostile.mutate import bytes_changed, change_json, dumped

__all__ = ["CACHE", "change_tensor_file", "list_again", "original_run"]

CACHE = "HOSTILE_CACHE"
"""The environment variable with the folder that originals are kept in between processes."""


def original_run(folder: Path) -> Path:
    """Returns a run's folder, with the exports `peft` and `merged`.

    Args:
        folder: Where it is made unless there is a folder for all processes.
    """
    place = Path(os.environ.get(CACHE, folder)) / "original"
    with (place.parent / "lock").open("w") as lock:  # processes side by side make one
        fcntl.flock(lock, fcntl.LOCK_EX)
        return _made(place)


def _made(place: Path) -> Path:
    if not (place / "run" / "done").exists():
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        model = tiny_model_folder(
            place / "model", num_hidden_layers=1, hidden_size=32, intermediate_size=32, head_dim=8
        )
        (place / "records.jsonl").write_text("".join(json.dumps(row) + "\n" for row in tiny_records("chat", 20)))
        recipe = {
            "model": str(model),
            "data": {"train": str(place / "records.jsonl"), "holdout": 0.1, "max_length": 64},
            "adapter": {"use": "lora", "rank": 2},
            "training": {"steps": 2, "tokens_per_step": 128, "device": "cpu"},
            "export": ["peft", "merged"],
        }
        graftkit.run(recipe, out=place / "run", host=isolated_host())
        (place / "run" / "done").touch()
    return place / "run"


def change_tensor_file(draw: random.Random, path: Path) -> None:
    """Changes a safetensors file: its header's JSON, a tensor's name, shape, type or numbers, or its bytes."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    try:
        header, numbers = json.loads(data[8 : 8 + length]), data[8 + length :]
    except (ValueError, RecursionError):  # changed before
        header = None
    if not isinstance(header, dict) or not header or not all(isinstance(one, dict) for one in header.values()):
        path.write_bytes(bytes_changed(draw, data))
        return
    name = draw.choice(sorted(header))
    entry = header[name]
    change: int = draw.randrange(8)
    if change == 0:
        path.write_bytes(bytes_changed(draw, data))
        return
    if change == 1:
        header[draw.choice((f"{name}.x", name.upper(), name.replace("A", "B"), "", "model.embed_tokens"))] = header.pop(
            name
        )
    elif change == 2 and "shape" in entry:
        entry["shape"] = draw.choice((entry["shape"][::-1], [1, *entry["shape"]], [entry["data_offsets"][1] // 4], []))
    elif change == 3 and "dtype" in entry:
        entry["dtype"] = draw.choice(("I32", "F32", "BF16", "U8", "F8_E4M3"))
    elif change == 4:
        numbers = draw.choice((b"\x00\x00\xc0\x7f", b"\xff", b"\x00\x00\x80\x7f")) * len(numbers)
        numbers = numbers[: len(data) - 8 - length]
    elif change == 5:
        header["__metadata__"] = change_json(
            draw, {"format": "pt", "tokenizer_fingerprint": "abc", "assets": '{"texts": []}'}
        )
    elif change == 6:
        header = change_json(draw, header)
    else:
        numbers = draw.choice((numbers[:-4], b"", numbers + b"\0" * 4))
    text = dumped(header).encode("utf-8", "surrogatepass")
    path.write_bytes(len(text).to_bytes(8, "little") + text + numbers)


def list_again(folder: Path, manifest: Any, key: str, leave_out: str) -> None:
    """Puts the sizes and hashes of a folder's files into its manifest, as a stranger would who changed them.

    Args:
        folder: The folder.
        manifest: Its manifest, which is changed.
        key: Where in it they are listed.
        leave_out: The manifest's own name.
    """
    if isinstance(manifest, dict) and isinstance(manifest.get(key), dict):
        for path in sorted(folder.rglob("*")):
            name = path.relative_to(folder).as_posix()
            if path.is_file() and not path.is_symlink() and name != leave_out and name in manifest[key]:
                data = path.read_bytes()
                manifest[key][name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
