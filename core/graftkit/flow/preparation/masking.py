"""How tokens are masked, where an objective learns masked ones; imports without torch."""

from __future__ import annotations

from graftkit.flow.base_files.open_model import embedding_rows
from graftkit.flow.base_files.own_head import mask_token
from graftkit.flow.state.context import RunContext
from graftkit.interfaces.objective_config import MaskedConfig
from graftkit.interfaces.tokenizer import Tokenizer
from graftkit.recipe.bind import BoundRecipe
from graftkit.store.fingerprint import derived_seed
from graftkit.training.masking import Masking

__all__ = ["masking_in", "masking_of"]


def masking_of(bound: BoundRecipe, purpose: str, tokenizer: Tokenizer, where: str, rows: int | None) -> Masking | None:
    """Returns how tokens are masked, where the objective learns masked ones.

    Args:
        bound: The recipe.
        purpose: "training", where each epoch masks others, or "holdout".
        tokenizer: The model's.
        where: The model, for errors.
        rows: How many rows its embedding has, where that is known.

    Raises:
        ModelError: The tokenizer has no mask token, or the embedding no row for it.
    """
    config = bound.objective_config
    if not isinstance(config, MaskedConfig):
        return None
    seed = derived_seed(bound.recipe.training.seed, "masking", purpose)
    drawn = min(tokenizer.vocab_size, rows or tokenizer.vocab_size)  # added tokens may have no row
    return Masking(seed, config.probability, mask_token(tokenizer, where, rows), drawn)


def masking_in(run: RunContext, purpose: str) -> Masking | None:
    """Returns how a run masks tokens; see `masking_of`."""
    files = run.plan.files
    return masking_of(run.plan.bound, purpose, run.vocabulary.tokenizer, files.reference, embedding_rows(files))
