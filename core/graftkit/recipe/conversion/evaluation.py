"""How often other programs measure and write checkpoints."""

from __future__ import annotations

import math

from graftkit.recipe.conversion.draft import Draft, is_count

__all__ = ["convert_evaluation", "measure_nothing"]


def convert_evaluation(draft: Draft) -> None:
    """Converts how often records are measured and checkpoints written."""
    if _says_how_often(
        draft, "evaluation.every", "eval_steps", "evals_per_epoch", "eval_strategy", "evaluation_strategy"
    ):
        patience = draft.take("early_stopping_patience")
        if patience:
            draft.put("evaluation.patience", patience)
        if draft.take("load_best_model_at_end"):
            draft.put("evaluation.exported", "best")
    if _says_how_often(draft, "training.checkpoint_every", "save_steps", "saves_per_epoch", "save_strategy"):
        kept = draft.take("save_total_limit")
        if kept:
            draft.put("training.keep_checkpoints", kept)


def measure_nothing(draft: Draft) -> None:
    """Leaves out when records are measured of which none is held out."""
    name, _ = draft.an_epoch.pop("evaluation.every", ("eval_steps", 0))
    if draft.recipe.pop("evaluation", None) or name != "eval_steps":
        draft.left[name] = "no record is held out; say data.holdout, a share or a file"


def _says_how_often(draft: Draft, key: str, every: str, per_epoch: str, *strategies: str) -> bool:
    """Converts how often something is done again; tells whether the file says that.

    Args:
        draft: The recipe so far.
        key: The recipe's key, which counts steps.
        every: The key that says after how many steps, or after which share of all.
        per_epoch: The key that says how many times an epoch.
        strategies: The keys that say which of both, or once an epoch.
    """
    strategy, steps, times = draft.take(*strategies), draft.take(every), draft.take(per_epoch)
    name = per_epoch
    if times is None and strategy == "epoch":
        name, times, strategy = draft.spelt(strategies[0]), 1, None
    if is_count(times):
        draft.an_epoch[key] = (name, times)
        draft.leave(every, steps, f"{name} says how often")
        draft.leave(strategies[0], strategy, f"{name} says how often")
        return True
    why, total = f"{key} is a number of steps", draft.recipe.get("training", {}).get("steps")
    draft.leave(per_epoch, times, why)
    if isinstance(steps, float) and 0 < steps < 1 and is_count(total):
        steps = math.ceil(steps * total)
    draft.leave(strategies[0], strategy if strategy != "steps" or not steps else None, why)
    if is_count(steps):
        draft.put(key, steps)
        return True
    draft.leave(every, steps, why)
    return False
