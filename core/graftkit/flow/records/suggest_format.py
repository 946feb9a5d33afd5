"""What a recipe may say of a file that no format fits as it is."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from graftkit.flow.records.format_guess import (
    ANSWERED,
    ANSWERING,
    FACTS,
    PAIRS,
    WRONG,
    Guess,
    columns_entry,
    corrected,
    entry,
    fitting_as,
    guess_of,
    question_and_answer,
    reasoning_in,
)
from graftkit.flow.records.jq_commands import Look, by_jq
from graftkit.flow.records.remade_choices import choices_named_alike
from graftkit.flow.records.remade_records import remade
from graftkit.flow.records.scored_texts import score_and_texts
from graftkit.interfaces.record_format import Column, RecordFormat
from graftkit.interfaces.yaml_word import yaml_word
from graftkit.visible import one_line

__all__ = ["lists_as_text", "suggest_format"]

_LABELS = ("label", "labels", "class", "category", "target", "sentiment", "is_duplicate")

_LONGEST = 400
"""Characters of a line that is offered, the path aside: names of columns may be of any length."""

_NO_TEXTS = (
    'Make a text of each of the two, {"question": "...", "answer": "..."}, or write what reads such records: '
    "toolkit plugin new NAME --kind format."
)

_ANY = "columns: {question: YOURS, answer: YOURS}"


def suggest_format(
    look: Look, formats: Mapping[str, RecordFormat], path: str, *, alone: bool
) -> tuple[str, Guess | None]:
    """Returns the line to write, as a hint, and what it says where that is guessed; the hint says that it is.

    Args:
        look: What the file holds.
        formats: The formats, by the names that a recipe gives them.
        path: The path that the recipe gives.
        alone: Whether the file is a single record.
    """
    found, other = look.found, remade(look, path)
    if other:
        return f"{other[0]}. {other[1]}", None
    line, guess = _line(look, formats, path, alone=alone)
    if line and len(line) <= _LONGEST + len(path):
        return line, guess
    if sum(column.is_text for column in found.values()) < 2:
        return f"Its columns hold no question and no answer as texts. {_NO_TEXTS}", guess
    hint = f"Say which columns, of texts, are which: {{path: {yaml_word(path)}, format: question-answer, {_ANY}}}."
    return hint, guess


def lists_as_text(records: Iterable[Mapping[str, Any]], path: str) -> tuple[str, Guess] | None:
    """Returns what reads columns of a csv whose texts are written as lists are, as a hint and as an entry says it.

    Args:
        records: The first of the file.
        path: The path that the recipe gives.

    Returns:
        Both; None where there is no such column.

    Example:
        >>> lists_as_text([{"id": "1", "tokens": "['EU', 'rejects']"}], "a.csv")[1]
        {'reader': {'use': 'csv', 'lists': ['tokens']}}
    """
    listed: dict[str, bool] = {}
    for record in records:
        for name, value in record.items():
            if value != "":
                listed[name] = listed.get(name, True) and isinstance(value, str) and bool(_LIST.fullmatch(value))
    names = [name for name, found in listed.items() if found]
    if not names:
        return None
    told = ", ".join(map(yaml_word, names))
    hint = f"Where '{one_line(names[0])}' holds lists, written as text, say so: "
    return f"{hint}{{path: {yaml_word(path)}, reader: {{use: csv, lists: [{told}]}}}}.", {
        "reader": {"use": "csv", "lists": names}
    }


_LIST = re.compile(r"\s*\[.*\]\s*", re.DOTALL)
"""What a list looks like in JSON, and as Python writes it."""


def _line(look: Look, formats: Mapping[str, RecordFormat], path: str, *, alone: bool) -> tuple[str, Guess | None]:
    """Returns the line for the file's own columns, or "", and what it guesses."""
    found = look.found
    languages = _languages(found)
    if languages:
        guess: Guess = {"format": {"use": "translation", "source": languages[0], "target": languages[1]}, "columns": {}}
        return f"Say what is translated into what, for example: {{path: {yaml_word(path)}, {entry(guess)}}}.", guess
    lists = [name for name, column in found.items() if column.is_list_of_objects]
    choices = choices_named_alike(found)  # of which no one is the right answer of every record
    texts = [
        name for name, column in found.items() if column.is_text and name not in choices and not FACTS.fullmatch(name)
    ]
    holds_more = [name for name in found if name not in texts and _holds_texts(name, found[name])]
    renamed = _answered_messages(found, lists) or _renamed(found, formats)
    if renamed:
        renamed = _with_reasoning(renamed, found)
        told = " and ".join(f"'{theirs}' is meant as {ours}" for ours, theirs in renamed["columns"].items())
        return f"Where {told}, write: {{path: {yaml_word(path)}, {entry(renamed)}}}.", renamed
    wrong = next((name for name, column in found.items() if _is_answer_but_no_text(name, column)), None)
    if wrong:
        return f"What is learnt is text, and '{wrong}' is none. {_made_text(wrong, found, path)}", None
    labels = [
        name
        for name, column in found.items()
        if not choices and name.lower() in _LABELS and name not in texts[:1] and not column.types & {"list", "object"}
    ]
    labelled = _labelled(texts, labels, look)
    if labelled:
        return f"Where it is a text with a label, write: {{path: {yaml_word(path)}, {entry(labelled)}}}.", labelled
    if texts and labels and not (found[labels[0]].is_text and question_and_answer([*texts])):
        names = "" if found[labels[0]].is_text else ", names: [FIRST, SECOND]"
        told = columns_entry({"text": texts[0], "label": labels[0]})
        file = yaml_word(path)
        line = f"For example, where it is a text with a label: {{path: {file}, format: {{use: label{names}}}{told}}}."
        return line, None
    scored = score_and_texts(found, lambda name: found[name].types == {"number"})
    if scored:
        guess = guess_of("score", scored)
        return (
            f"For example, where a number of the text is learnt: {{path: {yaml_word(path)}, {entry(guess)}}}.",
            guess,
        )
    columns = _fitting(question_and_answer(texts, alone=not holds_more), found, formats)
    turns = _texts_in_turn(found, formats)
    if columns:
        guess = _with_reasoning(guess_of("question-answer", columns), found)
        return f"Say which column is which, for example: {{path: {yaml_word(path)}, {entry(guess)}}}.", guess
    if turns:
        told = f"Where '{one_line(turns)}' holds what user and assistant say in turn: "
        said = entry(guess_of("messages", {"conversation": turns}))
        return f"{told}{{path: {yaml_word(path)}, {said}}}.", None
    if len(texts) == 1 and not holds_more:
        guess = guess_of("text", {"text": texts[0]})
        return f"To learn the texts alone: {{path: {yaml_word(path)}, {entry(guess)}}}.", guess
    if alone and len(lists) == 1 and "role" not in found[lists[0]].keys:
        line = f"Where its list holds the records, this makes a file of them: jq '.{lists[0]}' FILE > records.json"
        return line, None
    return "", None


def _holds_texts(name: str, column: Column) -> bool:
    """Tells whether a column holds lists or objects, of more than numbers, that are likely more than facts."""
    nested = "object" in column.types or not column.items <= {"number", "boolean", "null"}
    return nested and not FACTS.fullmatch(name)


def _is_answer_but_no_text(name: str, column: Column) -> bool:
    """Tells whether a column is called as answers are, and holds no texts."""
    return not column.is_text and (
        name in _ANSWERS or (column.items == {"string"} and bool(ANSWERED.search(name)) and not WRONG.search(name))
    )


_ANSWERS = ("answer", "response", "output", "completion", "text", "content")


def _labelled(texts: Sequence[str], labels: Sequence[str], look: Look) -> Guess | None:
    """Returns what reads a text, or two, with a label whose words a file keeps, or of duplicates; None of others.

    Args:
        texts: The columns of texts that are more than facts.
        labels: Those that may be labels by their names.
        look: What the file holds.
    """
    kept = [name for name in look.words if look.found[name].types <= {"number", "null"}]
    label = next((name for name in (*labels, *kept) if name in kept or name == "is_duplicate"), None)
    others = [name for name in texts if name != label]
    if label is None:
        return None
    if any({*others} >= pair for pair in PAIRS):
        return guess_of("label", {"label": label})
    if not 1 <= len(others) <= 2:
        return None
    return guess_of("label", {**dict(zip(("text", "text_pair"), others, strict=False)), "label": label})


def _answered_messages(found: Mapping[str, Column], lists: Sequence[str]) -> Guess | None:
    """Returns what reads messages in one column and their answer, a text, in another; None where that is not so."""
    messages = [name for name in lists if {"role", "content"} <= found[name].keys]
    answers = [name for name, column in found.items() if column.is_text and name in _ANSWERS]
    if len(messages) != 1 or len(answers) != 1:
        return None
    return guess_of("prompt-completion", {"prompt": messages[0], "completion": answers[0]})


def _with_reasoning(guess: Guess, found: Mapping[str, Column]) -> Guess:
    """Returns a guess of an answer with the reasoning before it, if the file has such."""
    name = reasoning_in(found)
    if name is None or guess["format"] not in ANSWERING:
        return guess
    begins = name.rpartition("_")[0]
    same = (one for one in found if begins and one.startswith(begins) and one != name and ANSWERED.search(one))
    answer = next((one for one in same if found[one].is_text and "answer" in guess["columns"]), None)
    own = {"answer": answer} if answer else {}  # such as deepseek_solution, of deepseek_reasoning
    return {**guess, "columns": {**guess["columns"], **own, "reasoning_content": name}}


def _made_text(name: str, found: Mapping[str, Column], path: str) -> str:
    """Returns what makes a text of an answer that is none.

    Args:
        name: The answer's column, one of `_ANSWERS`.
        found: The file's columns.
        path: The path that the recipe gives.
    """
    column = found[name]
    if column.items == {"string"}:
        meant, made = "the first of its texts is meant", f".{name} |= first"
    elif "object" in column.types and {"value", "text"} & column.keys:
        inner = "value" if "value" in column.keys else "text"
        meant, made = f"its {inner} is meant", f".{name} |= .{inner}"
    else:
        meant, made = "its JSON is meant", f".{name} |= tostring"
    return f"Where {meant}, this makes it one: {by_jq(made, path)}"


def _languages(found: Mapping[str, Column]) -> list[str]:
    """Returns the languages of a text in several, English first; none where there is no such text."""
    column = found.get("translation")
    if column is None or "object" not in column.types or len(column.keys) < 2:
        return []
    return sorted(column.keys, key=lambda name: (name.lower()[:2] != "en", name))


def _texts_in_turn(found: Mapping[str, Column], formats: Mapping[str, RecordFormat]) -> str | None:
    """Returns a list of texts that may be the turns of a conversation, if there is one alone."""
    names = [name for name, column in found.items() if column.items == {"string"} and name.lower() in _TURNS]
    renamed = {("conversation" if name in names else name): column for name, column in found.items()}
    fitting = len(names) == 1 and "messages" in formats and formats["messages"].columns(renamed) is not None
    return names[0] if fitting else None


_TURNS = ("data", "dialog", "dialogue", "turns", "messages", "chat", "utterances", "history")
"""What data sets call lists of texts that are said in turn."""


def _fitting(
    pair: tuple[str, str] | None, found: Mapping[str, Column], formats: Mapping[str, RecordFormat]
) -> dict[str, str] | None:
    """Returns the columns of a question and its answer as a recipe maps them; other answers are not read."""
    if pair is None or "question-answer" not in formats:
        return None
    mapped = {"question": pair[0], "answer": pair[1]}
    for unread in ((), [name for name in found if ANSWERED.search(name) and name not in pair]):
        columns = {**mapped, **{f"unread_{number}": name for number, name in enumerate(unread, 1)}}
        theirs = {name: ours for ours, name in columns.items()}
        clash = any(ours != name and ours in found and ours not in theirs for ours, name in columns.items())
        other = {theirs.get(name, name): column for name, column in found.items()}
        if not clash and formats["question-answer"].columns(other) is not None:
            return columns
    return None


def _renamed(found: Mapping[str, Column], formats: Mapping[str, RecordFormat]) -> Guess | None:
    """Returns what makes one format fit, or None: other names for columns, by case or for a list of messages."""
    lower = {name: re.sub(r"\s+", "_", name.strip().lower()) for name in found}
    near = {name: corrected(name, found) for name in found}
    ways = [way for way in (lower, near) if len({*way.values()}) == len(way)]
    lists = [name for name, column in found.items() if column.is_list_of_objects]
    ways += [
        {**{name: name for name in found}, turns: ours} for turns in lists for ours in ("messages", "conversations")
    ]
    return next((guess for guess in (fitting_as(way, found, formats) for way in ways) if guess), None)
