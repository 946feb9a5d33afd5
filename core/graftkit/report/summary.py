"""A run's figures in words, for the terminal and the page alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["metric_rows", "proof_text"]


def metric_rows(manifest: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Returns each measure with its value before and after training."""
    metrics = manifest.get("metrics", {})
    before, after = metrics.get("before", {}), metrics.get("after", {})
    rows = []
    if "holdout_loss" in before:
        rows.append(("held-out loss", _loss(before), _loss(after)))
    if "exact_match" in before:
        rows.append((f"exact match ({before['answers']} answers)", _share(before), _share(after)))
    return rows


def _loss(facts: Mapping[str, Any]) -> str:
    return f"{facts['holdout_loss']:.4f}" if "holdout_loss" in facts else "-"


def _share(facts: Mapping[str, Any]) -> str:
    return f"{facts['exact_match']:.1%}" if "exact_match" in facts else "-"


def proof_text(proof: Mapping[str, Any]) -> str:
    """Says what proving an export gave."""
    if proof["status"] != "proved":
        return f"not proved: {proof['reason']}"
    programs = " and ".join(f"{name} {version}" for name, version in proof["loaded_with"].items())
    return f"proved: loaded with {programs}, logits within {proof['max_abs_diff']:.1e}"
