"""Folders of adapters: a run's own, and exports in PEFT's format; they are loaded on their base and answer."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

from graftkit.errors import named
from graftkit.flow.answering.reload import reload
from graftkit.testing import isolated_host

from hostile.mutate import apply, bytes_changed, change_json, dumped, hostile_value, place_oddly, spliced
from hostile.originals import change_tensor_file, list_again, original_run

NAMED = ("original", "chat_template")
"""The base model and the chat template, whose errors name themselves."""

PENDING: frozenset[str] = frozenset()

_KINDS = [
    ("manifest", 8),
    ("providers", 6),
    ("configuration of the adapter", 8),
    ("tensors", 8),
    ("tokenizer", 3),
    ("vocabulary", 4),
    ("code", 3),
    ("bytes", 4),
    ("place", 3),
    ("patterns that take long", 1),
]
_CHANGE: dict[str, Any] = {"kind": "extended", "size": 322, "ids": [320, 321], "parts": [[1, 2], [3]], "kept": None}
_TARGETS = (
    "os:system",
    "builtins:eval",
    "graftkit_adapters.lora:LoraAdapter",
    "",
    ":",
    "a:b:c",
    "no_such_module:X",
    "graftkit_exporters.merged:MergedExporter",
)
_run = Path()
_host: Any = None


def prepare(folder: Path) -> None:
    global _run, _host
    _run, _host = original_run(folder), isolated_host()


def _parts(of_run: bool) -> tuple[str, str, list[str], list[str], str]:
    """Returns the manifest's name, its list of files, the adapter's JSON and tensor files, the tokenizer's folder."""
    if of_run:
        return "manifest.json", "artifacts", ["adapter/adapter.json"], ["adapter/adapter.safetensors"], "tokenizer/"
    return "graftkit.json", "files", ["adapter_config.json"], ["adapter_model.safetensors"], ""


def make(draw: random.Random, folder: Path) -> list[str]:
    of_run = draw.random() < 0.5
    kinds = apply(draw, _KINDS, PENDING)
    _copy(folder, of_run)
    name, listing, documents, tensors, tokenizer = _parts(of_run)
    manifest: Any = json.loads((folder / name).read_bytes())
    for kind in kinds:
        if kind == "manifest":
            manifest = change_json(draw, manifest)
        elif kind == "providers" and isinstance(manifest, dict):
            _change_providers(draw, manifest.get("providers", manifest))
        elif kind == "configuration of the adapter":
            _change_document(draw, folder / draw.choice(documents))
        elif kind == "patterns that take long":
            _put(folder / documents[0], "target_modules", "(a+)+$")
        elif kind == "tensors":
            change_tensor_file(draw, folder / draw.choice(tensors))
        elif kind == "tokenizer":
            _change_document(draw, folder / f"{tokenizer}{draw.choice(('tokenizer.json', 'tokenizer_config.json'))}")
        elif kind == "vocabulary":
            (folder / "vocabulary.json").write_text(dumped(change_json(draw, json.loads(json.dumps(_CHANGE)))))
        elif kind == "code":
            _put(
                folder / documents[0],
                draw.choice(("auto_mapping", "auto_map", "custom_generate")),
                {"base_model_class": "evil.Model"},
            )
        elif kind == "bytes":
            path = folder / draw.choice((*documents, *tensors))
            path.write_bytes(
                draw.choice(
                    (bytes_changed(draw, path.read_bytes()), spliced(draw, path.read_bytes(), path.read_bytes()))
                )
            )
    if draw.random() < 0.9:
        list_again(folder, manifest, listing, name)
    (folder / name).write_bytes(dumped(manifest).encode("utf-8", "surrogatepass"))
    if "bytes" in kinds and draw.random() < 0.2:
        (folder / name).write_bytes(bytes_changed(draw, (folder / name).read_bytes()))
    if "place" in kinds:
        place_oddly(
            draw, folder / draw.choice((name, *documents, *tensors, f"{tokenizer}tokenizer.json", "vocabulary.json"))
        )
    return kinds


def _copy(folder: Path, of_run: bool) -> None:
    if not of_run:
        shutil.copytree(_run / "exports" / "peft", folder, dirs_exist_ok=True)
        return
    shutil.copyfile(_run / "manifest.json", folder / "manifest.json")
    for part in ("adapter", "tokenizer"):
        shutil.copytree(_run / part, folder / part)


def _change_document(draw: random.Random, path: Path) -> None:
    try:
        document = json.loads(path.read_bytes())
    except (ValueError, RecursionError):  # changed before
        return
    path.write_bytes(dumped(change_json(draw, document)).encode("utf-8", "surrogatepass"))


def _put(path: Path, key: str, value: Any) -> None:
    try:
        document = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return
    if isinstance(document, dict):
        path.write_text(json.dumps({**document, key: value}))


def _change_providers(draw: random.Random, providers: Any) -> None:
    if not isinstance(providers, dict):
        return
    keys = [
        key for key in ("adapter", "quantizer", "model_source", "tokenizer") if isinstance(providers.get(key), dict)
    ]
    if not keys:
        return
    facts = providers[draw.choice(keys)]
    field = draw.choice(("target", "config_class", "config", "kind"))
    facts[field] = draw.choice(
        (draw.choice(_TARGETS), hostile_value(draw), {"rank": -1}, {"rank": 10**9}, {"targets": []}, None)
    )


def valid(folder: Path) -> None:
    _copy(folder, False)


def read(folder: Path) -> None:
    model = reload(str(folder), _host)
    with named(str(folder)):  # as the command does
        "".join(model.stream("2 + 2 =", max_new_tokens=2))
