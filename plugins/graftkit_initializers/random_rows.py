"""Noise, which is what a plain resize gives new rows."""

from __future__ import annotations

import torch
from graftkit import NewRows

from graftkit_initializers.config import RandomConfig
from graftkit_initializers.parts import known_rows

__all__ = ["Random"]


class Random:
    """Starts a token as normal noise with the standard deviation of the matrix; there to be compared with."""

    def __init__(self, config: RandomConfig | None = None) -> None:
        self._config = config or RandomConfig()

    def rows(self, new: NewRows) -> torch.Tensor:
        """Returns the noise, `[new, hidden]`; another for the output matrix than for the input."""
        generator = torch.Generator().manual_seed(2 * self._config.seed + (new.role == "output"))
        noise = torch.randn(len(new.ids), new.weight.shape[1], generator=generator, dtype=torch.float32)
        return noise * known_rows(new).std(correction=0)
