"""Which token comes next: the likeliest one, or one drawn as the usual sampling options say."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from graftkit.errors import LogitsError, RequestError
from graftkit.interfaces.config_numbers import shown

__all__ = ["AS_IT_IS", "GREEDY", "Sampler", "Sampling", "check_logits", "draw"]


def check_logits(logits: torch.Tensor) -> None:
    """Makes sure that there is a likeliest token; one that can't come may have minus infinity.

    Args:
        logits: `[..., vocabulary]`.

    Raises:
        LogitsError: A logit is no number, or infinite, or no token can come.
    """
    if not logits.amax(-1).isfinite().all():
        raise LogitsError(
            "its logits are no finite numbers: no token can be chosen by them",
            hint="The weights, or those of the adapter, are damaged or far too large.",
        )


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a token is chosen. The options mean what they mean in transformers, and are applied in its order.

    Attributes:
        temperature: What scores are divided by; 0 takes the likeliest token.
        top_k: So many of the likeliest tokens are left; 0 for all.
        top_p: Of the likeliest tokens those are left that have this share of the probability together; 1 for all.
        min_p: Tokens below this share of the likeliest one's probability are left out; 0 for none.
        repetition_penalty: What the scores of tokens that were there already are divided by, or multiplied with where
            they are negative; 1 changes nothing.
        seed: What random numbers are derived from.

    Source: `transformers.generation.logits_process`.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int = 0

    @property
    def is_greedy(self) -> bool:
        """Whether the likeliest token is taken; divided by less, scores become infinite, and draw no other."""
        return self.temperature < 1e-6

    @classmethod
    def asked(cls, settings: Mapping[str, Any], *, seed: int = 0, **options: float | None) -> Sampling:
        """Returns how tokens are chosen where somebody asked for some options and left out others.

        Without temperature, top_k, top_p and min_p the likeliest token is taken, as when a run is measured. With one of
        them, those left out are as the model's own settings say, and change nothing where those are silent.

        Args:
            settings: The content of a generation_config.json; values that are out of range are not used.
            seed: What random numbers are derived from.
            options: Fields of this class; None for one that was left out.

        Raises:
            RequestError: One of them is out of its range.
        """
        given = {name: value for name, value in options.items() if value is not None}
        for name, value in given.items():
            if not _in_range(name, value):
                least, largest = _RANGES[name]
                raise RequestError(f"it is {shown(value)}; from {least:g} to {largest:g} is allowed", where=name)
        if not given.keys() - {"repetition_penalty"}:
            return cls(seed=seed, **given)  # type: ignore[arg-type]
        own = {name: settings[name] for name in _RANGES if _in_range(name, settings.get(name))}
        return cls(**{"temperature": 1.0, **own, **given}, seed=seed)

    def scores(self, logits: torch.Tensor, seen: Sequence[int]) -> torch.Tensor:
        """Returns the scores that a token is drawn by: their softmax is its probability.

        Args:
            logits: `[vocabulary]`.
            seen: The ids of the prompt and of the answer so far.

        Returns:
            `[vocabulary]`, float32; minus infinity for tokens that are left out.
        """
        scores = self.penalized(logits.float(), seen)
        if self.is_greedy:
            return scores
        return self.left(scores / self.temperature)

    def penalized(self, scores: torch.Tensor, seen: Sequence[int]) -> torch.Tensor:
        """Returns scores of which those of tokens that were there already are made smaller.

        Args:
            scores: `[vocabulary]`, as the model gives them.
            seen: The ids of the prompt and of the answer so far.
        """
        if self.repetition_penalty == 1:
            return scores
        index = torch.tensor(sorted({*seen}), dtype=torch.long, device=scores.device)
        found = scores[index]
        smaller = torch.where(found < 0, found * self.repetition_penalty, found / self.repetition_penalty)
        return scores.index_copy(0, index, smaller)

    def left(self, scores: torch.Tensor) -> torch.Tensor:
        """Returns scores of which tokens are left out as `top_k`, `top_p` and `min_p` say.

        Args:
            scores: `[..., vocabulary]`, divided by the temperature.

        Returns:
            `[..., vocabulary]`; minus infinity for tokens that are left out, never all.
        """
        if self.top_k:
            least = scores.topk(min(self.top_k, scores.shape[-1])).values[..., -1:]
            scores = scores.masked_fill(scores < least, -math.inf)
        if self.top_p < 1:
            ascending, order = scores.sort(stable=True)
            left_out = ascending.softmax(-1).cumsum(-1) <= 1 - self.top_p
            left_out[..., -1] = False
            scores = scores.masked_fill(left_out.scatter(-1, order, left_out), -math.inf)
        if self.min_p > 0:
            shares = scores.softmax(-1)
            scores = scores.masked_fill(shares < self.min_p * shares.amax(-1, keepdim=True), -math.inf)
        return scores


_RANGES: Mapping[str, tuple[float, float]] = {
    "temperature": (0, 100),
    "top_k": (0, 1 << 31),
    "top_p": (0, 1),
    "min_p": (0, 1),
    "repetition_penalty": (1e-3, 100),
}
"""The least and the largest value of each option that a model's settings may say."""


def _in_range(name: str, value: Any) -> bool:
    kind = int if name == "top_k" else int | float
    least, largest = _RANGES[name]
    return isinstance(value, kind) and not isinstance(value, bool) and least <= value <= largest


GREEDY = Sampling()
"""The likeliest token, always."""

AS_IT_IS = Sampling(temperature=1.0)
"""By the softmax of the logits."""


class Sampler:
    """Chooses one token after the other: the same ones for the same scores and seed.

    Args:
        sampling: How.
    """

    def __init__(self, sampling: Sampling = GREEDY) -> None:
        self._sampling = sampling
        self._random = torch.Generator().manual_seed(sampling.seed)

    def choose(self, logits: torch.Tensor, seen: Sequence[int]) -> int:
        """Returns the next token; arguments as for `Sampling.scores`.

        Raises:
            LogitsError: As for `check_logits`.
        """
        check_logits(logits)
        scores = self._sampling.scores(logits, seen)
        if self._sampling.is_greedy:
            return int(scores.argmax())
        return int(torch.multinomial(scores.softmax(-1).cpu(), 1, generator=self._random))


_TOGETHER = 1 << 22
"""Logits that are sorted and summed up at a time: each takes some forty bytes meanwhile."""


def draw(logits: torch.Tensor, numbers: torch.Tensor, sampling: Sampling = AS_IT_IS) -> torch.Tensor:
    """Returns the token of each row at which the distribution function passes a number: `[rows]`, int64.

    Args:
        logits: `[rows, vocabulary]`.
        numbers: One a row, from 0, below 1, float64, `[rows]`. Of numbers that are drawn uniformly each token comes
            with its probability, the softmax of the logits.
        sampling: What the logits are divided by before, and which tokens are left out; the others come with their
            probability beside one another. It is not greedy. Repetition is not penalized here, since what was there is
            not known.

    Example:
        >>> draw(torch.tensor([[0.25, 0.75]]).log().expand(3, 2), torch.tensor([0.0, 0.24, 0.26], dtype=torch.float64))
        tensor([0, 0, 1])
    """
    rows = max(1, _TOGETHER // logits.shape[-1])
    parts = [slice(first, first + rows) for first in range(0, len(logits), rows)]
    return torch.cat([_drawn(logits[part], numbers[part], sampling) for part in parts])


def _drawn(logits: torch.Tensor, numbers: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    sums = sampling.left(logits.float() / sampling.temperature).softmax(-1).cumsum(-1, dtype=torch.float64)
    every = sums[:, -1]
    passed = torch.minimum(numbers.to(sums) * every, every.nextafter(torch.zeros_like(every)))
    return torch.searchsorted(sums, passed.unsqueeze(1), right=True).squeeze(1)
