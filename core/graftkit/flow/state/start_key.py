"""What the model depends on as training starts, for what is computed of it once and read where the run goes on."""

from __future__ import annotations

from graftkit.flow.state.context import RunContext
from graftkit.store.fingerprint import fingerprint

__all__ = ["start_key"]


def start_key(run: RunContext) -> str:
    """Returns what it depends on: the tokens, the model, and what was put on it."""
    data, recipe = run.manifest.data, run.plan.bound.resolved()
    parts = {name: recipe[name] for name in ("model", "tokenizer", "quantizer", "adapter", "training")}
    parts["training"] = {name: recipe["training"][name] for name in ("seed", "dtype", "microbatch_tokens")}
    return fingerprint([data.fingerprint if data else None, parts])
