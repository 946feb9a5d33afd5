"""What a stopped run goes on from: manifest, checkpoints, metrics, and the stored tokens."""

from __future__ import annotations

import json
import random
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import torch
from graftkit.flow.folders.listed_files import is_changed
from graftkit.flow.folders.metrics import to_line
from graftkit.flow.planning.earlier_run import EarlierRun
from graftkit.flow.state.resume import find_run
from graftkit.flow.training.go_on import go_back
from graftkit.host.lifecycle import StepInfo
from graftkit.recipe.schema.training import TrainingSection
from graftkit.report.run_manifest import RunManifest
from graftkit.store.file_hashes import sha256_of
from graftkit.store.token_store import Example, TokenStore
from graftkit.training.checkpoint import write_checkpoint
from graftkit.training.loss_watch import LossWatch
from graftkit.training.optimizers import Optimizers, RowTraining
from torch import nn

from hostile.mutate import apply, bytes_changed, change_json, dumped, hostile_string, place_oddly, text_changed
from hostile.originals import change_tensor_file

PENDING: frozenset[str] = frozenset()

_RECIPE: dict[str, Any] = {
    "model": {"path": "m"},
    "training": {"steps": 4, "seed": 0},
    "adapter": {"use": "lora", "rank": 2},
}
_MANIFEST: dict[str, Any] = {
    "graftkit": "0.1", "format": 1, "status": "interrupted", "seconds": 1.5,
    "progress": {"stage": "training", "step": 2, "steps": 4}, "recipe": _RECIPE,
    "providers": {"adapter": {"name": "lora", "target": "a:B"}}, "seed": 0, "stages": [{"name": "plan",
    "seconds": 0.1}], "notices": ["a"],
    "data": {"date": "2026-01-31", "fingerprint": {"train": "ab"}, "system": None, "example_prompt": None},
    "environment": {"torch": "2"},
    "tokenizer": {"fingerprint": "ab", "vocab_size": 3}, "model": {"reference": "m", "files": {"config.json": "ab"}},
    "sequences": {"packed": True, "reason": ""}, "forecast": {"adapter_parameters": 3}, "parameters": {"total": 3,
    "trainable": 1, "trainable_share": 0.3},
    "stop_tokens": [1], "metrics": {"before": {"holdout_loss": 1.0, "bits_per_byte": 2.0}}, "exports": {},
    "artifacts": {"a": {"bytes": 1, "sha256": "ab"}},
}  # fmt: skip
_KINDS = [
    ("manifest", 8),
    ("state", 10),
    ("facts of a checkpoint", 6),
    ("name of a checkpoint", 3),
    ("metrics", 6),
    ("tokens", 8),
    ("bytes", 5),
    ("place", 4),
]


def _optimizers() -> Optimizers:
    network = nn.Linear(3, 2)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
    return Optimizers(dict(network.named_parameters()), TrainingSection(steps=4), RowTraining())


def _write(folder: Path) -> None:
    (folder / "manifest.json").write_text(json.dumps(_MANIFEST))
    optimizers = _optimizers()
    for step in (1, 2):
        optimizers.begin(step, 4)
        for parameter in optimizers._parameters.values():
            parameter.grad = torch.ones_like(parameter)
        optimizers.step()
        write_checkpoint(folder / "checkpoints", step, optimizers.state(), tokenizer_fingerprint="ab")
    lines = [to_line(StepInfo(step, 4, 1.0, 9, 4, 0.1, 1e-3, 0.5)) for step in (1, 2, 3)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    examples = [Example(np.arange(n), np.ones(n, np.float32), 1) for n in (3, 5, 2)]
    TokenStore.of(examples).save(folder / "tokens.safetensors", {"key": "ab"})


def valid(folder: Path) -> None:
    _write(folder)


def make(draw: random.Random, folder: Path) -> list[str]:
    _write(folder)
    kinds = apply(draw, _KINDS, PENDING)
    manifest: Any = json.loads(json.dumps(_MANIFEST))
    newest = folder / "checkpoints" / "step-00000002"
    state, facts = newest / "state.safetensors", newest / "checkpoint.json"
    for kind in kinds:
        if kind == "manifest":
            manifest = change_json(draw, manifest)
            (folder / "manifest.json").write_bytes(dumped(manifest).encode("utf-8", "surrogatepass"))
        elif kind == "state":
            change_tensor_file(draw, state)
            if draw.random() < 0.9:
                before = json.loads((newest.parent / "step-00000001" / "checkpoint.json").read_bytes())
                facts.write_text(json.dumps({**before, "step": 2, "sha256": sha256_of(state)}))
        elif kind == "facts of a checkpoint":
            facts.write_bytes(
                dumped(
                    change_json(draw, {"step": 2, "sha256": sha256_of(state), "tokenizer_fingerprint": "ab"})
                ).encode()
            )
        elif kind == "metrics":
            path = folder / "metrics.jsonl"
            lines = path.read_bytes().splitlines() or [b"{}"]
            lines[draw.randrange(len(lines))] = draw.choice(
                (
                    b"",
                    b"{",
                    b"[]",
                    b"null",
                    b"3",
                    b'{"step": "2"}',
                    b'{"loss": 1}',
                    b"[" * 5000,
                    b"\xff",
                    b'{"step": NaN}',
                    b'{"step": null}',
                )
            )
            path.write_bytes(draw.choice((b"\n".join(lines) + b"\n", text_changed(draw, path.read_bytes()))))
        elif kind == "tokens":
            change_tensor_file(draw, folder / "tokens.safetensors")
        elif kind == "bytes":
            path = draw.choice(
                (folder / "manifest.json", state, facts, folder / "metrics.jsonl", folder / "tokens.safetensors")
            )
            path.write_bytes(bytes_changed(draw, path.read_bytes()))
    if "name of a checkpoint" in kinds:
        name = draw.choice(
            (
                "step-00000003",
                "step-99999999",
                "step-0",
                "step-٠٠٠٠٠٠٠٣",
                "step-",
                hostile_string(draw)[:50].replace("/", "").replace("\0", "") or "x",
            )
        )
        try:
            newest.rename(newest.with_name(name))
        except (OSError, UnicodeEncodeError, ValueError):
            newest.rename(newest.with_name("step-00000003"))
    if "place" in kinds:
        place_oddly(draw, draw.choice((folder / "manifest.json", folder / "metrics.jsonl",
        folder / "tokens.safetensors",
                                       folder / "checkpoints" / "step-00000001" / draw.choice(("state.safetensors",
                                       "checkpoint.json")))))  # fmt: skip
    return kinds


def read(folder: Path) -> None:
    manifest = RunManifest.read(folder)
    assert manifest is None or isinstance(manifest.to_json(), dict)
    day = EarlierRun.read(folder).day
    assert day is None or isinstance(day, date)
    find_run(folder, _RECIPE)
    store = TokenStore.load(folder / "tokens.safetensors")
    for example in store:
        assert len(example.ids) == len(example.loss_weight)
    _go_on(folder)


def _go_on(folder: Path) -> None:
    optimizers, notices = _optimizers(), []
    resumed = find_run(folder, _RECIPE)
    files = SimpleNamespace(is_changed=lambda name: resumed is not None and is_changed(folder, resumed.manifest, name))
    manifest_file = SimpleNamespace(keep=lambda name, facts: None)
    run = SimpleNamespace(folder=folder, resumed=resumed, files=files, manifest_file=manifest_file, save=lambda: None)
    trainer = SimpleNamespace(load_state=optimizers.load_state, watch=LossWatch(2.0, 10))
    stage = SimpleNamespace(notice=notices.append)
    go_back(cast(Any, run), cast(Any, trainer), cast(Any, stage))
    assert notices
