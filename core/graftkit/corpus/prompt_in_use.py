"""What a model is asked in use, where it gives the answer that it has learnt from a record."""

from __future__ import annotations

from bisect import bisect_left
from contextlib import suppress
from dataclasses import replace
from typing import Protocol

from graftkit.corpus.encoding_rules import EncodingRules
from graftkit.corpus.turns import ByAnswer
from graftkit.errors import DataError
from graftkit.interfaces.samples import Completion, Conversation, Prompt, Sample

__all__ = ["LaysOutPrompts", "prompt_in_use", "up_to_last_answer"]


class LaysOutPrompts(Protocol):
    """What an `Encoder` is asked for a prompt."""

    @property
    def rules(self) -> EncodingRules:
        """What of records is encoded and learnt."""

    def prompt(self, messages: Conversation | str) -> list[int]:
        """Returns the ids of a prompt."""

    def is_cut(self, part: Conversation) -> bool:
        """Tells whether a conversation is longer than an example."""


def prompt_in_use(encoder: LaysOutPrompts, sample: Sample, *, cut: bool | None = None) -> list[int] | None:
    """Returns the ids after which, in use, a model gives the last answer that is learnt of a record.

    They are those of `Encoder.prompt`, and not always what stands before the answer in training.

    Args:
        encoder: What encodes the record in training.
        sample: A record, or one of its `Encoder.turns`.
        cut: Whether it is too long, as `Encoded.truncated` says; found out when left out, by encoding it.

    Returns:
        The ids; None where nothing is answered, or an answer itself is cut.
    """
    if isinstance(sample, Completion):
        return encoder.prompt(sample.prompt)
    if isinstance(sample, Prompt):
        return encoder.prompt(sample)
    with suppress(DataError):  # a template that takes no conversation without an answer
        asked = up_to_last_answer(encoder, sample, cut=cut)
        if asked is not None and asked.messages[-1].role == "assistant":
            return encoder.prompt(replace(asked, messages=asked.messages[:-1]))
    return None


def up_to_last_answer(encoder: LaysOutPrompts, sample: Sample, *, cut: bool | None = None) -> Conversation | None:
    """Returns a conversation up to the last answer that is learnt of it.

    Of one that is too long that is the answer that it is cut after.

    Args:
        encoder: What encodes the record in training.
        sample: A record, or one of its `Encoder.turns`.
        cut: As for `prompt_in_use`.

    Returns:
        The conversation, of which that answer alone is learnt; None where it is none or a prompt alone, or an answer
        itself is cut.

    Raises:
        DataError: As for `Encoder.encode`.
    """
    if not isinstance(sample, Conversation) or isinstance(sample, Prompt):
        return None
    cut = encoder.is_cut(sample) if cut is None else cut
    if cut and encoder.rules.overflow == "truncate":
        return None
    parts = ByAnswer(sample)
    count = _whole_answers(encoder, parts) if cut else len(parts)
    return parts[count - 1] if count else None


def _whole_answers(encoder: LaysOutPrompts, parts: ByAnswer) -> int:
    """Returns how many of the answers fit, each with all before it; few of a long conversation are looked at."""
    most = 1
    while most < len(parts) and not encoder.is_cut(parts[most - 1]):
        most *= 2
    return bisect_left(parts, True, most // 2, min(most, len(parts)), key=encoder.is_cut)
