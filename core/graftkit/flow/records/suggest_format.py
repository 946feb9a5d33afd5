"""What a recipe may say of a file that no format fits as it is."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from graftkit.corpus.columns import columns_of, fits
from graftkit.flow.records.jq_commands import Look, by_jq
from graftkit.flow.records.remade_records import remade
from graftkit.interfaces.record_format import Column, RecordFormat
from graftkit.interfaces.yaml_word import yaml_word
from graftkit.visible import one_line

__all__ = [
    "Guess",
    "answer_left_out",
    "context_left_out",
    "label_left_out",
    "lists_as_text",
    "misspelt_columns",
    "reasoning_left_out",
    "scored_texts",
    "solution_left_out",
    "suggest_format",
    "tools_left_out",
    "truth_left_out",
    "unread_columns",
]

_FACTS = re.compile(
    r"(?:.*[_-])?(?:id|idx|index|uuid|hash|url|source|model|type|lang|language|category|subject|topic|date|timestamp|"
    r"split|title|path|version|dataset|metadata|kind|task|error_message|system|system_prompt)",
    re.IGNORECASE,
)
"""Names of columns that say something of a record, and are neither asked nor answered in it."""

_LABELS = ("label", "labels", "class", "category", "target", "sentiment", "is_duplicate")


_COLUMNS = (
    *("messages", "conversations", "prompt", "completion", "chosen", "rejected", "question", "answer"),
    *("instruction", "input", "output", "response", "text", "label", "tokens", "words", "ner_tags", "pos_tags"),
    *("text_pair", "sentence1", "sentence2", "premise", "hypothesis", "question1", "question2"),
)
"""Columns of the built-in formats of which a name with a typing error is recognized."""

_LONGEST_TYPO = 20
"""Characters of a name that may be one of these with a typing error."""

_SHOWN, _LONGEST_NAME = 40, 100
"""How many columns that are not read are told, and how many characters of the name of each."""

_LONGEST = 400
"""Characters of a line that is offered, the path aside: names of columns may be of any length."""

Guess = Mapping[str, Any]
"""A format and its columns, as a recipe's `data.train` names them."""

_CONTEXTS = ("context", "passage")
"""What data sets call the text that a question is about."""

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


def scored_texts(records: Sequence[Mapping[str, Any]]) -> Guess | None:
    """Returns what reads a file's records as texts with a number; None where they have none by the columns' names.

    In tables of text, such as CSV, numbers are texts, and would be read as such or not at all. A number may have
    another name than `score`, too.

    Args:
        records: The first of them.

    Example:
        >>> scored_texts([{"review": "Fine.", "stars": "4"}, {"review": "Poor.", "stars": "1.5"}])
        {'format': {'use': 'score', 'as_text': True}, 'columns': {'text': 'review', 'score': 'stars'}}
    """
    found = columns_of(records)
    columns = _score_and_texts(found, lambda name: all(_is_number(one.get(name)) for one in records))
    if columns is None:
        return None
    guess = _guess("score", columns)
    if found[columns["score"]].types != {"number"}:
        return {**guess, "format": {"use": "score", "as_text": True}}
    return guess if guess["columns"] else None  # read so by itself


def _score_and_texts(found: Mapping[str, Column], is_number: Callable[[str], bool]) -> dict[str, str] | None:
    """Returns which column is a text's number, by the columns' names, and which are texts where these don't say it.

    Args:
        found: The file's columns.
        is_number: Tells whether a column holds numbers alone.
    """
    numbers = [name for name in found if name.lower() in _SCORES and is_number(name)]
    if len(numbers) != 1 or any(name.lower() in ("label", "labels") for name in found):
        return None
    [score] = numbers
    if "text" in found or any(found.keys() >= pair for pair in _PAIRS):
        return {"score": score}
    texts = [name for name, column in found.items() if column.is_text and name != score and not _FACTS.fullmatch(name)]
    ours = ("text", "text_pair") if score.lower() in _ALIKE else ("text",)
    return {**dict(zip(ours, texts, strict=True)), "score": score} if len(texts) == len(ours) else None


_ALIKE = ("similarity", "similarity_score", "relatedness", "relatedness_score")
"""What data sets call a number that says how alike two texts are."""

_SCORES = ("score", "rating", "stars", *_ALIKE)
"""What they call a number that is learnt of a text, or of two."""

_PAIRS = ({"sentence1", "sentence2"}, {"premise", "hypothesis"}, {"question1", "question2"})
"""What they call two texts that belong together."""


def _is_number(value: object) -> bool:
    """Tells whether a value is a number, or a text that says one."""
    try:
        return not isinstance(value, bool) and math.isfinite(float(value))  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return False


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
    corrected = {name: _corrected(name, read) for name in names[:_SHOWN]}
    shown = ", ".join(
        one_line(name, _LONGEST_NAME) + (f" (is '{known}' meant?)" if known != name else "")
        for name, known in corrected.items()
    )
    return shown + (f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else "")


def misspelt_columns(
    found: Mapping[str, Column], read: Collection[str], formats: Mapping[str, RecordFormat], path: str
) -> tuple[str, str, Guess] | None:
    """Returns a column that is not read for a typing error in its name, what to write, and what that says; or None.

    Args:
        found: The file's columns.
        read: Those that the format that fits reads.
        formats: The formats, by the names that a recipe gives them.
        path: The path that the recipe gives.
    """
    way = {name: name if name in read else _corrected(name, found) for name in found}
    guess = _fitting_as(way, found, formats) if len({*way.values()}) == len(way) else None
    if guess is None or not guess["columns"]:
        return None
    ours, theirs = next(iter(guess["columns"].items()))
    meant = f"'{theirs}' would be read, as {guess['format']}, if it was called {ours}"
    return meant, _read_or_left_out(guess, [name for name in found if name not in read], path), guess


def context_left_out(
    found: Mapping[str, Column],
    read: Collection[str],
    formats: Mapping[str, RecordFormat],
    path: str,
    columns: Mapping[str, str],
) -> tuple[str, str, Guess] | None:
    """Returns what a question is about where it is not read, what to write, and what that says; None without one.

    Args:
        found: The file's columns.
        read: Those that the format that fits reads.
        formats: The formats, by the names that a recipe gives them.
        path: The path that the recipe gives.
        columns: The names that the recipe gives columns, and the file's own.
    """
    context = next((name for name in _CONTEXTS if name in found and found[name].is_text and name not in read), None)
    pair = _pair([name for name in found if name in read and not _FACTS.fullmatch(name)])
    if context is None or pair is None:
        return None
    mapped = {"instruction": pair[0], "input": context, "output": pair[1]}
    theirs = {name: ours for ours, name in mapped.items()}
    fitting = fits({theirs.get(name, name): column for name, column in found.items()}, formats)
    if [fit.name for fit in fitting] != ["alpaca"]:
        return None
    guess = _guess("alpaca", {ours: columns.get(name, name) for ours, name in mapped.items()})
    left = [columns.get(name, name) for name in found if name not in read]
    told = f"'{context}' beside '{pair[0]}' and '{pair[1]}' would not be read"
    return told, _read_or_left_out(guess, left, path), guess


def label_left_out(look: Look, formats: Mapping[str, RecordFormat], path: str) -> tuple[str, str, Guess] | None:
    """Returns a label of a text that would be read without it, what to write, and what that says; None without one.

    Args:
        look: What the file holds.
        formats: The formats, by the names that a recipe gives them.
        path: The path that the recipe gives.
    """
    plain = {"number", "string", "boolean", "null"}
    found, read = look.found, look.read
    named = (name for name in found if name in look.words or _A_LABEL.fullmatch(name))
    label = next((name for name in named if found[name].types <= plain), None)
    if label is None or label in read or not {*read} <= {"text", "content"}:
        return None
    guess = _fitting_as({name: "label" if name == label else name for name in found}, found, formats)
    if guess is None or guess["format"] != "label":
        return None
    left = [name for name in found if name not in read]
    return f"'{label}' beside '{next(iter(read))}' would not be read", _read_or_left_out(guess, left, path), guess


def answer_left_out(look: Look, path: str) -> tuple[str, str, Guess] | None:
    """Returns the answer of a text that would be read alone, what to write, and what that says; None without one.

    Args:
        look: What the file holds.
        path: The path that the recipe gives.
    """
    found, read = look.found, [*look.read]
    answer = next((name for name in found if found[name].is_text and _ANSWERED.search(name) and name not in read), None)
    if answer is None or len(read) != 1 or read[0] not in ("text", "content"):
        return None
    guess = _guess("question-answer", {"question": read[0], "answer": answer})
    left = [name for name in found if name not in read]
    return f"'{answer}' beside '{read[0]}' would not be read", _read_or_left_out(guess, left, path), guess


def solution_left_out(look: Look, columns: Mapping[str, str], path: str) -> tuple[str, str, Guess] | None:
    """Returns the solution whose result alone would be read, what to write, and what that says; None without one.

    Args:
        look: What the file holds.
        columns: The names that the recipe gives columns, and the file's own.
        path: The path that the recipe gives.
    """
    found, read = look.found, look.read
    if not {"question", "answer"} <= {*read} or "solution" in read or not found.get("solution", Column()).is_text:
        return None
    lengths = [tuple(len(str(record.get(name, ""))) for name in ("solution", "answer")) for _, record in look.first]
    if any(solution <= answer for solution, answer in lengths):
        return None
    mapped = {**columns, "answer": columns.get("solution", "solution"), "unread": columns.get("answer", "answer")}
    left = [name for name in found if name not in read]
    guess = _guess("question-answer", mapped)
    return "'solution' beside 'answer', its result, would not be read", _read_or_left_out(guess, left, path), guess


def tools_left_out(look: Look, formats: Mapping[str, RecordFormat], path: str) -> tuple[str, str, Guess] | None:
    """Returns the tools of a conversation under another name, what to write, and what that says; None without them.

    Args:
        look: What the file holds.
        formats: The formats, by the names that a recipe gives them.
        path: The path that the recipe gives.
    """
    found, read = look.found, look.read
    tools = next((name for name in _TOOLS if name in found and name not in read), None)
    if tools is None or not {"messages", "conversations", "conversation"} & {*read}:
        return None
    guess = _fitting_as({name: "tools" if name == tools else name for name in found}, found, formats)
    if guess is None or guess["columns"] != {"tools": tools}:
        return None
    left = [name for name in found if name not in read]
    return f"'{tools}' beside messages would not be read", _read_or_left_out(guess, left, path), guess


_TOOLS = ("available_tools", "tools_list", "tool_list", "tool_definitions", "tool_schemas", "tools_json")
"""What data sets call the descriptions of tools, besides what is read as such."""


def truth_left_out(look: Look, path: str) -> tuple[str, str, Guess] | None:
    """Returns the answer that a prompt should get, where that would not be read, and likewise; None without one.

    Args:
        look: What the file holds.
        path: The path that the recipe gives.
    """
    found, read = look.found, look.read
    texts = [name for name in found if found[name].is_text and name not in read]
    truth = next((name for name in _TRUTHS if name in texts), None)
    asked = next((name for name in ("prompt", "messages") if name in read), None)
    if truth is None or asked is None or not _nobody_answers(look, asked):
        return None
    if found[asked].is_text:
        guess = _guess("question-answer", {"question": asked, "answer": truth})
    else:
        guess = _guess("prompt-completion", {"prompt": asked, "completion": truth})
    left = [name for name in found if name not in read]
    return f"'{truth}', the answer to '{asked}', would not be read", _read_or_left_out(guess, left, path), guess


_TRUTHS = ("ground_truth", "solution", "answer", "expected_answer", "final_answer", "canonical_solution", "reference")
"""What data sets call the answer that a prompt should get."""


def _nobody_answers(look: Look, name: str) -> bool:
    """Tells whether a column holds prompts alone: texts as such, or messages of which the last one is the user's."""
    if look.found[name].is_text:
        return {*look.read} == {"prompt"}
    lasts = [record[name][-1] for _, record in look.first if isinstance(record.get(name), list) and record[name]]
    return bool(lasts) and all(isinstance(last, dict) and last.get("role") == "user" for last in lasts)


def _read_or_left_out(guess: Guess, columns: Iterable[str], path: str) -> str:
    """Returns the line that reads a column which would be left out, and the one that leaves it out."""
    left, file = ", ".join(map(yaml_word, columns)), yaml_word(path)
    return f"Write {{path: {file}, {_entry(guess)}}}, or, where it is not meant, {{path: {file}, unused: [{left}]}}."


_A_LABEL = re.compile(r"(?:\w+[_-])?label(?:[_-]\w+)?", re.IGNORECASE)
"""What data sets call the label of a text where it has several, such as TREC's."""


def _line(look: Look, formats: Mapping[str, RecordFormat], path: str, *, alone: bool) -> tuple[str, Guess | None]:
    """Returns the line for the file's own columns, or "", and what it guesses."""
    found = look.found
    languages = _languages(found)
    if languages:
        guess: Guess = {"format": {"use": "translation", "source": languages[0], "target": languages[1]}, "columns": {}}
        return f"Say what is translated into what, for example: {{path: {yaml_word(path)}, {_entry(guess)}}}.", guess
    lists = [name for name, column in found.items() if column.is_list_of_objects]
    texts = [name for name, column in found.items() if column.is_text and not _FACTS.fullmatch(name)]
    holds_more = [name for name in found if name not in texts and _holds_texts(name, found[name])]
    renamed = _answered_messages(found, lists) or _renamed(found, formats)
    if renamed:
        renamed = _with_reasoning(renamed, found)
        told = " and ".join(f"'{theirs}' is meant as {ours}" for ours, theirs in renamed["columns"].items())
        return f"Where {told}, write: {{path: {yaml_word(path)}, {_entry(renamed)}}}.", renamed
    wrong = next((name for name, column in found.items() if _is_answer_but_no_text(name, column)), None)
    if wrong:
        return f"What is learnt is text, and '{wrong}' is none. {_made_text(wrong, found, path)}", None
    labels = [
        name
        for name, column in found.items()
        if name.lower() in _LABELS and name not in texts[:1] and not column.types & {"list", "object"}
    ]
    labelled = _labelled(texts, labels, look)
    if labelled:
        return f"Where it is a text with a label, write: {{path: {yaml_word(path)}, {_entry(labelled)}}}.", labelled
    if texts and labels and not (found[labels[0]].is_text and _pair([*texts])):
        names = "" if found[labels[0]].is_text else ", names: [FIRST, SECOND]"
        told = _columns({"text": texts[0], "label": labels[0]})
        file = yaml_word(path)
        line = f"For example, where it is a text with a label: {{path: {file}, format: {{use: label{names}}}{told}}}."
        return line, None
    scored = _score_and_texts(found, lambda name: found[name].types == {"number"})
    if scored:
        guess = _guess("score", scored)
        return (
            f"For example, where a number of the text is learnt: {{path: {yaml_word(path)}, {_entry(guess)}}}.",
            guess,
        )
    columns = _fitting(_pair(texts, alone=not holds_more), found, formats)
    turns = _texts_in_turn(found, formats)
    if columns:
        guess = _with_reasoning(_guess("question-answer", columns), found)
        return f"Say which column is which, for example: {{path: {yaml_word(path)}, {_entry(guess)}}}.", guess
    if turns:
        told = f"Where '{one_line(turns)}' holds what user and assistant say in turn: "
        said = _entry(_guess("messages", {"conversation": turns}))
        return f"{told}{{path: {yaml_word(path)}, {said}}}.", None
    if len(texts) == 1 and not holds_more:
        guess = _guess("text", {"text": texts[0]})
        return f"To learn the texts alone: {{path: {yaml_word(path)}, {_entry(guess)}}}.", guess
    if alone and len(lists) == 1 and "role" not in found[lists[0]].keys:
        line = f"Where its list holds the records, this makes a file of them: jq '.{lists[0]}' FILE > records.json"
        return line, None
    return "", None


def _holds_texts(name: str, column: Column) -> bool:
    """Tells whether a column holds lists or objects, of more than numbers, that are likely more than facts."""
    nested = "object" in column.types or not column.items <= {"number", "boolean", "null"}
    return nested and not _FACTS.fullmatch(name)


def _is_answer_but_no_text(name: str, column: Column) -> bool:
    """Tells whether a column is called as answers are, and holds no texts."""
    return not column.is_text and (
        name in _ANSWERS or (column.items == {"string"} and bool(_ANSWERED.search(name)) and not _WRONG.search(name))
    )


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
    if any({*others} >= pair for pair in _PAIRS):
        return _guess("label", {"label": label})
    if not 1 <= len(others) <= 2:
        return None
    return _guess("label", {**dict(zip(("text", "text_pair"), others, strict=False)), "label": label})


def _answered_messages(found: Mapping[str, Column], lists: Sequence[str]) -> Guess | None:
    """Returns what reads messages in one column and their answer, a text, in another; None where that is not so."""
    messages = [name for name in lists if {"role", "content"} <= found[name].keys]
    answers = [name for name, column in found.items() if column.is_text and name in _ANSWERS]
    if len(messages) != 1 or len(answers) != 1:
        return None
    return _guess("prompt-completion", {"prompt": messages[0], "completion": answers[0]})


def _reasoning_in(found: Mapping[str, Column]) -> str | None:
    """Returns the column of what is thought before an answer, if there is one alone, of another name than is read."""
    names = [name for name, column in found.items() if column.is_text and _REASONING.fullmatch(name)]
    return names[0] if len(names) == 1 and "reasoning_content" not in found else None


_REASONING = re.compile(
    "(?:.*[_ ])?(?:cot|chain[_ ]of[_ ]thoughts?|reasoning|thinking|thoughts?|thinking_trajectory)(?:_trace)?",
    re.IGNORECASE,
)
"""What data sets call that."""


def _with_reasoning(guess: Guess, found: Mapping[str, Column]) -> Guess:
    """Returns a guess of an answer with the reasoning before it, if the file has such."""
    name = _reasoning_in(found)
    if name is None or guess["format"] not in _ANSWERING:
        return guess
    begins = name.rpartition("_")[0]
    same = (one for one in found if begins and one.startswith(begins) and one != name and _ANSWERED.search(one))
    answer = next((one for one in same if found[one].is_text and "answer" in guess["columns"]), None)
    own = {"answer": answer} if answer else {}  # such as deepseek_solution, of deepseek_reasoning
    return {**guess, "columns": {**guess["columns"], **own, "reasoning_content": name}}


_ANSWERING = ("question-answer", "alpaca")
"""The formats that read the reasoning before an answer in a column of its own."""


def reasoning_left_out(look: Look, format: str, columns: Mapping[str, str], path: str) -> tuple[str, str, Guess] | None:
    """Returns what is thought before an answer and would not be read, what to write, and what that says; or None.

    Args:
        look: What the file holds.
        format: What the recipe calls the format that fits.
        columns: The names that the recipe gives columns, and the file's own.
        path: The path that the recipe gives.
    """
    name = _reasoning_in(look.found)
    if name is None or name in look.read or format not in _ANSWERING:
        return None
    if not any(" " in value for value in look.values(name)):  # such as "on" and "off"
        return None
    guess = _guess(format, {**columns, "reasoning_content": name})
    left = [one for one in look.found if one not in look.read]
    return (
        f"'{name}', what is thought before the answer, would not be read",
        _read_or_left_out(guess, left, path),
        guess,
    )


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


def _pair(texts: Sequence[str], *, alone: bool = True) -> tuple[str, str] | None:
    """Returns the columns that are likely a question and its answer; None where nothing is said of one of them.

    Args:
        texts: The columns of texts.
        alone: Whether the file has no others, of which one may be the answer.
    """
    texts = [name for name in texts if not _WRONG.search(name)]
    asked = [name for name in texts if _ASKED.search(name)]
    answered = [name for name in texts if _ANSWERED.search(name) and name not in asked[:1]]
    answered = [name for name in answered if not _ASKED.search(name)] or answered
    if asked and answered:
        return asked[0], answered[-1]
    others = [name for name in texts if name not in (*asked, *answered)]
    if answered and others:
        return others[0], answered[-1]
    return (others[0], others[1]) if alone and len(others) == 2 and not asked else None


def _fitting(
    pair: tuple[str, str] | None, found: Mapping[str, Column], formats: Mapping[str, RecordFormat]
) -> dict[str, str] | None:
    """Returns the columns of a question and its answer as a recipe maps them; other answers are not read."""
    if pair is None or "question-answer" not in formats:
        return None
    mapped = {"question": pair[0], "answer": pair[1]}
    for unread in ((), [name for name in found if _ANSWERED.search(name) and name not in pair]):
        columns = {**mapped, **{f"unread_{number}": name for number, name in enumerate(unread, 1)}}
        theirs = {name: ours for ours, name in columns.items()}
        clash = any(ours != name and ours in found and ours not in theirs for ours, name in columns.items())
        other = {theirs.get(name, name): column for name, column in found.items()}
        if not clash and formats["question-answer"].columns(other) is not None:
            return columns
    return None


_ASKED = re.compile("question|prompt|query|instruction|problem|input|^src$", re.IGNORECASE)
_ANSWERED = re.compile(
    "answer|response|output|completion|solution|summary|target|reply|highlights|corrections?$|^tgt$|^sql$|^code$",
    re.IGNORECASE,
)
_WRONG = re.compile("incorrect|wrong|distractor|reject|negative", re.IGNORECASE)
"""What data sets call answers that are none."""

_ANSWERS = ("answer", "response", "output", "completion", "text", "content")


def _renamed(found: Mapping[str, Column], formats: Mapping[str, RecordFormat]) -> Guess | None:
    """Returns what makes one format fit, or None: other names for columns, by case or for a list of messages."""
    lower = {name: re.sub(r"\s+", "_", name.strip().lower()) for name in found}
    corrected = {name: _corrected(name, found) for name in found}
    ways = [way for way in (lower, corrected) if len({*way.values()}) == len(way)]
    lists = [name for name, column in found.items() if column.is_list_of_objects]
    ways += [
        {**{name: name for name in found}, turns: ours} for turns in lists for ours in ("messages", "conversations")
    ]
    return next((guess for guess in (_fitting_as(way, found, formats) for way in ways) if guess), None)


def _fitting_as(
    way: Mapping[str, str], found: Mapping[str, Column], formats: Mapping[str, RecordFormat]
) -> Guess | None:
    """Returns the one format that fits where columns are called otherwise, each by its new name; None without one."""
    fitting = fits({ours: found[name] for name, ours in way.items()}, formats)
    if len(fitting) != 1:
        return None
    changed = {ours: name for name, ours in way.items() if ours != name and ours in fitting[0].columns}
    return _guess(fitting[0].name, changed)


def _corrected(name: str, found: Collection[str]) -> str:
    """Returns the known column that a name is nearly, unless the file has that one; else the name."""
    if len(name) > _LONGEST_TYPO or _FACTS.fullmatch(name):
        return name
    near = difflib.get_close_matches(name.lower(), [known for known in _COLUMNS if known not in found], 1, 0.8)
    return near[0] if near and name not in _COLUMNS else name


def _guess(format: str, columns: Mapping[str, str]) -> Guess:
    return {"format": format, "columns": {ours: theirs for ours, theirs in columns.items() if ours != theirs}}


def _entry(guess: Guess) -> str:
    format = guess["format"]
    if isinstance(format, Mapping):
        format = f"{{{', '.join(f'{key}: {yaml_word(value)}' for key, value in format.items())}}}"
    return f"format: {format}{_columns(guess['columns'])}"


def _columns(columns: Mapping[str, str]) -> str:
    told = [f"{ours}: {yaml_word(theirs)}" for ours, theirs in columns.items() if ours != theirs]
    return f", columns: {{{', '.join(told)}}}" if told else ""
