"""What an export computes where its routers take the experts that the trained model took.

Rounding an export's weights moves the scores that routers choose by, and turns choices that are nearly even: what is
computed with other experts says nothing of the weights. So an export that differs is run once more with the experts
that the trained model took at each token. Its scores are compared with the trained model's meanwhile. They have to be
nearly the same, each choice that is turned has to be as even as they are off, and no more than half may be turned.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from graftkit.flow.exports.expert_choices import Choice, choosing

__all__ = ["RouterChoices", "SameExperts", "choices_by_sequence", "same_experts"]

_OFF = 0.3
"""How far scores may be off, as a share of what they differ by among experts; those of another router are off by 1."""
_TIMES = 4
"""How many times as much as at the positions whose scores are kept they may be off elsewhere."""
_SUMS = 1e-6
"""What the order of sums moves a score by, as a share of the largest one."""


@dataclass(frozen=True, slots=True)
class RouterChoices:
    """What a router of the trained model chose in a sequence; one that chooses groups first chooses several times.

    Attributes:
        taken: The numbers of the experts, `[tokens, choices, k]`, int32.
        scores: What it chose by at the positions that a probe keeps, `[kept, choices, experts]`, float32.
    """

    taken: torch.Tensor
    scores: torch.Tensor


@dataclass(frozen=True, slots=True)
class SameExperts:
    """What an export computes with the experts that the trained model took.

    Attributes:
        logits: For each probe the logits at its positions, `[positions, vocabulary]`.
        turned: How many choices the export makes otherwise by itself.
        choices: How many there are: one for each token and router.
    """

    logits: list[torch.Tensor]
    turned: int
    choices: int


def choices_by_sequence(
    made: Sequence[Choice], lengths: Sequence[int], positions: Sequence[Sequence[int]], *, packed: bool
) -> list[list[RouterChoices]]:
    """Sorts what routers chose by sequence.

    Args:
        made: The choices, in order.
        lengths: How many tokens each sequence has.
        positions: Where each sequence's scores are kept.
        packed: Whether all sequences were computed in one pass; else one after the other.

    Returns:
        For each sequence what each router chose, in order; nothing where there is no router, or no telling.
    """
    count, rest = divmod(len(made), 1 if packed else len(lengths))
    if rest or not count:
        return []
    found = []
    for number, (length, kept) in enumerate(zip(lengths, positions, strict=True)):
        own = made[:count] if packed else made[number * count : (number + 1) * count]
        start, tokens = (sum(lengths[:number]), sum(lengths)) if packed else (0, length)
        if any(choice.chosen.shape[:-1].numel() % tokens for choice in own):
            return []
        found.append([_of_tokens(choice, tokens, range(start, start + length), kept) for choice in own])
    return found


def _of_tokens(choice: Choice, tokens: int, own: range, kept: Sequence[int]) -> RouterChoices:
    """Returns what was chosen in one of the sequences of a pass.

    Args:
        choice: What was chosen in the pass.
        tokens: How many tokens that has.
        own: Those of the sequence.
        kept: Where its scores are kept.
    """
    scores, chosen = (tensor.reshape(tokens, -1, tensor.shape[-1]) for tensor in (choice.scores, choice.chosen))
    places = torch.tensor([own[position] for position in kept], device=scores.device)
    return RouterChoices(chosen[own.start : own.stop].to("cpu", torch.int32, copy=True), scores[places].float().cpu())


def same_experts(
    trained: Sequence[Sequence[RouterChoices]],
    positions: Sequence[Sequence[int]],
    made: Sequence[Choice],
    compute: Callable[[], list[torch.Tensor]],
) -> SameExperts | None:
    """Computes an export's logits with the experts that the trained model took.

    Args:
        trained: What that chose, from `choices_by_sequence`.
        positions: Where the scores of each sequence are kept.
        made: The choices that the export makes by itself, as `compute` does, one sequence after the other.
        compute: Gives the export's logits.

    Returns:
        The logits; None where rounding does not explain how it chooses, or it has other routers.
    """
    wanted = [router for of_sequence in trained for router in of_sequence]
    if len(wanted) != len(made) or not all(map(_fits, wanted, made)):
        return None
    forced = [
        Choice(choice.scores, router.taken.to(choice.chosen).view(choice.chosen.shape))
        for router, choice in zip(wanted, made, strict=True)
    ]
    logits, scored = choosing(forced, compute)
    count, turned, choices = len(trained[0]), 0, 0
    for router in range(count):
        own = scored[router::count]
        behind = [_behind(choice.scores, of.chosen) for choice, of in zip(own, forced[router::count], strict=True)]
        kept = [of_sequence[router] for of_sequence in trained]
        scores = [choice.scores.view(*of.taken.shape[:2], -1) for choice, of in zip(own, kept, strict=True)]
        found = torch.cat([each[at] for each, at in zip(scores, positions, strict=True)])
        expected = torch.cat([of.scores for of in kept])
        allowed = _explained(expected, found)
        if allowed is None or any((each > allowed).any() for each in behind):
            return None
        turned += sum(int((each > 0).sum()) for each in behind)
        choices += sum(each.numel() for each in behind)
    return SameExperts(logits, turned, choices) if 2 * turned <= choices else None


def _fits(router: RouterChoices, choice: Choice) -> bool:
    """Tells whether a choice is of what was kept of the trained model's."""
    taken, shape = router.taken, choice.chosen.shape
    same = taken.shape[0] * taken.shape[1] == shape[:-1].numel() and taken.shape[2] == shape[-1]
    experts = choice.scores.shape[-1]
    return same and router.scores.shape[-1] == experts and bool(((taken >= 0) & (taken < experts)).all())


def _behind(scores: torch.Tensor, taken: torch.Tensor) -> torch.Tensor:
    """Returns how far the last of the experts that were taken is below the best of the others, `[...]`."""
    best = scores.scatter(-1, taken, -torch.inf).amax(-1)
    return best - scores.gather(-1, taken).amin(-1)


def _explained(expected: torch.Tensor, found: torch.Tensor) -> float | None:
    """Returns how far two scores may change places by rounding; None where it does not explain how they are off.

    Args:
        expected: The trained model's scores, `[kept, choices, experts]`; those of experts that can't be taken are not
            finite.
        found: The export's.
    """
    known = expected.isfinite() & found.isfinite()
    count = known.sum(-1, keepdim=True).clamp_min(1)
    off, spread = (
        torch.where(known, scores - torch.where(known, scores, 0).sum(-1, keepdim=True) / count, 0)
        for scores in (found - expected, expected)
    )
    if off.square().sum() > _OFF**2 * spread.square().sum():
        return None
    return float(_TIMES * (off.amax(-1) - off.amin(-1)).max() + _SUMS * torch.where(known, expected, 0).abs().max())
