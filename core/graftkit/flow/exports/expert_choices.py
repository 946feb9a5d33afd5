"""Which experts a model's routers choose, and what the model computes where nearly even choices are made otherwise.

A router takes the k experts of the highest scores. Where the k-th and the next one are nearly even, another program,
which rounds or adds up otherwise, may take the other: no fault of an export, and no small difference of its logits. So
the model is run once more with those choices made otherwise, and again with some of them. Positions whose logits that
moves say nothing of the export; all others do.

Any router that takes its experts by `torch.topk` over the last axis is seen, whatever the architecture: all of those
in transformers of which a quantized export is written.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import torch
from torch.overrides import TorchFunctionMode

__all__ = ["Choice", "choosing", "made_otherwise", "nearly_even", "same_choices", "watched"]

_DRAWS = 2
_SUMS = 1e-6
"""What the order of sums moves a score by, as a share of the largest one."""

_Computed = TypeVar("_Computed")


@dataclass(frozen=True, slots=True)
class Choice:
    """One call of a router.

    Attributes:
        scores: What it chose by, `[..., experts]`.
        chosen: The numbers of the experts that it took, `[..., k]`.
    """

    scores: torch.Tensor
    chosen: torch.Tensor

    @property
    def margin(self) -> torch.Tensor:
        """How far the last one that it took is above the best of the others, `[...]`."""
        best = self.scores.topk(self.chosen.shape[-1] + 1, dim=-1).values
        return best[..., -2] - best[..., -1]


class _Choices(TorchFunctionMode):
    """Notes what routers choose, and has them choose otherwise.

    Args:
        instead: Called with a choice and its number among the choices so far; returns the experts to take.
    """

    def __init__(self, instead: Callable[[int, Choice], torch.Tensor]) -> None:
        super().__init__()
        self.made: list[Choice] = []
        self._instead = instead

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        if func not in (torch.topk, torch.Tensor.topk) or not _is_choice(*args, **(kwargs or {})):
            return found
        choice = Choice((args[0] if args else kwargs["input"]).detach(), found.indices)
        taken = self._instead(len(self.made), choice)
        self.made.append(choice)
        return found if taken is choice.chosen else torch.return_types.topk((choice.scores.gather(-1, taken), taken))


def _is_choice(input: torch.Tensor, k: int, dim: int = -1, largest: bool = True, **_: Any) -> bool:
    """Tells whether the arguments of `torch.topk` leave some of the last axis out."""
    return largest and dim in (-1, input.ndim - 1) and k < input.shape[-1]


def watched(compute: Callable[[], _Computed]) -> tuple[_Computed, list[Choice]]:
    """Returns what something computes, and every choice that is made in it, in order; none without a router."""
    choices = _Choices(lambda number, choice: choice.chosen)
    with choices:
        return compute(), choices.made


def choosing(made: Sequence[Choice], compute: Callable[[], _Computed]) -> tuple[_Computed, list[Choice]]:
    """Returns what something computes where routers take the experts that they took before, whatever their scores.

    Args:
        made: Those choices, from `watched`.
        compute: Does the same as it did then.
    """
    choices = _Choices(lambda number, choice: made[number].chosen)
    with choices:
        return compute(), choices.made


def same_choices(ours: Sequence[Choice], theirs: Sequence[Choice]) -> bool:
    """Tells whether the same experts were taken everywhere, in whatever order."""
    pairs = zip(ours, theirs, strict=True)
    return all(torch.equal(one.chosen.sort().values, other.chosen.sort().values) for one, other in pairs)


def nearly_even(made: Sequence[Choice], scores: Sequence[tuple[Choice, Choice]], times: float) -> list[torch.Tensor]:
    """Returns which choices may be made otherwise by a program that rounds, `[...]` for each router.

    Args:
        made: The choices.
        scores: For each router's call, two whose scores differ by rounding alone.
        times: How many times as much as in these two the scores may differ.
    """
    found = []
    for choice, (one, other) in zip(made, scores, strict=True):
        off = one.scores - other.scores
        spread = off.amax(-1) - off.amin(-1)
        # By chance rounding may move the scores of one token little: what it does to the others counts, too.
        moved = times * spread.clamp_min(spread.mean()) + _SUMS * choice.scores.abs().amax(-1)
        found.append(choice.margin <= moved)
    return found


def made_otherwise(even: Sequence[torch.Tensor], compute: Callable[[], _Computed]) -> list[_Computed]:
    """Returns what is computed with all choices made otherwise that are nearly even, and then with half of them.

    Where an earlier choice is made otherwise, routers after it choose freely by the scores that they have then.

    Args:
        even: Which ones are, from `nearly_even`.
        compute: Does the same as it did when they were made.
    """
    results = []
    for draw in range(1 + _DRAWS):
        generator = torch.Generator().manual_seed(draw)
        turned = [each & ((torch.rand(each.shape, generator=generator) < 0.5) | (draw == 0)) for each in even]
        with _Choices(partial(_with_the_next, turned)):
            results.append(compute())
    return results


def _with_the_next(turned: Sequence[torch.Tensor], number: int, choice: Choice) -> torch.Tensor:
    """Returns the experts taken, where asked with the next best one in place of the last."""
    if not turned[number].any():
        return choice.chosen
    k = choice.chosen.shape[-1]
    best = choice.scores.topk(k + 1, dim=-1).indices
    other = torch.cat([best[..., : k - 1], best[..., k:]], -1)
    return torch.where(turned[number].unsqueeze(-1), other, choice.chosen)
