"""Lays records out as far as they are kept: of what is longer than any example its beginning is enough."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from graftkit.corpus.learnt import Part as LearntPart
from graftkit.corpus.record_runs import Notes, RecordRuns, Unencoded
from graftkit.corpus.runs import Run
from graftkit.interfaces.samples import Conversation, LongText, Text
from graftkit.interfaces.tokenizer import Tokenizer

__all__ = ["CHARACTERS_A_TOKEN", "KeptRuns", "LaidOut"]

CHARACTERS_A_TOKEN = 4
"""How many characters a token has, about."""

_LONG = 1 << 16
"""The characters from which on a text is looked at before all of it is encoded, which takes hundreds of bytes each."""

_REMEMBERED = 1 << 24
"""The most characters of a record that is remembered."""


@dataclass(frozen=True, slots=True)
class LaidOut:
    """A record as it is laid out, and what is to be told of it.

    Attributes:
        runs: Its runs.
        notes: What is to be told of it.
        characters: How many it has; 0 where all of them are among the runs.
    """

    runs: list[Run]
    notes: Notes
    characters: int = 0


class KeptRuns:
    """Lays records out up to where they are longer than a whole example may be for certain.

    Args:
        layout: Lays out all of a record.
        tokenizer: What makes its tokens.
        max_length: The most tokens of an example.
    """

    def __init__(self, layout: RecordRuns, tokenizer: Tokenizer, max_length: int) -> None:
        self._layout, self._tokenizer, self._max_length = layout, tokenizer, max_length
        self._shortened: tuple[Unencoded, LaidOut] | None = None

    def of(self, sample: Unencoded) -> LaidOut:
        """Returns the runs of a record; the last one that was shortened is laid out once.

        That may have thousands of messages, and be asked for as often as it has answers. Of what is cut off the last
        token in the loss is kept where it is a special one, which tells whether the model learns to stop there.

        Raises:
            DataError: As for `RecordRuns.stretches`.
        """
        if self._shortened and _is_same(sample, self._shortened[0]):
            return self._shortened[1]
        notes = Notes()
        stretches = self._layout.stretches(sample, notes)
        text = "".join(stretch.text for stretch in stretches)
        kept = len(text if isinstance(sample, Text | LongText) else self.beginning(text))
        if kept == len(text):
            return LaidOut([run for stretch in stretches for run in self._layout.split(stretch)], notes)
        found = LaidOut(self._first_runs(stretches, kept), notes, len(text))
        if len(text) <= _REMEMBERED:
            self._shortened = sample, found
        return found

    def _first_runs(self, stretches: Sequence[Run | LearntPart], left: int) -> list[Run]:
        """Returns the runs of the first `left` characters, and the special token that the last answer ends with."""
        kept: list[Run] = []
        for number, stretch in enumerate(stretches):
            runs = self._layout.split(stretch)
            for run in runs:
                if left <= 0:
                    last = self._last_learnt(stretches[number + 1 :]) or self._last_learnt([run, *runs])
                    return kept if last is None or last.special is None else [*kept, last]
                kept.append(run if run.special is not None else replace(run, text=run.text[:left]))
                left -= len(run.text)
        return kept

    def _last_learnt(self, stretches: Sequence[Run | LearntPart]) -> Run | None:
        """Returns the last run in the loss; runs are made of few of many stretches."""
        runs = (run for stretch in reversed(stretches) for run in reversed([*self._layout.split(stretch)]))
        return next((run for run in runs if run.loss_weight), None)

    def beginning(self, text: str) -> str:
        """Returns the beginning of a text that doesn't fit, with more tokens than are looked at, or else all of it.

        How many characters a token has at most can't be told: normalizers drop some, and one unknown token may stand
        for a whole word. Of twice as many tokens as an example has the first half doesn't depend on the rest. What
        spells a special token counts as one, which is the fewest that it may become.
        """
        length = max(_LONG, CHARACTERS_A_TOKEN * self._max_length)
        while length < len(text):
            if len(self._tokenizer.encode(text[:length], "all")) > 2 * self._max_length:
                return text[:length]
            length *= 4
        return text


def _is_same(sample: Unencoded, other: Unencoded) -> bool:
    """Tells whether two records are laid out alike; values of tool calls that are equal may be written differently."""
    if sample is other:
        return True
    return sample == other and _values_in(sample) == _values_in(other)


def _values_in(sample: Unencoded) -> str:
    if not isinstance(sample, Conversation):
        return ""
    return repr([sample.tools, [message.tool_calls for message in sample.messages if message.tool_calls]])
