"""What more tokens cost: rows of the embeddings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from graftkit.interfaces.architecture import text_settings
from graftkit.interfaces.config_numbers import WIDTHS
from graftkit.interfaces.counts import count_weights
from graftkit.interfaces.model_source import BaseModelFiles

__all__ = ["EmbeddingCost", "embedding_cost"]


@dataclass(frozen=True, slots=True)
class EmbeddingCost:
    """What a model pays for a token.

    Attributes:
        rows: Rows of its embedding; spare ones are used before it grows.
        hidden: Numbers in a row.
        matrices: 1 where the output is tied to the embedding, else 2.
        parameters: Of the whole model.
    """

    rows: int
    hidden: int
    matrices: int
    parameters: int

    def added(self, ids: int) -> int:
        """Returns how many parameters the model grows by, for so many ids in all."""
        return max(0, ids - self.rows) * self.hidden * self.matrices


def embedding_cost(model: BaseModelFiles) -> EmbeddingCost | None:
    """Reads from a model's headers what a token costs; None where they don't say."""
    config = text_settings(model.config)
    hidden, rows = _width(config), config.get("vocab_size")
    shapes = [info.shape for info in model.tensors.values() if len(info.shape) == 2 and info.shape[1] == hidden]
    tables = [shape for shape in shapes if isinstance(rows, int) and shape[0] >= rows]
    if not tables or hidden is None:
        return None
    parameters = count_weights(model.tensors)
    return EmbeddingCost(max(shape[0] for shape in tables), hidden, min(len(tables), 2), parameters)


def _width(config: Mapping[str, object]) -> int | None:
    found = (config.get(name) for name in WIDTHS)
    return next((value for value in found if isinstance(value, int)), None)
