"""A mean of the parts that one end of them dominates."""

from __future__ import annotations

import torch
from graftkit import NewRows
from graftkit.interfaces.initializer import MatrixRole

from graftkit_initializers.config import WeightedConfig
from graftkit_initializers.parts import combine_parts

__all__ = ["Weighted"]

_END: dict[MatrixRole, str] = {"input": "last", "output": "first", "tied": "both"}


class Weighted:
    """Starts a token as a mean of its parts whose weights fall geometrically from one end.

    What follows a word was predicted from its last part, after which the model had seen all of it: so the last part
    leads where ids are embedded. The word itself was predicted as its first part: so that one leads where the next id
    is scored. A matrix that does both gets the mean of the two.

    Example:
        Three parts at a ratio of 0.5, from the last: 1/7, 2/7 and 4/7 of them.
    """

    def __init__(self, config: WeightedConfig | None = None) -> None:
        self._config = config or WeightedConfig()

    def rows(self, new: NewRows) -> torch.Tensor:
        """Returns the means, `[new, hidden]`; for a token without parts the mean of all rows."""
        end = _END[new.role] if self._config.end == "auto" else self._config.end
        return combine_parts(new, lambda count: _shares(count, self._config.ratio, end))


def _shares(count: int, ratio: float, end: str) -> torch.Tensor:
    """Returns what each of so many parts counts, float32 `[count]`, one in sum."""
    falling = ratio ** torch.arange(count, dtype=torch.float64)
    falling /= falling.sum()
    found = {"first": falling, "last": falling.flip(0), "both": (falling + falling.flip(0)) / 2}[end]
    return found.to(torch.float32)
