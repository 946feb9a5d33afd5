"""A whole run on a tiny model, in this process, and what must be the same however often it was stopped."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import graftkit
from graftkit.flow.exports import prove as prove_module
from graftkit.flow.folders.folder import locked_folder
from graftkit.testing import tiny_model_folder

__all__ = [
    "add",
    "digest_of",
    "export_adapter",
    "facts_of",
    "facts_of_export",
    "go",
    "left_over",
    "make_recipe",
    "prove_again",
    "quick",
    "tree_of",
    "with_head",
]

_WITH_TIMES = ("manifest.json", "metrics.jsonl", "report.html", "graftkit.json", ".graftkit.lock")
"""Files that say how long something took or where it lies, and the lock, which holds nothing."""


def make_recipe(folder: Path, *, steps: int = 3, export: tuple[str, ...] = ("peft",)) -> dict[str, Any]:
    """Writes a model and rows, and returns a recipe that takes well under a second."""
    rows = [
        {"messages": [{"role": "user", "content": f"say {n}"}, {"role": "assistant", "content": f"{n}!"}]}
        for n in range(24)
    ]
    (folder / "records.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    training = {"steps": steps, "tokens_per_step": 128, "learning_rate": 1e-2, "device": "cpu", "checkpoint_every": 1}
    return {
        "model": str(tiny_model_folder(folder / "model")),
        "data": {"train": str(folder / "records.jsonl"), "holdout": 0.2, "max_length": 64},
        "adapter": {"use": "lora", "rank": 2, "dropout": 0.2},
        "evaluation": {"answers": 2, "max_new_tokens": 2},
        "training": training,
        "export": list(export),
    }


def with_head(folder: Path, recipe: dict[str, Any]) -> dict[str, Any]:
    """Returns a recipe that trains a head and a norm as a whole beside an adapter, and puts its proofs off."""
    rows = [{"text": f"say {n}", "label": "odd" if n % 2 else "even"} for n in range(24)]
    (folder / "labels.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {
        **{key: value for key, value in recipe.items() if key != "evaluation"},
        "data": {**recipe["data"], "train": str(folder / "labels.jsonl")},
        "adapter": {**recipe["adapter"], "modules_to_save": ["norm"]},
        "objective": "classification",
        "proof": "later",
        "export": ["peft", "merged"],
    }


@contextlib.contextmanager
def quick() -> Iterator[None]:
    """Leaves out what takes time and writes nothing: a process for each proof, a look at garbage.

    An export is proved as by a run, in this process.
    """

    def prove(folder: Path, probes: Path, poll: Any = None, *, trusted: bool = False, **others: Any) -> dict[str, Any]:
        from graftkit.flow.exports.proof import read_proof
        from graftkit.flow.exports.proof_leftovers import sweep_leftovers

        sweep_leftovers(folder)
        try:
            said = prove_module.answer(folder, probes, trusted=trusted)
        except Exception as error:  # the process would end so
            return read_proof(folder, 1, "", f"{type(error).__name__}: {error}")
        return read_proof(folder, 0, json.dumps(said), "")

    from transformers.utils import logging

    with (
        mock.patch.object(logging, "_tqdm_active", False),
        mock.patch("graftkit.flow.exports.proof.prove", prove),
        mock.patch("graftkit.flow.exports.proof_process.forks_for", lambda *_: contextlib.nullcontext()),
        mock.patch("graftkit.flow.exports.export.give_memory_back"),
        mock.patch("graftkit.flow.state.run_folder.end_if_forked"),  # the tests go on in forks
        mock.patch("graftkit.host.guard.end_if_forked"),
        warnings.catch_warnings(action="ignore", category=FutureWarning),
    ):
        yield


def go(recipe: dict[str, Any], out: Path, host: graftkit.PluginHost, **options: Any) -> dict[str, Any]:
    """Runs, and returns `facts_of` what came out."""
    with quick():
        graftkit.run(recipe, out=out, host=host, **options)
    return facts_of(out)


def add(out: Path, host: graftkit.PluginHost, exporter: str = "merged") -> dict[str, Any]:
    """Adds an export to a finished run, and returns `facts_of` what came out."""
    with quick():
        graftkit.export(out, exporter, host=host)
    return facts_of(out)


def export_adapter(adapter: Path, out: Path, host: graftkit.PluginHost) -> dict[str, Any]:
    """Exports an adapter's folder into another one, and returns what came out."""
    with quick():
        graftkit.export(adapter, "merged", out=out, host=host)
    return facts_of_export(out)


def facts_of_export(out: Path) -> dict[str, Any]:
    """What must be equal of an adapter's export: its files, and what it is proved with."""
    manifest = json.loads((out / "exports" / "merged" / "graftkit.json").read_text())
    return {"files": _digests(out), "proofs": {"merged": manifest["proof"]["status"]}}


def prove_again(out: Path) -> dict[str, Any]:
    """Proves a finished run's exports, and returns `facts_of` what came out.

    Where all are proved nothing is written, so that a lock which a killed process has left stays; the next command that
    writes takes it, and removes it.
    """
    with quick():
        graftkit.verify_run(out)
    with locked_folder(out):
        return facts_of(out)


def facts_of(folder: Path) -> dict[str, Any]:
    """What must be equal bit for bit: adapter, tokens, exports, losses of steps, what was measured and answered."""
    manifest = json.loads((folder / "manifest.json").read_text())
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    steps = [{key: value for key, value in line.items() if key != "seconds"} for line in lines]
    proofs = {name: facts["proof"]["status"] for name, facts in manifest["exports"].items()}
    own = {name: json.loads((folder / "exports" / name / "graftkit.json").read_text())["proof"] for name in proofs}
    assert proofs == {name: proof["status"] for name, proof in own.items()}, (
        "an export says something else than its run"
    )
    return {
        "status": manifest["status"],
        "files": _digests(folder),
        "steps": steps,
        "metrics": manifest["metrics"],
        "proofs": proofs,
        "listed": sorted(manifest["artifacts"]),
    }


def _digests(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): digest_of(path)
        for path in folder.rglob("*")
        if path.is_file() and path.name not in _WITH_TIMES
    }


def digest_of(path: Path) -> str:
    """Returns a file's sha256; of a tensor file without the order in which its library writes the header's entries.

    A model card says how many seconds training took, rounded: that is left out.
    """
    data = path.read_bytes()
    if path.name == "README.md":
        data = re.sub(rb"\d+ seconds", b"", data)
    if path.suffix == ".safetensors":
        start = 8 + int.from_bytes(data[:8], "little")
        data = json.dumps(json.loads(data[8:start]), sort_keys=True).encode() + data[start:]
    return hashlib.sha256(data).hexdigest()


def tree_of(folder: Path) -> dict[str, bytes | None]:
    """Returns every path below a folder with each file's content, None for a folder."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")
    }


def left_over(folder: Path) -> list[str]:
    """Hidden names beside and in a run's folder: what was swept is none of them."""
    return sorted(path.name for path in folder.parent.rglob(".*"))
