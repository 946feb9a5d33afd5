"""Counts of encoded records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["Tally"]

_PLACES = 3


@dataclass(frozen=True, slots=True)
class Tally:
    """Counts of some records; those of two stretches of records can be added.

    Attributes:
        records: How many there were.
        examples: How many examples came of them.
        truncated: Records that were too long: they lost their end, or were left out.
        overlong: Where the first of them stand.
        lost: Records of which nothing is left to learn.
        endless: Records without a stop token at their end.
        loss_tokens: Tokens in the loss.
        stops: The special tokens that end a stretch in the loss, ascending.
        systems: What conversations start with, a system message or None: up to two different ones.
        tools: What conversations' assistants may call, as JSON, "" for nothing: up to two different ones.
        prompt: What to try the model with: the first short question or prompt, or how a text begins; or None.
        answers: The numbers of the examples that have a prompt and an answer.
        answered: The number of the record that each of `answers` is of.
        left_out: What the chat template leaves out -> in how many records.
        spelt: A control token -> how many texts, prompts and completions spell it first, as plain characters.
        said: A control token -> how many conversations spell it first in an answer, as plain characters.
        unmarked: Records with an answer that is not learnt, outside the template's `{% generation %}` blocks.
        untokened: Words that have no token of their own, and so a tag that is not learnt.
        surplus: Records with more negatives than are learnt from.
        roomless: Prompts that leave no room for an answer, and are left out.
    """

    records: int = 0
    examples: int = 0
    truncated: int = 0
    overlong: Sequence[str] = ()
    lost: int = 0
    endless: int = 0
    loss_tokens: int = 0
    stops: Sequence[int] = ()
    systems: Sequence[str | None] = ()
    tools: Sequence[str] = ()
    prompt: str | None = None
    answers: Sequence[int] = ()
    answered: Sequence[int] = ()
    left_out: Mapping[str, int] = field(default_factory=dict)
    spelt: Mapping[str, int] = field(default_factory=dict)
    said: Mapping[str, int] = field(default_factory=dict)
    unmarked: int = 0
    untokened: int = 0
    surplus: int = 0
    roomless: int = 0

    def plus(self, other: Tally, answers: int) -> Tally:
        """Returns the counts of these records and those that follow them.

        Args:
            other: The records that follow.
            answers: How many of `answers` are kept at most.
        """
        return Tally(
            records=self.records + other.records,
            examples=self.examples + other.examples,
            truncated=self.truncated + other.truncated,
            overlong=[*self.overlong, *other.overlong][:_PLACES],
            lost=self.lost + other.lost,
            endless=self.endless + other.endless,
            loss_tokens=self.loss_tokens + other.loss_tokens,
            stops=sorted({*self.stops, *other.stops}),
            systems=list(dict.fromkeys([*self.systems, *other.systems]))[:2],
            tools=list(dict.fromkeys([*self.tools, *other.tools]))[:2],
            prompt=self.prompt if self.prompt is not None else other.prompt,
            answers=[*self.answers, *(self.examples + number for number in other.answers)][:answers],
            answered=[*self.answered, *(self.records + number for number in other.answered)][:answers],
            left_out=dict(Counter(self.left_out) + Counter(other.left_out)),
            spelt=dict(Counter(self.spelt) + Counter(other.spelt)),
            said=dict(Counter(self.said) + Counter(other.said)),
            unmarked=self.unmarked + other.unmarked,
            untokened=self.untokened + other.untokened,
            surplus=self.surplus + other.surplus,
            roomless=self.roomless + other.roomless,
        )

    def to_json(self) -> dict[str, Any]:
        """Returns the counts as JSON."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Tally:
        """Returns the counts that `to_json` gave."""
        return cls(**data)
