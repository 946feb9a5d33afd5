"""Finds out whether extending a tokenizer is worth it for a corpus, and by how many tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from graftkit.interfaces.tokenizer import Tokenizer
from graftkit.interfaces.vocabulary import ExtensionPlan, NewToken
from graftkit.vocabulary.cost import EmbeddingCost
from graftkit.vocabulary.measure import Measured, measure
from graftkit.vocabulary.prefix import PrefixCounter

__all__ = ["ENOUGH_OF_BEST", "WORTH_IT", "Analysis", "Point", "analyze", "learnt_tokens"]

WORTH_IT = 0.03
"""The share of tokens that an extension has to save on held-out text."""

ENOUGH_OF_BEST = 0.8
"""The share of the largest saving that is as good as it: the rest costs the most tokens."""


@dataclass(frozen=True, slots=True)
class Point:
    """What one number of new tokens gives.

    Attributes:
        asked: How many tokens are learnt: as asked, or all that the texts give where that is less.
        added: How many the tokenizer then has more than the base, missing bytes included.
        tokens: Tokens of the held-out texts.
        bytes_per_token: UTF-8 bytes of a token there, on average.
        saved: The share of the base's tokens that are saved there; negative where there are more.
        used: The share of the learnt tokens that the held-out texts use.
        scaffolding: How many learnt tokens the texts that they were learnt from do not use: others are built on them.
        parameters: By how many parameters the model grows; None without a model.
    """

    asked: int
    added: int
    tokens: int
    bytes_per_token: float
    saved: float
    used: float
    scaffolding: int
    parameters: int | None


@dataclass(frozen=True, slots=True)
class Analysis:
    """What extending would give.

    Attributes:
        learnt_from: UTF-8 bytes of the texts that tokens were learnt from.
        base: What the base makes of the held-out texts.
        extended: What the largest extension makes of them.
        points: What each number of tokens gives there, ascending; fewer than asked for where the texts give no more.
        coarsens: Whether the extension only joins the base's tokens.
        plan: The largest extension.
    """

    learnt_from: int
    base: Measured
    extended: Measured
    points: tuple[Point, ...]
    coarsens: bool
    plan: ExtensionPlan

    @property
    def advice(self) -> Point | None:
        """The number to take: the smallest that gives most of the largest saving; None where none is worth it."""
        best = max(point.saved for point in self.points)
        if best < WORTH_IT:
            return None
        return next(point for point in self.points if point.saved >= ENOUGH_OF_BEST * best)

    def to_json(self) -> dict[str, Any]:
        """Returns it as JSON."""
        advice = self.advice
        return {
            "learnt_from_bytes": self.learnt_from,
            "held_out_bytes": self.base.bytes,
            "base": {
                "tokens": self.base.tokens,
                "bytes_per_token": self.base.bytes_per_token,
                "lost_characters": dict(self.base.lost),
            },
            "still_lost_characters": dict(self.extended.lost),
            "points": [{name: getattr(point, name) for name in Point.__slots__} for point in self.points],
            "coarsens": self.coarsens,
            "worth_it": advice is not None,
            "advised_tokens": advice and advice.asked,
        }


def analyze(
    base: Tokenizer,
    extend: Callable[[int], ExtensionPlan],
    held_out: Iterable[str],
    counts: Sequence[int],
    *,
    learnt_from: int = 0,
    cost: EmbeddingCost | None = None,
) -> Analysis:
    """Measures on held-out texts what several numbers of new tokens would save.

    Where extending joins the base's tokens, the most tokens are learnt once, and the smaller numbers follow from them;
    a family that cuts texts anew, as Unigram does, is extended for each.

    Args:
        base: The tokenizer.
        extend: Learns so many tokens, from other texts than the held-out ones.
        held_out: The texts to judge by; iterated more than once.
        counts: How many tokens to learn; several numbers.
        learnt_from: UTF-8 bytes of the texts that `extend` learns from.
        cost: What a token costs the model.

    Example:
        >>> analyze(base, lambda n: backend.extend(base, learn, ExtensionSpec(n)), held_out, [500, 2000])
        ...     # doctest: +SKIP
    """
    plan = extend(max(counts))
    wanted = _possible(counts, plan)
    judge = _Judge(base, measure(base, held_out), cost)
    full = measure(plan.tokenizer, held_out)
    counter = _counter(plan)
    points = [judge.point(wanted[-1], plan, full.counts)]
    for count in reversed(wanted[:-1]):
        if counter:
            points.append(judge.prefix(count, plan, counter, full.counts))
        else:
            smaller = extend(count)
            points.append(judge.point(count, smaller, measure(smaller.tokenizer, held_out).counts))
    return Analysis(learnt_from, judge.base, full, tuple(reversed(points)), plan.coarsens, plan)


def learnt_tokens(tokens: Iterable[NewToken]) -> list[NewToken]:
    """Returns the new tokens but for the single bytes that the base lacked, which come whatever the texts say."""
    return [token for token in tokens if token.parts or len(token.data) > 1]


def _possible(counts: Sequence[int], plan: ExtensionPlan) -> list[int]:
    """Returns the numbers, ascending, the largest being what the texts gave where that is less than was asked for."""
    learnt = len(learnt_tokens(plan.tokens))
    return sorted({min(count, learnt) for count in counts})


def _counter(plan: ExtensionPlan) -> PrefixCounter | None:
    try:
        counter = PrefixCounter(plan.tokens) if plan.coarsens else None
    except ValueError:
        return None
    return counter if counter and len(counter.learnt) == len(learnt_tokens(plan.tokens)) else None


@dataclass(frozen=True, slots=True)
class _Judge:
    """Makes points; `base` is what the tokenizer made of the held-out texts."""

    tokenizer: Tokenizer
    base: Measured
    cost: EmbeddingCost | None

    def point(self, asked: int, plan: ExtensionPlan, counts: Mapping[int, int]) -> Point:
        uses = {token.id: token.uses for token in plan.tokens}
        return self._point(asked, plan.tokens, uses, counts)

    def prefix(self, asked: int, plan: ExtensionPlan, counter: PrefixCounter, counts: Mapping[int, int]) -> Point:
        later = set(counter.learnt[asked:])
        new = [token for token in plan.tokens if token.id not in later]
        uses = counter.counts({token.id: token.uses for token in plan.tokens}, asked)
        return self._point(asked, new, uses, counter.counts(counts, asked))

    def _point(self, asked: int, new: Sequence[NewToken], uses: Mapping[int, int], counts: Mapping[int, int]) -> Point:
        tokens = sum(counts.values())
        learnt = [token.id for token in learnt_tokens(new)]
        return Point(
            asked,
            len(new),
            tokens,
            self.base.bytes / tokens if tokens else 0.0,
            1 - tokens / self.base.tokens if self.base.tokens else 0.0,
            sum(id in counts for id in learnt) / len(learnt) if learnt else 0.0,
            sum(not uses.get(id) for id in learnt),
            self.cost.added(self.tokenizer.vocab_size + len(new)) if self.cost else None,
        )
