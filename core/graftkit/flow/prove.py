"""Runs in a process of its own: loads an export afresh, runs the probes, and prints how far the logits are off.

    python -m graftkit.flow.prove EXPORT PROBES

It shares nothing with the run but the files, so that what it finds is what another program will find.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["main", "make_provider"]


def main() -> None:
    """Prints one JSON object as the last line."""
    folder, probes = map(Path, sys.argv[1:3])
    print(json.dumps(check(folder, probes)))


def check(folder: Path, probes_file: Path) -> dict[str, Any]:
    """Compares an export's logits with the trained model's."""
    from graftkit.flow.probes import Probes, allowed_difference, largest_difference

    manifest = json.loads((folder / "graftkit.json").read_bytes())
    exporter = make_provider(manifest["exporter"])
    missing = [name for name in getattr(exporter, "proved_with", ()) if not _installed(name)]
    if missing:
        return {"status": "not possible", "reason": f"{', '.join(missing)} is not installed"}
    probes = Probes.load(probes_file)
    found = exporter.logits(folder, probes.ids, lambda: _base(manifest))
    difference, tolerance = largest_difference(probes, found), allowed_difference(probes, manifest["tolerance"])
    return {
        "status": "proved" if difference <= tolerance else "different",
        "max_abs_diff": difference if difference != float("inf") else 1e308,
        "tolerance": tolerance,
        "loaded_with": {name: _version(name) for name in getattr(exporter, "proved_with", ())},
    }


def make_provider(facts: Mapping[str, Any]) -> Any:
    """Makes a provider from what a manifest says of it."""
    module, _, name = facts["target"].partition(":")
    target = getattr(importlib.import_module(module), name)
    if not facts.get("config_class"):
        return target()
    module, _, name = facts["config_class"].partition(":")
    config = getattr(importlib.import_module(module), name)
    return target(config.model_validate(facts["config"]))


def _base(manifest: Mapping[str, Any]) -> Any:
    """Builds the base model that was trained on: its weights as the quantizer gives them back, float32."""
    import torch

    from graftkit.model.load import load_dense_model

    files = make_provider(manifest["model_source"]).open(manifest["model"]["reference"])
    return load_dense_model(files, make_provider(manifest["quantizer"]), getattr(torch, manifest["dtype"]))


def _installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def _version(name: str) -> str:
    from importlib.metadata import version

    return version(name)


if __name__ == "__main__":
    main()
