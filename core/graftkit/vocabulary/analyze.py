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
"""The share of tokens that an extension has to save on holdout text."""

ENOUGH_OF_BEST = 0.8
"""The share of the largest saving that is enough: the rest of it takes most of the tokens."""


@dataclass(frozen=True, slots=True)
class Point:
    """The effect of one number of new tokens on the holdout texts.

    Attributes:
        asked: How many tokens are learnt: as requested, or as many as the texts give.
        added: How many more tokens than the base the tokenizer has, missing bytes included.
        tokens: The number of tokens of the holdout texts.
        bytes_per_token: UTF-8 bytes per token, on average.
        saved: The reduction of the number of tokens, as a share of the base's; negative where there are more.
        used: The share of the learnt tokens that the holdout texts use.
        scaffolding: How many learnt tokens even the training texts do not use, since longer ones replaced them.
        parameters: How many parameters the model gains; None without a model.
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
    """The effect of extensions of several sizes on holdout texts.

    Attributes:
        learnt_from: UTF-8 bytes of the texts that tokens were learnt from.
        base: The holdout texts with the base tokenizer.
        extended: The holdout texts with the largest extension.
        points: One for each number of tokens, ascending; fewer than requested where the texts give no more.
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
        """The smallest number with 80% of the largest saving; None where that is under 3%."""
        best = max(point.saved for point in self.points)
        if best < WORTH_IT:
            return None
        return next(point for point in self.points if point.saved >= ENOUGH_OF_BEST * best)

    def to_json(self) -> dict[str, Any]:
        """Returns it as JSON."""
        advice = self.advice
        return {
            "learnt_from_bytes": self.learnt_from,
            "holdout_bytes": self.base.bytes,
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
    holdout: Iterable[str],
    counts: Sequence[int],
    *,
    learnt_from: int = 0,
    cost: EmbeddingCost | None = None,
) -> Analysis:
    """Measures on holdout texts how many tokens extensions of several sizes save.

    Where an extension only joins the base's tokens, the largest number is learnt once and the smaller ones are derived
    from it; otherwise, as with Unigram, the base is extended for each number.

    Args:
        base: The tokenizer.
        extend: Returns an extension by a number of tokens, learnt from other texts than the holdout ones.
        holdout: The texts to measure on; iterated more than once.
        counts: The numbers of tokens to learn; at least one.
        learnt_from: UTF-8 bytes of the texts that `extend` learns from.
        cost: The model's parameters per token, or None.

    Raises:
        RequestError: The base can't be extended, or the texts hold nothing to learn.

    Example:
        >>> analyze(base, lambda n: backend.extend(base, learn, ExtensionSpec(n)), holdout, [500, 2000])
        ...     # doctest: +SKIP
    """
    plan = extend(max(counts))
    learnt = len(learnt_tokens(plan.tokens))
    wanted = sorted({min(count, learnt) for count in counts})  # the texts may give fewer than requested
    judge = _Judge(base, measure(base, holdout), cost)
    full = measure(plan.tokenizer, holdout)
    counter = _counter(plan)
    points = [judge.point(wanted[-1], plan, full.counts)]
    for count in reversed(wanted[:-1]):
        if counter:
            points.append(judge.prefix(count, plan, counter, full.counts))
        else:
            smaller = extend(count)
            points.append(judge.point(count, smaller, measure(smaller.tokenizer, holdout).counts))
    return Analysis(learnt_from, judge.base, full, tuple(reversed(points)), plan.coarsens, plan)


def learnt_tokens(tokens: Iterable[NewToken]) -> list[NewToken]:
    """Returns the new tokens without the missing bytes, which are added whatever the texts are."""
    return [token for token in tokens if token.parts or len(token.data) > 1]


def _counter(plan: ExtensionPlan) -> PrefixCounter | None:
    try:
        counter = PrefixCounter(plan.tokens) if plan.coarsens else None
    except ValueError:
        return None
    return counter if counter and len(counter.learnt) == len(learnt_tokens(plan.tokens)) else None


@dataclass(frozen=True, slots=True)
class _Judge:
    """Makes points.

    Attributes:
        tokenizer: The base tokenizer.
        base: The holdout texts with it.
        cost: The model's parameters per token, or None.
    """

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
