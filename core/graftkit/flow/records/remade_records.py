"""Commands that make records of what data sets hold in other shapes, for files that no format reads as they are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from graftkit.flow.records.jq_commands import Look, Remade, offered
from graftkit.flow.records.remade_answers import ranked, rejected_beside, two_answers, wanted_or_not
from graftkit.flow.records.remade_choices import choices_in_a_list, choices_in_columns, endings
from graftkit.flow.records.remade_nested import (
    context_in_parts,
    lone_messages,
    parts_of_gemini,
    selected_passages,
    shares_of_labels,
    spans_of_answers,
    system_in_parts,
    truth_of_prompt,
)

__all__ = ["remade", "remade_left_out"]


def remade(look: Look, path: str) -> tuple[str, str] | None:
    """Returns what a data set of a known shape holds that is not read, and the command that makes records of it.

    Args:
        look: What the file holds.
        path: The path that the recipe gives.
    """
    shape = next(filter(None, (shape(look) for shape in (*_LEFT_OUT, *_SHAPES))), None)
    return None if shape is None else (f"{shape[0]} would not be read", offered(shape[1], look, path))


def remade_left_out(look: Look, path: str) -> tuple[str, str] | None:
    """Returns what a format that fits a file leaves out and is likely meant, and the command that makes records of it.

    Args:
        look: What the file holds, and which columns the format reads.
        path: The path that the recipe gives.
    """
    for shapes, then in ((_LEFT_OUT, look), (_UNREAD, replace(look, read=()))):
        shape = next(filter(None, (shape(look) for shape in shapes)), None)
        if shape:
            return f"{shape[0]} would not be read", offered(shape[1], then, path)
    return None


def _asked_in_turn(look: Look) -> Remade:
    """Lists of questions and of their answers, about one text, as CoQA and QuAC have them."""
    found = look.found
    if not {"questions", "answers"} <= found.keys() or found["questions"].items != {"string"}:
        return None
    inner = {"input_text": ".answers.input_text", "texts": "(.answers.texts | map(first))"}
    answers = next((said for key, said in inner.items() if key in found["answers"].keys), ".answers")
    if answers == ".answers" and found["answers"].items != {"string"}:
        return None
    about = next((name for name in ("story", "context", "passage") if name in found and found[name].is_text), None)
    begins = f' | .[0].content = $r.{about} + "\\n\\n" + .[0].content' if about else ""
    made = (
        f". as $r | {{messages: ([.questions, {answers}] | transpose | "
        f'map({{role: "user", content: .[0]}}, {{role: "assistant", content: .[1]}}){begins})}}'
    )
    return "'questions' and 'answers', a conversation,", made


def _in_languages(look: Look) -> Remade:
    """Pairs of texts in several languages with one label, as XNLI has them."""
    found = look.found
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


_LEFT_OUT: Sequence[Callable[[Look], Remade]] = (
    *(wanted_or_not, rejected_beside, choices_in_a_list, choices_in_columns),
    *(context_in_parts, truth_of_prompt, shares_of_labels),
)
"""Shapes of records that a format may fit as they are, which leaves a part of them out."""

_UNREAD: Sequence[Callable[[Look], Remade]] = (system_in_parts, lone_messages)
"""Shapes that a format fits, and does not read."""

_SHAPES: Sequence[Callable[[Look], Remade]] = (
    *(two_answers, ranked, _asked_in_turn, endings, _in_languages),
    *(parts_of_gemini, selected_passages, spans_of_answers),
)
