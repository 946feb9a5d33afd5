"""What a format that fits a file leaves out of it and is likely meant, and what a recipe says to read it."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from graftkit.corpus.columns import fits
from graftkit.flow.records.format_guess import (
    ANSWERED,
    ANSWERING,
    FACTS,
    Guess,
    columns_entry,
    corrected,
    entry,
    fitting_as,
    guess_of,
    question_and_answer,
    reasoning_in,
)
from graftkit.flow.records.jq_commands import Look
from graftkit.interfaces.record_format import Column, RecordFormat
from graftkit.interfaces.yaml_word import yaml_word
from graftkit.visible import one_line

__all__ = ["Fit", "left_out", "unread_columns"]

_SHOWN, _LONGEST_NAME = 40, 100
"""How many columns that are not read are told, and how many characters of the name of each."""


@dataclass(frozen=True, slots=True)
class Fit:
    """A file that a format fits.

    Attributes:
        look: What the file holds, and which of its columns the format reads.
        format: What the recipe calls the format.
        columns: The names that the recipe gives columns, and the file's own.
        formats: The formats, by the names that a recipe gives them.
    """

    look: Look
    format: str
    columns: Mapping[str, str]
    formats: Mapping[str, RecordFormat]

    @property
    def found(self) -> Mapping[str, Column]:
        """The file's columns, by the names that the recipe gives them."""
        return self.look.found

    @property
    def read(self) -> Collection[str]:
        """The columns that the format reads."""
        return self.look.read

    @property
    def unread(self) -> list[str]:
        """The columns that it does not read, in the file's order."""
        return [name for name in self.found if name not in self.read]

    def with_columns(self, guess: Guess) -> Guess:
        """Returns a guess of the columns as they are called here by what the file calls them, and the recipe's others.

        Example:
            >>> fit = Fit(Look({}, []), "text", {"text": "review"}, {})
            >>> fit.with_columns(guess_of("label", {"label": "label_coarse"}))["columns"]
            {'text': 'review', 'label': 'label_coarse'}
        """
        meant = {ours: self.columns.get(name, name) for ours, name in guess["columns"].items()}
        others = {ours: name for ours, name in self.columns.items() if name not in meant.values()}
        return {**guess, "columns": {**others, **meant}}


_LeftOut = tuple[str, Guess] | None
"""What is wrong, and what reads the column, of those in `found`; None where nothing of a kind is left out."""


def left_out(fit: Fit, path: str) -> tuple[str, str, Guess] | None:
    """Returns what would be left out and is likely meant, what to write, and what that says; None where nothing is.

    Args:
        fit: The file, and the format that fits it.
        path: The path that the recipe gives.
    """
    told = next(filter(None, (kind(fit) for kind in _KINDS)), None)
    if told is None:
        return None
    message, guess = told[0], fit.with_columns(told[1])
    unused, file = ", ".join(map(yaml_word, fit.unread)), yaml_word(path)
    as_it_is = f"{{path: {file}{columns_entry(fit.columns)}, unused: [{unused}]}}"
    return message, f"Write {{path: {file}, {entry(guess)}}}, or, where it is not meant, {as_it_is}.", guess


def unread_columns(left: Iterable[str], read: Collection[str]) -> str:
    """Returns the names of columns that are not read, those that may be misspelt with what is probably meant.

    Of very many the first ones, and of very long ones their beginnings.

    Args:
        left: The columns that are not read.
        read: Those that are.

    Example:
        >>> unread_columns(["id", "lable"], {"text"})
        "id, lable (is 'label' meant?)"
    """
    names = list(left)
    meant = {name: corrected(name, read) for name in names[:_SHOWN]}
    shown = ", ".join(
        one_line(name, _LONGEST_NAME) + (f" (is '{known}' meant?)" if known != name else "")
        for name, known in meant.items()
    )
    return shown + (f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else "")


def _misspelt(fit: Fit) -> _LeftOut:
    """A column that is not read for a typing error in its name."""
    way = {name: name if name in fit.read else corrected(name, fit.found) for name in fit.found}
    guess = fitting_as(way, fit.found, fit.formats) if len({*way.values()}) == len(way) else None
    if guess is None or not guess["columns"]:
        return None
    ours, theirs = next(iter(guess["columns"].items()))
    return f"'{theirs}' would be read, as {guess['format']}, if it was called {ours}", guess


def _context(fit: Fit) -> _LeftOut:
    """What a question is about."""
    context = next((name for name in _CONTEXTS if name in fit.unread and fit.found[name].is_text), None)
    pair = question_and_answer([name for name in fit.found if name in fit.read and not FACTS.fullmatch(name)])
    if context is None or pair is None:
        return None
    mapped = {"instruction": pair[0], "input": context, "output": pair[1]}
    theirs = {name: ours for ours, name in mapped.items()}
    fitting = fits({theirs.get(name, name): column for name, column in fit.found.items()}, fit.formats)
    if [fits_so.name for fits_so in fitting] != ["alpaca"]:
        return None
    return f"'{context}' beside '{pair[0]}' and '{pair[1]}' would not be read", guess_of("alpaca", mapped)


_CONTEXTS = ("context", "passage")
"""What data sets call the text that a question is about."""


def _label(fit: Fit) -> _LeftOut:
    """The label of a text that would be read without it."""
    named = (name for name in fit.found if name in fit.look.words or _A_LABEL.fullmatch(name))
    label = next((name for name in named if fit.found[name].types <= _PLAIN), None)
    if label is None or label in fit.read or not {*fit.read} <= {"text", "content"}:
        return None
    guess = fitting_as({name: "label" if name == label else name for name in fit.found}, fit.found, fit.formats)
    if guess is None or guess["format"] != "label":
        return None
    return f"'{label}' beside '{next(iter(fit.read))}' would not be read", guess


_PLAIN = {"number", "string", "boolean", "null"}
_A_LABEL = re.compile(r"(?:\w+[_-])?label(?:[_-]\w+)?", re.IGNORECASE)
"""What data sets call the label of a text where it has several, such as TREC's."""


def _answer(fit: Fit) -> _LeftOut:
    """The answer of a text that would be read alone."""
    answer = next((name for name in fit.unread if fit.found[name].is_text and ANSWERED.search(name)), None)
    read = [*fit.read]
    if answer is None or len(read) != 1 or read[0] not in ("text", "content"):
        return None
    guess = guess_of("question-answer", {"question": read[0], "answer": answer})
    return f"'{answer}' beside '{read[0]}' would not be read", guess


def _tools(fit: Fit) -> _LeftOut:
    """The tools of a conversation, under another name."""
    tools = next((name for name in _TOOLS if name in fit.unread), None)
    if tools is None or not {"messages", "conversations", "conversation"} & {*fit.read}:
        return None
    guess = fitting_as({name: "tools" if name == tools else name for name in fit.found}, fit.found, fit.formats)
    if guess is None or guess["columns"] != {"tools": tools}:
        return None
    return f"'{tools}' beside messages would not be read", guess


_TOOLS = ("available_tools", "tools_list", "tool_list", "tool_definitions", "tool_schemas", "tools_json")
"""What data sets call the descriptions of tools, besides what is read as such."""


def _truth(fit: Fit) -> _LeftOut:
    """The answer that a prompt should get."""
    truth = next((name for name in _TRUTHS if name in fit.unread and fit.found[name].is_text), None)
    asked = next((name for name in ("prompt", "messages") if name in fit.read), None)
    if truth is None or asked is None or not _nobody_answers(fit.look, asked):
        return None
    if fit.found[asked].is_text:
        guess = guess_of("question-answer", {"question": asked, "answer": truth})
    else:
        guess = guess_of("prompt-completion", {"prompt": asked, "completion": truth})
    return f"'{truth}', the answer to '{asked}', would not be read", guess


_TRUTHS = ("ground_truth", "solution", "answer", "expected_answer", "final_answer", "canonical_solution", "reference")
"""What data sets call the answer that a prompt should get."""


def _nobody_answers(look: Look, name: str) -> bool:
    """Tells whether a column holds prompts alone: texts as such, or messages of which the last one is the user's."""
    if look.found[name].is_text:
        return {*look.read} == {"prompt"}
    lasts = [record[name][-1] for _, record in look.first if isinstance(record.get(name), list) and record[name]]
    return bool(lasts) and all(isinstance(last, dict) and last.get("role") == "user" for last in lasts)


def _reasoning(fit: Fit) -> _LeftOut:
    """What is thought before an answer."""
    name = reasoning_in(fit.found)
    if name is None or name in fit.read or fit.format not in ANSWERING:
        return None
    if not any(" " in value for value in fit.look.values(name)):  # such as "on" and "off"
        return None
    guess = guess_of(fit.format, {"reasoning_content": name})
    return f"'{name}', what is thought before the answer, would not be read", guess


def _solution(fit: Fit) -> _LeftOut:
    """The solution whose result alone would be read."""
    if not {"question", "answer"} <= {*fit.read} or "solution" not in fit.unread or not fit.found["solution"].is_text:
        return None
    pairs = [tuple(len(str(record.get(name, ""))) for name in ("solution", "answer")) for _, record in fit.look.first]
    if any(solution <= answer for solution, answer in pairs):
        return None
    guess = guess_of("question-answer", {"answer": "solution", "unread": "answer"})
    return "'solution' beside 'answer', its result, would not be read", guess


_KINDS: Sequence[Callable[[Fit], _LeftOut]] = (
    *(_misspelt, _context, _label, _answer),
    *(_tools, _truth, _reasoning, _solution),
)
"""What may be left out, in the order in which it is looked for."""
