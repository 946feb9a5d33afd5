"""Weight-decomposed low-rank adaptation: LoRA for the direction of each output's weights, a number for their length.

Liu et al., DoRA, 2024 (https://arxiv.org/abs/2402.09353): `W' = m / ||W + s B A|| (W + s B A)`, the norm taken over
each output's row, `m [out]` trained and at first the rows' own norms. As in section 4.3 of the paper, and in
`peft.tuners.lora.dora`, the norm is a constant to the gradient. Inputs that dropout leaves out are left out of the
frozen weight's share of the change as well, as PEFT does.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from graftkit import FrozenWeight, Layer
from torch import nn
from torch.nn.functional import dropout

from graftkit_adapters.config import LoraConfig
from graftkit_adapters.lora_weight import MAGNITUDE, LoraWeight

__all__ = ["DoraWeight"]

_BLOCK = 1 << 20
"""How many weights are brought to float32 at once."""


class DoraWeight(LoraWeight):
    """A frozen weight with a low-rank update, each of whose rows has a length that is learnt.

    Attributes:
        lora_magnitude_vector: The length of each row, `[out]`, float32.
    """

    def __init__(self, layer: Layer, config: LoraConfig) -> None:
        super().__init__(layer, config)
        self._known: _KnownNorms | None = None
        self.lora_magnitude_vector = nn.Parameter(self._norms_of(self.frozen.dequantize()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps `[..., in]` to `[..., out]`, in the type of what comes in; parameters and their steps stay float32."""
        factor = self._factor(self._norms(x.dtype))
        y = self._rest(x)
        left, of_rest = x, y
        if self.training and self._dropout:
            left = dropout(x, self._dropout)
            of_rest = self._rest(left)
        change = (factor - 1).to(x.dtype) * of_rest + factor.to(x.dtype) * self._update(left)
        return y + change

    @torch.no_grad()
    def delta(self) -> torch.Tensor:
        """Returns what makes the frozen weight `m / ||W + s B A|| (W + s B A)`, `[out, in]`."""
        weight = self.frozen.dequantize()
        factor = self._factor(self._norms_of(weight)).unsqueeze(1)
        return (factor - 1) * weight + factor * super().delta()

    def rate_scales(self) -> Mapping[str, float]:
        """Returns LoRA+'s ratio for `B`, and for the magnitudes, as PEFT's optimizer of LoRA+ has it."""
        return {**super().rate_scales(), MAGNITUDE: self._rate_of_b}

    def _factor(self, norms: torch.Tensor) -> torch.Tensor:
        """Returns what each row is multiplied by, `[out]`. A row of zeros has no direction, and stays one."""
        return self.lora_magnitude_vector / norms.masked_fill(norms == 0, 1)

    def _norms(self, dtype: torch.dtype) -> torch.Tensor:
        """Returns the norms as of the parameters now, `[out]`: those of the last call where nothing has changed.

        So they are taken once a step, whatever the number of its passes, and once for all tokens of an answer.

        Args:
            dtype: What the frozen weight computes in.
        """
        if self._known is None or not self._known.holds(self.frozen, self.lora_A, self.lora_B, dtype):
            norms = self._norms_of(self.frozen.dequantize(dtype))
            self._known = _KnownNorms(self.frozen, self.lora_A, self.lora_B, dtype, norms)
        return self._known.norms

    @torch.no_grad()
    def _norms_of(self, weight: torch.Tensor) -> torch.Tensor:
        """Returns the norm of each row of `W + s B A`, `[out]`, a block of rows at a time in the parameters' type."""
        rows = max(1, _BLOCK // weight.shape[1])
        a, b = self._factors()
        parts = zip(torch.split(weight, rows), torch.split(b * self._scale, rows), strict=True)
        return torch.cat([torch.linalg.vector_norm(block.to(a.dtype) + part @ a, dim=1) for block, part in parts])


class _KnownNorms:
    """The norms of rows, and what they were taken of: a tensor counts the changes that are made to it in place."""

    def __init__(
        self, frozen: FrozenWeight, a: torch.Tensor, b: torch.Tensor, dtype: torch.dtype, norms: torch.Tensor
    ) -> None:
        self.norms = norms
        self._of = (frozen, a, b)
        self._as = (dtype, *self._state(a), *self._state(b))

    def holds(self, frozen: FrozenWeight, a: torch.Tensor, b: torch.Tensor, dtype: torch.dtype) -> bool:
        """Tells whether they are the norms of these."""
        same = all(now is then for now, then in zip((frozen, a, b), self._of, strict=True))
        return same and self._as == (dtype, *self._state(a), *self._state(b))

    @staticmethod
    def _state(tensor: torch.Tensor) -> tuple[int, int]:
        return tensor._version, tensor.data_ptr()
