"""How a run masks tokens, where its objective learns masked ones; imports without torch."""

from __future__ import annotations

from graftkit.flow.base_files.open_model import embedding_rows
from graftkit.flow.planning.head import mask_token
from graftkit.flow.state.context import RunContext
from graftkit.store.fingerprint import derived_seed
from graftkit.training.masking import Masking

__all__ = ["masking_of"]


def masking_of(run: RunContext, purpose: str) -> Masking | None:
    """Returns how tokens are masked, where the objective learns masked ones.

    Args:
        run: The run.
        purpose: "training", where each epoch masks others, or "holdout".
    """
    plan, config = run.plan, run.plan.bound.objective_config
    if config.head != "masked":
        return None
    tokenizer, rows = run.vocabulary.tokenizer, embedding_rows(plan.files)
    seed = derived_seed(plan.bound.recipe.training.seed, "masking", purpose)
    drawn = min(tokenizer.vocab_size, rows or tokenizer.vocab_size)  # added tokens may have no row
    return Masking(seed, config.masked_share, mask_token(tokenizer, plan.files.reference, rows), drawn)
