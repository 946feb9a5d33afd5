"""Runs in a process of its own: loads an export afresh, runs the probes, and prints how far the logits are off.

    python -m graftkit.flow.prove EXPORT PROBES

It shares nothing with the run but the files, so that what it finds is what another program will find.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from graftkit.errors import GraftkitError
from graftkit.flow.recreate import InstalledProviders, MakeProvider, make_provider
from graftkit.host.host import PluginHost

__all__ = ["TRUSTED", "main"]

TRUSTED = "--made-by-this-run"
"""Says that the export was written a moment ago by the run that asks, so that its manifest may name any class."""


def main() -> None:
    """Prints one JSON object as the last line."""
    folder, probes = map(Path, sys.argv[1:3])
    make = make_provider if sys.argv[3:] == [TRUSTED] else InstalledProviders(PluginHost()).make
    try:
        print(json.dumps(check(folder, probes, make)))
    except GraftkitError as error:
        print(json.dumps({"status": "failed", "message": error.message, "hint": error.hint}))
    except (KeyError, TypeError, AttributeError) as error:
        print(json.dumps({"status": "failed", "message": f"its graftkit.json is damaged: {error!r}", "hint": ""}))


def check(folder: Path, probes_file: Path, make: MakeProvider) -> dict[str, Any]:
    """Compares an export's logits with the trained model's."""
    from graftkit.flow.probes import Probes, allowed_difference, compare

    manifest = json.loads((folder / "graftkit.json").read_bytes())
    exporter = make(manifest["exporter"])
    missing = [name for name in getattr(exporter, "proved_with", ()) if not _installed(name)]
    if missing:
        return {"status": "not possible", "reason": f"{', '.join(missing)} is not installed"}
    probes = Probes.load(probes_file)
    found = exporter.logits(folder, probes.ids, lambda: _base(manifest, make))
    difference, tolerance = compare(probes, found), allowed_difference(probes, manifest["tolerance"])
    return {
        "status": "proved" if difference.within(tolerance) else "different",
        "max_abs_diff": min(difference.largest, 1e308),
        "mean_abs_diff": min(difference.mean, 1e308),
        "top1_agreement": difference.top1,
        "tolerance": tolerance,
        "coverage": dict(probes.coverage),
        "loaded_with": {name: _version(name) for name in getattr(exporter, "proved_with", ())},
    }


def _base(manifest: Mapping[str, Any], make: MakeProvider) -> Any:
    """Builds the base model that was trained on: its weights as the quantizer gives them back, float32."""
    import torch

    from graftkit.model.load import load_dense_model

    files = make(manifest["model_source"]).open(manifest["model"]["reference"])
    return load_dense_model(files, make(manifest["quantizer"]), getattr(torch, manifest["dtype"]))


def _installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def _version(name: str) -> str:
    from importlib.metadata import version

    return version(name)


if __name__ == "__main__":
    main()
