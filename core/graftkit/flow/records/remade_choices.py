"""Commands that make records of questions with answers to choose from."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from graftkit.flow.records.jq_commands import Look, Remade, field
from graftkit.interfaces.record_format import Column

__all__ = ["choices_in_a_list", "choices_in_columns", "choices_named_alike", "endings"]

_CHOICES, _QUESTIONS = ("choices", "options"), ("question", "question_stem", "query")
"""What data sets call the answers to choose from, and the question that they belong to."""

_ABOUT = ("context", "article", "passage", "premise", "story")
"""What they call the text that a question is about."""

_RIGHT = (
    *("label", "answer", "labels", "cop", "correct_option", "answer_idx", "answer_index", "answer_id", "answerKey"),
    *("correct", "correct_answer", "gold", "target"),
)
"""What they call the number, or the letter, of the right one."""


def choices_in_a_list(look: Look) -> Remade:
    """A question with a list of answers to choose from, as MMLU, RACE and ARC have them."""
    found = look.found
    name = next((name for name in _CHOICES if name in found and name not in look.read), None)
    question = next((name for name in _QUESTIONS if name in found and found[name].is_text), None)
    if name is None or question is None:
        return None
    told = f"'{name}' beside '{question}'"
    asked = _joined([*_about(found), question])
    right = next((one for one in _RIGHT if one in found and found[one].types <= {"number", "string", "null"}), None)
    if found[name].items == {"string"} and right is not None:
        answer = f"(.{right} | {_chosen(look, name, right)})"
        return told, f'.{name} as $c | {{question: ({asked} + "\\n" + ($c | join("\\n"))), answer: {answer}}}'
    if _by_letter(found[name]) and right is not None and found[right].is_text:
        listed = '([$c[] | values] | join("\\n"))'
        return told, f'.{name} as $c | {{question: ({asked} + "\\n" + {listed}), answer: (.{right} | $c[.] // .)}}'
    if {"label", "text"} <= found[name].keys and "object" in found[name].types and "answerKey" in found:
        joined = f'([.{name}.label, .{name}.text] | transpose | map(join(". ")) | join("\\n"))'
        return told, f'{{question: ({asked} + "\\n" + {joined}), answer: .answerKey}}'
    return None


def _by_letter(column: Column) -> bool:
    """Tells whether a column holds choices by their letters, as MedQA's {"A": "...", "B": "..."}."""
    keys = sorted(key.upper() for key in column.keys)
    return column.types <= {"object", "null"} and len(keys) > 1 and keys == [chr(65 + n) for n in range(len(keys))]


def _chosen(look: Look, name: str, right: str) -> str:
    """Returns the answer that is chosen of a list `$c`, as jq writes it: by its number, its letter, or itself.

    Args:
        look: What the file holds.
        name: The column of the lists.
        right: The column that says which is the right one.
    """
    rows = [row for _, row in look.first if isinstance(row.get(name), list) and row.get(right) is not None]
    said = [(str(row[right]).strip(), len(row[name])) for row in rows]
    if not all(re.fullmatch(r"-?\d+", text) for text, _ in said) or any(row[right] in row[name] for row in rows):
        return 'if test("^[A-Z]$") then $c[explode[0] - 65] else . end' if look.found[right].is_text else _NO_NUMBER
    numbers = [(int(text), count) for text, count in said if int(text) >= 0]
    lowest = int(bool(numbers) and all(number > 0 for number, _ in numbers) and any(n == count for n, count in numbers))
    return f'tonumber | select(. >= {lowest}) | $c[. - {lowest}] // error("there is no choice of this number")'


_NO_NUMBER = 'if type == "number" then $c[.] else . end'
"""What chooses by numbers and by texts, where both occur."""


def choices_in_columns(look: Look) -> Remade:
    """Answers to choose from in a column each, as MedMCQA, PIQA, WinoGrande, Social IQa, COPA and SWAG have them."""
    found = look.found
    group = choices_named_alike(found)
    beside = [name for name in found if name not in group]
    right = next((name for name in _RIGHT if name in beside and found[name].types <= {"number", "string"}), None)
    asked = next((name for name in _ASKED if name in beside and found[name].is_text), None)
    if not group or right is None or asked is None or {*group} <= {*look.read}:
        return None
    numbers = _numbers(look.values(right), group)
    if numbers is None:
        return None
    lowest, chosen = numbers
    known = ", ".join(f'"{value}"' for value in chosen)
    number = f"({field(right)} | tostring | ascii_downcase)"
    begins = f"[{', '.join(map(field, group))}] as $c | {number} as $n | select($n | IN({known})) | "
    begins += f"$c[$n | explode[0] - {lowest}] as $answer | "
    if asked == "startphrase" or re.match("ending", group[0], re.IGNORECASE):
        made = f'{{prompt: {field(asked)}, completion: (" " + $answer)}}'
    else:
        made = f'{{question: ({_joined([*_about(found), asked])} + "\\n" + ($c | join("\\n"))), answer: $answer}}'
    to = "and" if len(group) == 2 else "to"
    told = f"'{group[0]}' {to} '{group[-1]}', of which '{right}' says the right one,"
    return None if "'" in begins + made else (told, begins + made)


_ASKED = (
    *("question", "query", "goal", "startphrase", "sentence", "stem", "prompt", "problem"),
    *("obs1", "ctx", "instruction"),
)
"""What data sets call a question, or the beginning of a text, beside answers in columns, in the order of preference."""

_CHOSEN = re.compile(
    r"(?P<stem>|.*(?:ending|option|opt|op|choice|sol|solution|answer|ans|alternative|hyp))[ _-]?(?P<end>[0-9A-Za-z])",
    re.IGNORECASE,
)
_MOST_CHOICES = 9


def choices_named_alike(found: Mapping[str, Column]) -> list[str]:
    """Returns the texts that are called alike, but for a number or a letter at their end, in the order of these."""
    stems: dict[str, dict[str, str]] = {}
    for name, column in found.items():
        match = _CHOSEN.fullmatch(name) if column.is_text else None
        if match:
            stems.setdefault(name[: -len(match["end"])], {})[match["end"].lower()] = name
    for ends in stems.values():
        first = next((one for one in "01a" if one in ends), None)
        if (
            first
            and 2 <= len(ends) <= _MOST_CHOICES
            and [*map(ord, sorted(ends))] == [ord(first) + n for n in range(len(ends))]
        ):
            return [ends[end] for end in sorted(ends)]
    return []


def _numbers(values: set[str], group: Sequence[str]) -> tuple[int, list[str]] | None:
    """Returns the character that means the first of some choices, and all that mean one; None where it is not known.

    Args:
        values: What the records say of the right ones.
        group: The choices' columns.
    """
    said = values - {"", "-1"}
    ways = [[chr(begin + number) for number in range(len(group))] for begin in map(ord, "01a")]
    fitting = [way for way in ways if said and said <= {*way}]
    if len(fitting) != 1:
        return None
    return ord(fitting[0][0]), fitting[0]


def _about(found: Mapping[str, Column]) -> list[str]:
    """Returns the text that a question is about, if there is one."""
    return [name for name in _ABOUT if name in found and found[name].is_text][:1]


def _joined(names: Sequence[str]) -> str:
    """Returns texts one below the other, as jq writes it."""
    return ' + "\\n" + '.join(map(field, names))


def endings(look: Look) -> Remade:
    """The beginning of a text with several ends, and the number of the right one, as HellaSwag has them."""
    found = look.found
    begins = next((name for name in ("ctx", "context", "query") if name in found and found[name].is_text), None)
    if begins is None or "label" not in found or "endings" not in found or found["endings"].items != {"string"}:
        return None
    made = f'select(.label != "") | {{prompt: .{begins}, completion: (" " + .endings[.label | tonumber])}}'
    return f"'endings' of '{begins}', of which 'label' says the right one,", made
