"""Exports, and the probes that they are proved with: read, compared with their manifest, loaded and proved."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

from graftkit.errors import ExportError, GraftkitError, named
from graftkit.flow.answering.reload import reload
from graftkit.flow.base_files.recreate import InstalledProviders
from graftkit.flow.exports.check_export import check_export
from graftkit.flow.exports.probes import Probes
from graftkit.flow.verify import check_files
from graftkit.testing import isolated_host

from hostile.generators.adapters import _change_document, _change_providers, _put
from hostile.mutate import apply, bytes_changed, change_json, dumped, hostile_string, hostile_value, place_oddly
from hostile.originals import change_tensor_file, list_again, original_run

NAMED = ("original/model",)
"""The base model, whose place is a part of its own errors."""

PENDING: frozenset[str] = frozenset()

_KINDS = [
    ("manifest", 8),
    ("providers", 5),
    ("list of files", 5),
    ("probes", 8),
    ("assets", 6),
    ("a document", 6),
    ("tensors", 6),
    ("code", 2),
    ("bytes", 3),
    ("another file", 2),
    ("place", 3),
]
_run = Path()
_host: Any = None


def prepare(folder: Path) -> None:
    global _run, _host
    _run, _host = original_run(folder), isolated_host()


def make(draw: random.Random, folder: Path) -> list[str]:
    kinds = apply(draw, _KINDS, PENDING)
    name = draw.choice(("peft", "merged"))
    export = _copy(folder, name)
    probes = folder / "probes.safetensors"
    manifest: Any = json.loads((export / "graftkit.json").read_bytes())
    tensors = {"peft": "adapter_model.safetensors", "merged": "model.safetensors"}[name]
    documents = sorted(path.name for path in export.glob("*.json") if path.name != "graftkit.json")
    listed = draw.random() < 0.9
    for kind in kinds:
        if kind == "manifest":
            manifest = change_json(draw, manifest)
        elif kind == "providers" and isinstance(manifest, dict):
            _change_providers(draw, manifest)
            if isinstance(manifest.get("exporter"), dict) and draw.random() < 0.4:
                manifest["exporter"][draw.choice(("target", "config_class", "config"))] = draw.choice(
                    ("os:system", hostile_value(draw))
                )
        elif kind == "probes":
            change_tensor_file(draw, probes)
        elif kind == "assets":
            _change_assets(draw, probes)
        elif kind == "a document":
            _change_document(draw, export / draw.choice(documents))
        elif kind == "tensors":
            change_tensor_file(draw, export / tensors)
        elif kind == "code":
            _put(
                export / draw.choice(documents),
                draw.choice(("auto_map", "auto_mapping", "custom_generate")),
                {"AutoConfig": "evil.Config"},
            )
        elif kind == "bytes":
            path = draw.choice((export / draw.choice(documents), export / tensors, probes))
            path.write_bytes(bytes_changed(draw, path.read_bytes()))
        elif kind == "another file":
            (export / draw.choice(("evil_config.json", "x.py", "sub/config.json"))).parent.mkdir(exist_ok=True)
            (export / draw.choice(("evil_config.json", "x.py"))).write_bytes(b"{" * 50)
    if listed:
        list_again(export, manifest, "files", "graftkit.json")
    if "list of files" in kinds and isinstance(manifest, dict) and isinstance(manifest.get("files"), dict):
        _change_list(draw, manifest["files"])
    (export / "graftkit.json").write_bytes(dumped(manifest).encode("utf-8", "surrogatepass"))
    if "place" in kinds:
        place_oddly(
            draw, draw.choice((export / "graftkit.json", export / draw.choice(documents), export / tensors, probes))
        )
    return kinds


def _copy(folder: Path, name: str) -> Path:
    shutil.copyfile(_run / "probes.safetensors", folder / "probes.safetensors")
    return Path(shutil.copytree(_run / "exports" / name, folder / "exports" / name))


def _change_list(draw: random.Random, files: dict[str, Any]) -> None:
    name = draw.choice(sorted(files))
    change = draw.randrange(4)
    if change == 0:
        files[
            draw.choice(("../../probes.safetensors", "/etc/passwd", "", ".", "a\0b", "x" * 5000, hostile_string(draw)))
        ] = files[name]
    elif change == 1:
        files[name] = hostile_value(draw)
    elif change == 2:
        files[name] = change_json(draw, dict(files[name]))
    else:
        del files[name]


def _change_assets(draw: random.Random, probes: Path) -> None:
    """Changes what the tokenizer and the settings are compared with, which is JSON inside of the header."""
    data = probes.read_bytes()
    length = int.from_bytes(data[:8], "little")
    try:
        header = json.loads(data[8 : 8 + length])
        assets: dict[str, Any] = json.loads(header["__metadata__"]["assets"])
        short = {key: value[:3] if isinstance(value, list) else value for key, value in assets.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):  # changed before
        return
    assets = change_json(draw, short)
    header["__metadata__"]["assets"] = dumped(assets)
    text = dumped(header).encode("utf-8", "surrogatepass")
    probes.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])


def valid(folder: Path) -> None:
    _copy(folder, "peft")


def read(folder: Path) -> None:
    (export,) = (folder / "exports").iterdir()
    check_files(export)
    reload(str(export), _host)
    probes = Probes.load(folder / "probes.safetensors")
    assert len(probes.ids) == len(probes.logits) == len(probes.positions)
    try:
        with named(str(export)):
            check_export(export, folder / "probes.safetensors", InstalledProviders(_host).make)
    except GraftkitError:
        raise
    except Exception as error:  # as the process that asks for the proof says it
        raise ExportError(f"it can't be loaded again: {type(error).__name__}", where=str(export)) from None
