"""A format and columns, guessed of a file by its columns' names, and how a recipe says them."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from graftkit.corpus.columns import fits
from graftkit.interfaces.record_format import Column, RecordFormat
from graftkit.interfaces.yaml_word import yaml_word

__all__ = [
    "ANSWERED",
    "ANSWERING",
    "FACTS",
    "PAIRS",
    "WRONG",
    "Guess",
    "columns_entry",
    "corrected",
    "entry",
    "fitting_as",
    "guess_of",
    "question_and_answer",
    "reasoning_in",
]

FACTS = re.compile(
    r"(?:.*[_-])?(?:id|idx|index|uuid|hash|url|source|model|type|lang|language|category|subject|topic|date|timestamp|domain|"
    r"split|title|path|version|dataset|metadata|kind|task|error_message|system|system_prompt)",
    re.IGNORECASE,
)
"""Names of columns that say something of a record, and are neither asked nor answered in it."""

_ASKED = re.compile("question|prompt|query|instruction|problem|input|^src$", re.IGNORECASE)

ANSWERED = re.compile(
    "answer|response|output|completion|solution|summary|target|reply|highlights|corrections?$|^tgt$|^sql$|^code$",
    re.IGNORECASE,
)

WRONG = re.compile("incorrect|wrong|distractor|reject|negative", re.IGNORECASE)
"""What data sets call answers that are none."""

PAIRS = ({"sentence1", "sentence2"}, {"premise", "hypothesis"}, {"question1", "question2"})
"""What data sets call two texts that belong together."""

ANSWERING = ("question-answer", "alpaca")
"""The formats that read the reasoning before an answer in a column of its own."""

_REASONING = re.compile(
    "(?:.*[_ ])?(?:cot|chain[_ ]of[_ ]thoughts?|reasoning|thinking|thoughts?|thinking_trajectory)(?:_trace)?",
    re.IGNORECASE,
)
"""What data sets call what is thought before an answer."""

_COLUMNS = (
    *("messages", "conversations", "prompt", "completion", "chosen", "rejected", "question", "answer"),
    *("instruction", "input", "output", "response", "text", "label", "tokens", "words", "ner_tags", "pos_tags"),
    *("text_pair", "sentence1", "sentence2", "premise", "hypothesis", "question1", "question2"),
)
"""Columns of the built-in formats of which a name with a typing error is recognized."""

_LONGEST_TYPO = 20
"""Characters of a name that may be one of these with a typing error."""

Guess = Mapping[str, Any]
"""A format and its columns, as a recipe's `data.train` names them."""


def guess_of(format: str, columns: Mapping[str, str]) -> Guess:
    """Returns a format, by its name, with those columns that it calls otherwise than the file does."""
    return {"format": format, "columns": {ours: theirs for ours, theirs in columns.items() if ours != theirs}}


def entry(guess: Guess) -> str:
    """Returns what an entry of `data.train` says of a guess, without the path.

    Example:
        >>> entry(guess_of("label", {"text": "review", "label": "label"}))
        'format: label, columns: {text: review}'
    """
    format = guess["format"]
    if isinstance(format, Mapping):
        format = f"{{{', '.join(f'{key}: {yaml_word(value)}' for key, value in format.items())}}}"
    return f"format: {format}{columns_entry(guess['columns'])}"


def columns_entry(columns: Mapping[str, str]) -> str:
    """Returns the part of an entry that names columns, "" where none is called otherwise."""
    told = [f"{ours}: {yaml_word(theirs)}" for ours, theirs in columns.items() if ours != theirs]
    return f", columns: {{{', '.join(told)}}}" if told else ""


def fitting_as(
    way: Mapping[str, str], found: Mapping[str, Column], formats: Mapping[str, RecordFormat]
) -> Guess | None:
    """Returns the one format that fits where columns are called otherwise, each by its new name; None without one."""
    fitting = fits({ours: found[name] for name, ours in way.items()}, formats)
    if len(fitting) != 1:
        return None
    changed = {ours: name for name, ours in way.items() if ours != name and ours in fitting[0].columns}
    return guess_of(fitting[0].name, changed)


def corrected(name: str, found: Collection[str]) -> str:
    """Returns the known column that a name is nearly, unless the file has that one; else the name."""
    if len(name) > _LONGEST_TYPO or FACTS.fullmatch(name):
        return name
    near = difflib.get_close_matches(name.lower(), [known for known in _COLUMNS if known not in found], 1, 0.8)
    return near[0] if near and name not in _COLUMNS else name


def question_and_answer(texts: Sequence[str], *, alone: bool = True) -> tuple[str, str] | None:
    """Returns the columns that are likely a question and its answer; None where nothing is said of one of them.

    Args:
        texts: The columns of texts.
        alone: Whether the file has no others, of which one may be the answer.
    """
    texts = [name for name in texts if not WRONG.search(name)]
    asked = [name for name in texts if _ASKED.search(name)]
    answered = [name for name in texts if ANSWERED.search(name) and name not in asked[:1]]
    answered = [name for name in answered if not _ASKED.search(name)] or answered
    if asked and answered:
        return asked[0], answered[-1]
    others = [name for name in texts if name not in (*asked, *answered)]
    if {*asked} == {"question", "query"} and not answered:  # such as Spider's, whose query is SQL
        return "question", "query"
    if answered and others:
        return others[0], answered[-1]
    return (others[0], others[1]) if alone and len(others) == 2 and not asked else None


def reasoning_in(found: Mapping[str, Column]) -> str | None:
    """Returns the column of what is thought before an answer, if there is one alone, of another name than is read."""
    names = [name for name, column in found.items() if column.is_text and _REASONING.fullmatch(name)]
    return names[0] if len(names) == 1 and "reasoning_content" not in found else None
