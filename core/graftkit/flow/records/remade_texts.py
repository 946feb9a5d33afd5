"""Commands that make records of what texts and numbers say, whatever their columns are called."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import Any

from graftkit.articles import counted
from graftkit.flow.records.format_guess import ANSWERED
from graftkit.flow.records.jq_commands import Look, Remade, offered
from graftkit.interfaces.bounded_json import parse_json
from graftkit.visible import one_line

__all__ = ["remade_texts"]


def remade_texts(look: Look, path: str) -> tuple[str, str] | None:
    """Returns what records hold, by what stands in them and not their columns' names, and the command to remake them.

    Args:
        look: What the file holds, of which no format reads any.
        path: The path that the recipe gives.
    """
    rows = [record for _, record in look.first]
    shapes = (_marked_turns, _listed_turns, _listed_answers, _paired)
    shape = _marked_labels(rows, look.words) or next(filter(None, (shape(rows) for shape in shapes)), None)
    return None if shape is None else (shape[0], offered(shape[1], look, path))


def _marked_labels(rows: Sequence[Mapping[str, Any]], words: Collection[str]) -> Remade:
    """A column of zeros and ones for each label of a text, as Jigsaw's comments have them."""
    names = [name for name in dict.fromkeys(name for row in rows for name in row) if name not in words]
    marks = [name for name in names if all(row.get(name) in _MARKS for row in rows)]
    texts = [name for name in names if name not in marks and _longest(rows, name) > _LONG]
    if len(texts) != 1 or not 1 < len(marks) <= _MOST_MARKS or len(rows) < _FEWEST:
        return None
    listed = ", ".join(json.dumps(name) for name in marks)
    made = (
        f"{{text: .[{json.dumps(texts[0])}], labels: [[{listed}] as $names | . as $r | $names[] | "
        'select($r[.] | tostring | IN("1", "1.0", "true"))]}'
    )
    if len(made) > _LONGEST or "'" in made:
        return None
    more = counted(len(marks) - 1, "more column")
    return f"'{one_line(marks[0])}' and {more} are labels that '{one_line(texts[0])}' has or not", made


_MARKS = (0, 1, "0", "1", "0.0", "1.0")

_MOST_MARKS, _FEWEST, _LONG, _LONGEST = 40, 3, 20, 900
"""How many labels are looked for, in how many records at least; characters of one of the texts at least, and of a
program at most."""


def _longest(rows: Sequence[Mapping[str, Any]], name: str) -> int:
    """Returns the characters of the longest text of a column, in which there is white space; 0 of none."""
    texts = [row.get(name) for row in rows]
    return max((len(text) for text in texts if isinstance(text, str) and " " in text.strip()), default=0)


def _marked_turns(rows: Sequence[Mapping[str, Any]]) -> Remade:
    """A conversation as one text with marks of who speaks, as Glaive's calls of functions have it."""
    names = [name for name in rows[0] if all(_TURNS.match(str(row.get(name, ""))) for row in rows)] if rows else []
    if len(names) != 1 or not re.fullmatch(r"[A-Za-z_]\w*", names[0], re.ASCII):
        return None
    [name] = names
    system = 'system: (.system // "" | sub("^SYSTEM: *"; "")), ' if "system" in rows[0] else ""
    made = (
        f'{{{system}messages: [.{name} | splits("\\\\n+(?=(USER|ASSISTANT|FUNCTION RESPONSE): )") | '
        'capture("^(?<who>[A-Z ]+): *(?<said>[\\\\s\\\\S]*)") | '
        '{role: (if .who == "ASSISTANT" then "assistant" else "user" end), '
        'content: ((if .who == "FUNCTION RESPONSE" then "FUNCTION RESPONSE: " else "" end) + '
        '(.said | sub("\\\\s*(<\\\\|endoftext\\\\|>)?\\\\s*\\\\z"; "")))}]}'
    )
    told = f"'{name}' holds turns of USER: and ASSISTANT: in one text, and functions' results as further turns"
    return told, made


_TURNS = re.compile(r"\s*USER: .*\nASSISTANT: ", re.DOTALL)


def _listed_turns(rows: Sequence[Mapping[str, Any]]) -> Remade:
    """A conversation whose list is written as text."""
    for name in ("conversation", "dialog", "dialogue", "turns", "chat"):
        texts = [row.get(name) for row in rows]
        if texts and all(map(_is_list, texts)):
            return f"'{name}' holds lists, written as text", f".{name} |= fromjson"
    return None


def _listed_answers(rows: Sequence[Mapping[str, Any]]) -> Remade:
    """Several answers to a question, whose list is written as text, as APPS has its solutions."""
    for name in rows[0] if rows else ():
        texts = [text for text in (row.get(name) for row in rows) if text != ""]
        if (
            re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII)
            and ANSWERED.search(name)
            and texts
            and all(map(_is_list, texts))
        ):
            told = f"'{name}' holds lists, written as text, of which the first is meant"
            return told, f'select(.{name} != "") | .{name} |= (fromjson | first)'
    return None


def _paired(rows: Sequence[Mapping[str, Any]]) -> Remade:
    """Two texts of one meaning in a list, as sentence-transformers' sets of equal sentences have them."""
    sets = [row.get("set") for row in rows]
    if not sets or not all(isinstance(texts, list) and len(texts) > 1 for texts in sets):
        return None
    if not all(isinstance(text, str) for texts in sets if isinstance(texts, list) for text in texts):
        return None
    return "'set' holds texts of the same meaning", "{query: .set[0], positive: .set[1:]}"


def _is_list(text: object) -> bool:
    """Tells whether a text is a list in JSON; one in Python's quotes, or that is cut off, jq does not read."""
    if not isinstance(text, str) or not text.lstrip().startswith("["):
        return False
    with suppress(ValueError):
        return isinstance(parse_json(text.encode()), list)
    return False
