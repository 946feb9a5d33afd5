"""What a run's folder says, as the report and a comparison read it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from graftkit.report.run_manifest import RunManifest

__all__ = ["LengthFigures", "RunData", "ShownAnswer", "WorstRecord", "answers_side_by_side", "length_figures"]

_BARS = 8
"""How many bars a drawing of lengths has."""


@dataclass(frozen=True, slots=True)
class ShownAnswer:
    """What was asked of a holdout record, and what the model answered before training and after it.

    Attributes:
        where: The record's file and line; "" where the run's version kept none.
        question: What the record asks, or the prompt as it was laid out.
        expected: What it answers.
        before: What the model answered before training, or None where that is not known.
        after: What it answered after training, or None.
        right_before: Whether the first metric takes that for a right answer.
        right_after: The same of the answer after training.
    """

    where: str
    question: str
    expected: str
    before: str | None = None
    after: str | None = None
    right_before: bool = False
    right_after: bool = False


@dataclass(frozen=True, slots=True)
class WorstRecord:
    """A holdout record that the trained model predicts badly.

    Attributes:
        where: Its file and line.
        loss: Its loss after training: of a token in nats, or what the objective minimizes.
        loss_tokens: How many of its tokens are in the loss.
        texts: The end of each of its sequences.
    """

    where: str
    loss: float
    loss_tokens: int
    texts: Sequence[str]


@dataclass(frozen=True, slots=True)
class LengthFigures:
    """How long examples are, in tokens.

    Attributes:
        examples: How many there are.
        tokens: Their tokens.
        loss_tokens: Those in the loss.
        shortest: The shortest one's.
        median: Half are no longer.
        long: 95 in 100 are no longer.
        longest: The longest one's.
        counts: How many there are between two lengths: the lowest, the highest, the number.
    """

    examples: int
    tokens: int
    loss_tokens: int
    shortest: int
    median: int
    long: int
    longest: int
    counts: Sequence[tuple[int, int, int]]


@dataclass(frozen=True, slots=True)
class RunData:
    """A run.

    Attributes:
        folder: Its folder.
        manifest: What manifest.json says.
        steps: The lines of metrics.jsonl that are of steps.
        holdout: The holdout loss after each step that was evaluated while the model was trained.
        answers: What was answered to holdout records.
        worst: The holdout records with the highest loss after training, the highest first.
        examined: How many holdout records those were taken of.
        lengths: How long examples are, by "training" and "holdout".
        damage: What could not be read, in words.
    """

    folder: Path
    manifest: RunManifest
    steps: Sequence[Mapping[str, Any]] = ()
    holdout: Mapping[int, float] = field(default_factory=dict)
    answers: Sequence[ShownAnswer] = ()
    worst: Sequence[WorstRecord] = ()
    examined: int = 0
    lengths: Mapping[str, LengthFigures] = field(default_factory=dict)
    damage: Sequence[str] = ()

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.resolve().name


def answers_side_by_side(before: Sequence[Any], after: Sequence[Any]) -> list[ShownAnswer]:
    """Returns the answers before and after training to the same records, in the records' order.

    Args:
        before: What answers-before.json lists; whatever is no answer is left out.
        after: The same of answers-after.json.
    """
    found: dict[tuple[str, str, str], dict[str, Any]] = {}
    for moment, listed in (("before", before), ("after", after)):
        for each in listed:
            if not isinstance(each, Mapping) or not isinstance(each.get("answer"), str):
                continue
            key = tuple(str(each.get(name, "")) for name in ("where", "prompt", "expected"))
            facts = found.setdefault((key[0], key[1], key[2]), {"question": each.get("question")})
            facts[moment], facts[f"right_{moment}"] = each["answer"], each.get("right") is True
    return [
        ShownAnswer(where, str(facts.pop("question") or prompt), expected, **facts)
        for (where, prompt, expected), facts in found.items()
    ]


def length_figures(lengths: Sequence[int], loss_tokens: int) -> LengthFigures | None:
    """Returns how long examples are; None where there are none.

    Args:
        lengths: The tokens of each.
        loss_tokens: How many of all tokens are in the loss.
    """
    if not lengths:
        return None
    ordered = sorted(lengths)
    last = len(ordered) - 1
    low, high = ordered[0], ordered[-1]
    width = max(1, -(-(high - low + 1) // _BARS))
    counts = [0] * (1 + (high - low) // width)
    for length in ordered:
        counts[(length - low) // width] += 1
    bounds = [(low + number * width, min(high, low + (number + 1) * width - 1)) for number in range(len(counts))]
    return LengthFigures(
        examples=len(ordered),
        tokens=sum(ordered),
        loss_tokens=loss_tokens,
        shortest=low,
        median=ordered[last // 2],
        long=ordered[round(0.95 * last)],
        longest=high,
        counts=[(*bound, count) for bound, count in zip(bounds, counts, strict=True)],
    )
