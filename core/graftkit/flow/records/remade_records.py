"""Commands that make records of what data sets hold in other shapes, for files that no format reads as they are."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import PurePath
from typing import Any

from graftkit.articles import counted
from graftkit.interfaces.bounded_json import parse_json
from graftkit.interfaces.record_format import Column
from graftkit.interfaces.record_source import PACKED
from graftkit.interfaces.yaml_word import yaml_word
from graftkit.visible import one_line

__all__ = ["by_jq", "choices_left_out", "remade", "remade_texts"]

_Columns = Mapping[str, Column]
_Found = tuple[str, str] | None
"""What a shape is told as, and the jq program that makes records of it."""


def by_jq(made: str, path: str) -> str:
    """Returns the command that makes other records of a file.

    Args:
        made: The jq program, of one record.
        path: The path that the recipe gives.
    """
    suffix = PurePath(path).suffix
    unpacked, file = "", "FILE"
    if suffix in PACKED:
        path, unpacked, file = path.removesuffix(suffix), f"{PACKED[suffix]} -dc FILE | ", "/dev/stdin"
    lines = next((lines for endings, lines in _LINES.items() if path.endswith(endings)), None)
    if lines is not None:
        return f"{unpacked}{lines} {file} | jq -c '{made}' > records.jsonl"
    each = 'if type == "array" then .[] else . end | ' if path.endswith(".json") else ""
    return f"{unpacked}jq -c '{each}{made}' {file} > records.jsonl"


_TABLE = (
    "python -c 'import csv, json, sys; csv.field_size_limit(1 << 30); [print(json.dumps(row)) for row in "
    'csv.DictReader(open(sys.argv[1], encoding="utf-8-sig", newline=""){})]\''
)

_LINES: Mapping[tuple[str, ...], str] = {
    (".parquet", ".pq"): "python -c 'import json, sys, pyarrow.parquet as p; "
    "[print(json.dumps(row, default=str)) for row in p.read_table(sys.argv[1]).to_pylist()]'",
    (".csv",): _TABLE.format(""),
    (".tsv",): _TABLE.format(', delimiter="\\t"'),
}
"""What makes JSON of a table, a line a record, by the ends of its name."""


def remade(found: _Columns, read: Collection[str], path: str) -> tuple[str, str] | None:
    """Returns what a data set of a known shape holds that is not read, and the command that makes records of it.

    Args:
        found: The file's columns.
        read: Those that the format that fits reads.
        path: The path that the recipe gives.
    """
    shape = next(filter(None, (shape(found) for shape in _SHAPES)), None)
    return None if shape is None else (f"{shape[0]} would not be read", _offered(shape[1], found, read, path))


def remade_texts(records: Iterable[Mapping[str, Any]], path: str) -> tuple[str, str] | None:
    """Returns the same of records whose texts and numbers say what they hold, and not their columns' names.

    Args:
        records: The first of the file, of which no format reads any.
        path: The path that the recipe gives.
    """
    rows = list(records)
    shape = _marked_labels(rows) or _marked_turns(rows) or _listed_turns(rows)
    return None if shape is None else (shape[0], _offered(shape[1], {}, (), path))


def choices_left_out(found: _Columns, read: Collection[str], path: str) -> tuple[str, str] | None:
    """Returns what a question is asked to choose from where that is not read, and what to do; None without such.

    Args:
        found: The file's columns.
        read: Those that the format that fits reads.
        path: The path that the recipe gives.
    """
    name = next((name for name in _CHOICES if name in found and name not in read), None)
    question = next((name for name in _QUESTIONS if name in found and found[name].is_text), None)
    if name is None or question is None:
        return None
    if found[name].items == {"string"}:
        joined = f'(.{name} | join("\\n"))'
    elif {"label", "text"} <= found[name].keys and "object" in found[name].types:
        joined = f'([.{name}.label, .{name}.text] | transpose | map(join(". ")) | join("\\n"))'
    else:
        return None
    answers = {
        "answer": "" if "answer" not in found or found["answer"].is_text else f" | .answer = .{name}[.answer]",
        "answerKey": " | .answer = .answerKey",
    }
    answer = next((answer for answer in answers if answer in found), None)
    if answer is None or (answer == "answer" and answers[answer] and found[name].items != {"string"}):
        return None
    made = f'.question = .{question} + "\\n" + {joined}{answers[answer]} | del(.{name})'
    told = f"'{name}' beside '{question}' would not be read"
    return told, _offered(made, found, read, path, "puts them into the question")


_CHOICES, _QUESTIONS = ("choices", "options"), ("question", "question_stem")
"""What data sets call the answers to choose from, and the question that they belong to."""


def _offered(made: str, found: _Columns, read: Collection[str], path: str, does: str = "makes records of them") -> str:
    """Returns the command, and the line that leaves columns out where something else is read."""
    left = ", ".join(yaml_word(name) for name in found if name not in read)
    unread = f"; or, where they are not meant, {{path: {yaml_word(path)}, unused: [{left}]}}." if read else ""
    return f"This {does}: {by_jq(made, path)}{unread}"


def _two_answers(found: _Columns) -> _Found:
    """Two answers beside a number, or a name, that says which is better: HelpSteer's, PKU-SafeRLHF's, WebGPT's."""
    pair = next((pair for pair in _TWO if all(name in found for name in pair)), None)
    if pair is None:
        return None
    first, second = pair
    by = next((by for by in _BETTER if by in found and found[by].types <= {"number", "null"}), None)
    scores = [f"score_{name[-1]}" for name in pair]
    if by:
        told, judged = f"'{by}' says", f"select(.{by} and .{by} != 0) | .{by} > 0"
    elif "better_response_id" in found and first == "response_0":
        told, judged = "'better_response_id' says", ".better_response_id == 1"
    elif all(name in found for name in scores):
        told = f"'{scores[0]}' and '{scores[1]}' say"
        judged = f"select(.{scores[0]} != .{scores[1]}) | .{scores[1]} > .{scores[0]}"
    elif "winner" in found and first == "conversation_a":
        told, judged = "'winner' says", 'select(.winner | startswith("model_")) | .winner == "model_b"'
    else:
        return None
    prompt = _prompt(found)
    if prompt is None and not found[first].is_list_of_objects:
        return None
    asked = f"prompt: $r{prompt}, " if prompt else ""
    made = (
        f". as $r | {judged} | if . then [$r.{second}, $r.{first}] else [$r.{first}, $r.{second}] end | "
        f"{{{asked}chosen: .[0], rejected: .[1]}}"
    )
    return f"'{first}' and '{second}', of which {told} the better one,", made


_TWO = (
    *(("response_1", "response_2"), ("response1", "response2"), ("response_0", "response_1")),
    *(("answer_0", "answer_1"), ("conversation_a", "conversation_b")),
)
_BETTER = ("preference_strength", "overall_preference")
"""What data sets call a number that is below 0 where the first of two answers is better, and above where the second."""


def _prompt(found: _Columns) -> str | None:
    """Returns where the prompt stands in a record, as jq writes it; None where there is none."""
    for name in ("prompt", "instruction", "question", "context"):
        if name in found and (found[name].is_text or (found[name].is_list_of_objects and "role" in found[name].keys)):
            return f".{name}"
        if name in found and "full_text" in found[name].keys:
            return f".{name}.full_text"
    return None


def _ranked(found: _Columns) -> _Found:
    """Several answers to a prompt with ranks, as Nectar has them, or with scores, as UltraFeedback has them."""
    prompt = _prompt(found)
    for name in ("answers", "completions", "responses"):
        if prompt is None or name not in found or not found[name].is_list_of_objects:
            continue
        keys = found[name].keys
        text = next((key for key in ("answer", "response", "completion", "text", "content") if key in keys), None)
        by = next((key for key in ("rank", "overall_score", "score") if key in keys), None)
        if text and by:
            best, worst = ("first", "last") if by == "rank" else ("last", "first")
            made = (
                f". as $r | .{name} | sort_by(.{by}) | select(first.{by} != last.{by}) | "
                f"{{prompt: $r{prompt}, chosen: {best}.{text}, rejected: {worst}.{text}}}"
            )
            return f"'{name}', of which '{by}' says the best and the worst one,", made
    return None


def _asked_in_turn(found: _Columns) -> _Found:
    """Lists of questions and of their answers, about one text, as CoQA has them."""
    if not {"questions", "answers"} <= found.keys() or found["questions"].items != {"string"}:
        return None
    answers = ".answers.input_text" if "input_text" in found["answers"].keys else ".answers"
    if answers == ".answers" and found["answers"].items != {"string"}:
        return None
    about = next((name for name in ("story", "context", "passage") if name in found and found[name].is_text), None)
    begins = f' | .[0].content = $r.{about} + "\\n\\n" + .[0].content' if about else ""
    made = (
        f". as $r | {{messages: ([.questions, {answers}] | transpose | "
        f'map({{role: "user", content: .[0]}}, {{role: "assistant", content: .[1]}}){begins})}}'
    )
    return "'questions' and 'answers', a conversation,", made


def _endings(found: _Columns) -> _Found:
    """The beginning of a text with several ends, and the number of the right one, as HellaSwag has them."""
    begins = next((name for name in ("ctx", "context", "query") if name in found and found[name].is_text), None)
    if begins is None or "label" not in found or "endings" not in found or found["endings"].items != {"string"}:
        return None
    made = f'select(.label != "") | {{prompt: .{begins}, completion: (" " + .endings[.label | tonumber])}}'
    return f"'endings' of '{begins}', of which 'label' says the right one,", made


def _in_languages(found: _Columns) -> _Found:
    """Pairs of texts in several languages with one label, as XNLI has them."""
    pair = ("premise", "hypothesis")
    if not {*pair, "label"} <= found.keys() or not {"language", "translation"} <= found["hypothesis"].keys:
        return None
    if "object" not in found["premise"].types:
        return None
    made = (
        ". as $r | .hypothesis | [.language, .translation] | transpose | .[] | "
        "{premise: $r.premise[.[0]], hypothesis: .[1], label: $r.label}"
    )
    return "'premise' and 'hypothesis' in several languages", made


_SHAPES: Sequence[Callable[[_Columns], _Found]] = (_two_answers, _ranked, _asked_in_turn, _endings, _in_languages)


def _marked_labels(rows: Sequence[Mapping[str, Any]]) -> _Found:
    """A column of zeros and ones for each label of a text, as Jigsaw's comments have them."""
    names = list(dict.fromkeys(name for row in rows for name in row))
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


def _marked_turns(rows: Sequence[Mapping[str, Any]]) -> _Found:
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


def _listed_turns(rows: Sequence[Mapping[str, Any]]) -> _Found:
    """A conversation whose list is written as text."""
    for name in ("conversation", "dialog", "dialogue", "turns", "chat"):
        texts = [row.get(name) for row in rows]
        if texts and all(map(_is_list, texts)):
            return f"'{name}' holds lists, written as text", f".{name} |= fromjson"
    return None


def _is_list(text: object) -> bool:
    """Tells whether a text is a list in JSON; one in Python's quotes, or that is cut off, jq does not read."""
    if not isinstance(text, str) or not text.lstrip().startswith("["):
        return False
    with suppress(ValueError):
        return isinstance(parse_json(text.encode()), list)
    return False
