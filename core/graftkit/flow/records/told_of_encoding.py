"""Tells what encoding records cut, left out or took for plain characters."""

from __future__ import annotations

from collections.abc import Iterator

from graftkit.corpus.encode import Encoder, Overflow
from graftkit.corpus.tally import Tally
from graftkit.interfaces.objective_config import AnyObjectiveConfig

__all__ = ["told_of_encoding", "way_to_fit"]

_LOSE: dict[Overflow, str] = {
    "drop_turns": "end with the last answer that fits",
    "drop": "are left out",
    "truncate": "lose their end",
    "error": "are refused",
}


def told_of_encoding(tally: Tally, side: str, encoder: Encoder, objective: AnyObjectiveConfig) -> Iterator[str]:
    """Yields what the user should know of records that were encoded.

    Args:
        tally: What became of them.
        side: What they are called: "records", "holdout records".
        encoder: What has encoded them.
        objective: What it says of the records that it takes.
    """
    if tally.truncated:
        places = ", ".join(tally.overlong) + (", ..." if tally.truncated > len(tally.overlong) else "")
        told = f"{tally.truncated} of {tally.records} {side} are longer than {encoder.max_length} tokens"
        yield f"{told} and {_LOSE[_overflow(encoder, objective)]}: {places}"
    if tally.roomless:
        told = f"{tally.roomless} of {tally.records} {side} are prompts that leave no room for an answer"
        yield f"{told} within {encoder.max_length} tokens (data.max_length) and are left out"
    if tally.lost:
        yield f"{tally.lost} of {tally.records} {side} have nothing left to learn and are not used"
    for what, count in tally.left_out.items():
        yield f"the chat template leaves out the {what} of {count} of {tally.records} {side}"
    if tally.surplus:
        yield (
            f"{tally.surplus:,} of {tally.records:,} {side} have more negatives than objective.negatives: the first "
            "ones are learnt from"
        )
    if tally.untokened:
        yield f"{tally.untokened:,} words of {side} have no token of their own: their tags are not learnt"
    yield from _spelt(tally, side)
    if tally.unmarked:
        told = f"{tally.unmarked} of {tally.records} {side} have an answer outside the chat template's"
        yield f"{told} {{% generation %}} blocks, which is not learnt"


def way_to_fit(encoder: Encoder, objective: AnyObjectiveConfig) -> str:
    """Says what to do where no record has a token to learn within the longest example."""
    if _overflow(encoder, objective) == "truncate":
        return "Raise data.max_length: what stands before the first token to learn fills it."
    answer = " with its first answer" if _overflow(encoder, objective) == "drop_turns" else ""
    return f"Raise data.max_length: no record fits in it{answer}."


def _overflow(encoder: Encoder, objective: AnyObjectiveConfig) -> Overflow:
    """Returns what becomes of records that are too long."""
    if encoder.rules.overflow != "drop_turns" or objective.learns_from in ("answers", "prompts"):
        return encoder.rules.overflow
    return "truncate" if objective.judges_texts else "drop"


def _spelt(tally: Tally, side: str) -> Iterator[str]:
    """Tells of control tokens in plain characters, which someone may have meant as such."""
    for found, what, way in (
        (tally.spelt, "spell control tokens", "data.special_tokens: parse makes them tokens"),
        (tally.said, "spell control tokens in an answer", "reasoning and tool calls have fields of their own"),
    ):
        if found:
            usual = max(found, key=lambda token: found[token])
            told = f"{sum(found.values())} of {tally.records} {side} {what} such as {usual!r}"
            yield f"{told}; they are plain characters: {way}"
