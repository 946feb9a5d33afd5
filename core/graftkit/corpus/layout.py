"""Knows, for every character of a rendered conversation, whether the template or a message wrote it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from graftkit.corpus.marks import Marks, Stretch, parts_of
from graftkit.corpus.template import ChatTemplate
from graftkit.corpus.turns import CALL_ID, REASONING, Leaf, TemplateForm, template_input
from graftkit.errors import DataError
from graftkit.interfaces.samples import Conversation

__all__ = ["Piece", "joined", "lay_out", "rendered"]


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of the rendered text.

    Attributes:
        text: The stretch.
        message: The number of the message that it is of, `TOOLS`, or None where the template wrote it.
        block: The number of the `{% generation %}` block that it stands in, by which the template says that the
            assistant writes it; None outside of them.
    """

    text: str
    message: int | None
    block: int | None = None


_TAG = re.compile(r"[<\[].{2,}[>\]]\s*|\s*[<\[].{2,}[>\]]")
"""Words such as `</think>`, which a template may look for in a content to take it apart."""

_PLAIN_ID = re.compile(r"[A-Za-z0-9_.:-]{1,100}")

_HINT = "Give another template with data.chat_template, or records with a prompt and a completion."
_SYSTEM = "data.system: first_user puts the system message's text before the first user message, which it takes."
_LET_IT = " data.dropped: report trains without it, and counts it."
_EACH = " data.turns: each learns every answer with its reasoning, in an example of its own."


def lay_out(
    template: ChatTemplate,
    conversation: Conversation,
    *,
    add_generation_prompt: bool = False,
    controls: Collection[str] = (),
    left_out: set[str] | None = None,
    shortened: int = 0,
) -> list[Piece]:
    """Renders a conversation and returns the pieces that make up the text.

    It is rendered as it is, and with marks around every text of its: contents, reasoning, tool calls, tools. The second
    rendering without its marks must be the first; so every character's author is known, whatever the template moves,
    escapes, splits or trims, or else the conversation is refused rather than guessed at.

    Args:
        template: The chat template.
        conversation: The conversation.
        add_generation_prompt: Whether the text ends with the beginning of an answer.
        controls: Texts of control tokens; no one's but the assistant's are left to the template to find and replace.
        left_out: Gets what the template leaves out: "content", "reasoning", "tool calls", "tools", "name". None: it is
            refused.
        shortened: How many messages, from the first, may lose the assistant's reasoning, in a field or in the content.

    Raises:
        DataError: The template refuses the conversation, or rewrites or leaves out some of it.
    """

    def in_form(form: TemplateForm) -> list[Piece]:
        return _Layout(template, conversation, form, add_generation_prompt, controls, shortened).pieces(left_out)

    try:
        return _in_first_form(template, conversation, in_form)
    except DataError as found:
        if not _takes_system_in_user(template, conversation, controls, left_out):
            raise
        hint = f"{found.hint} {_SYSTEM}" if found.hint else _SYSTEM
        raise DataError(found.message, where=found.where, hint=hint) from None


def rendered(template: ChatTemplate, conversation: Conversation, *, add_generation_prompt: bool = False) -> str:
    """Returns the text of a conversation as `lay_out` renders it, without its pieces.

    Args:
        template: The chat template.
        conversation: The conversation.
        add_generation_prompt: Whether the text ends with the beginning of an answer.

    Raises:
        DataError: The template refuses the conversation.
    """
    return _in_first_form(
        template, conversation, lambda form: _Layout(template, conversation, form, add_generation_prompt, ()).text
    )


_T = TypeVar("_T")


def _in_first_form(template: ChatTemplate, conversation: Conversation, made: Callable[[TemplateForm], _T]) -> _T:
    """Returns what is made of the first form of a conversation that the template takes.

    Raises:
        DataError: It takes none; of several the usual one's.
    """
    refused: DataError | None = None
    for form in _forms(template, conversation):
        try:
            return made(form)
        except DataError as error:
            refused = refused or error
    assert refused is not None
    raise refused


def _takes_system_in_user(
    template: ChatTemplate, conversation: Conversation, controls: Collection[str], left_out: set[str] | None
) -> bool:
    """Tells whether a template takes a conversation whose system message is no turn of its own."""
    if template.options.system == "first_user" or not any(m.role == "system" for m in conversation.messages[:1]):
        return False
    try:
        form = replace(next(_forms(template, conversation)), system_in_user=True)
        _Layout(template, conversation, form, False, controls).pieces(left_out)
    except DataError:
        return False
    return True


def _forms(template: ChatTemplate, conversation: Conversation) -> Iterator[TemplateForm]:
    """Yields the ways in which this template may take a conversation, the usual one first."""
    reasoning = next((key for key in REASONING if key in template.attributes), REASONING[0])
    usual = TemplateForm(
        reasoning,
        system_in_user=template.options.system == "first_user",
        content_in_parts=template.takes_content_in_parts,
    )
    yield usual
    if any(message.tool_calls for message in conversation.messages):
        yield replace(usual, arguments_as_text=True)


class _Layout:
    def __init__(
        self,
        template: ChatTemplate,
        conversation: Conversation,
        form: TemplateForm,
        add_generation_prompt: bool,
        controls: Collection[str],
        shortened: int = 0,
    ) -> None:
        self._template, self._conversation, self._form = template, conversation, form
        self._reply, self._controls, self._shortened = add_generation_prompt, controls, shortened
        self._leaves: list[Leaf] = []
        self._ids_unmarked = False
        self.text = self._render(self._kept)
        self._marks = self._made_marks()

    def _kept(self, leaf: Leaf) -> str:
        self._leaves.append(leaf)
        return leaf.text

    def _made_marks(self) -> Marks:
        try:
            given = json.dumps(self._template.options.facts(), ensure_ascii=False)
            return Marks([self._template.source, given, *(leaf.text for leaf in self._leaves)])
        except ValueError as error:
            raise DataError(f"the conversation can't be laid out: {error}", where=self._conversation.where) from None

    def _render(self, mark: Callable[[Leaf], str], marks: Marks | None = None) -> str:
        messages, tools = template_input(self._conversation, self._form, mark)
        where = self._conversation.where
        return self._template.render(messages, where, tools=tools, add_generation_prompt=self._reply, marks=marks)

    def _marked(self, mark: Callable[[Leaf, int], str]) -> list[Stretch] | None:
        """Renders with marks; None where the rendering without them is another than that of the texts as they are."""
        numbers = iter(range(len(self._leaves)))
        try:
            stretches = self._marks.stretches(self._render(lambda leaf: mark(leaf, next(numbers)), self._marks))
        except DataError:
            return None
        place = 0
        for stretch in stretches or ():  # compared where they stand: a text may take a hundred megabytes
            if not self.text.startswith(stretch.text, place):
                return None
            place += len(stretch.text)
        return stretches if place == len(self.text) else None

    def pieces(self, left_out: set[str] | None) -> list[Piece]:
        """Returns the pieces.

        Args:
            left_out: As for `lay_out`.

        Raises:
            DataError: As for `lay_out`.
        """
        stretches = self._known_stretches()
        if stretches is None and any(self._is_plain_id(leaf) for leaf in self._leaves):
            self._ids_unmarked = True
            stretches = self._known_stretches()
        if stretches is None:
            raise self._refused("rewrites a message, so its tokens can't be told from the template's")
        self._check_complete(stretches, left_out)
        pieces = (
            Piece(part.text, None if part.leaf is None else self._leaves[part.leaf].message, part.block)
            for part in stretches
        )
        return list(joined(pieces))

    def _known_stretches(self) -> list[Stretch] | None:
        """Renders with marks, around whole texts or what they are without white space; None where neither is known."""
        stretches = self._marked(self._whole)
        if stretches is not None and self._all_known(stretches, lambda leaf: [leaf.text]):
            return stretches
        return self._trimmed()

    def _all_known(self, stretches: Sequence[Stretch], parts: Callable[[Leaf], Sequence[str]]) -> bool:
        """Tells whether each marked stretch is a part of its text as it is, or as JSON writes it."""
        marked = ((part.text, parts(self._leaves[part.leaf])) for part in stretches if part.leaf is not None)
        return all(
            text in texts or any(text in _escaped(whole) for whole in texts)  # the second is dear, and rare
            for text, texts in marked
        )

    def _whole(self, leaf: Leaf, number: int) -> str:
        return self._marks.around(leaf.text, number) if leaf.text and not self._is_word(leaf) else leaf.text

    def _is_word(self, leaf: Leaf) -> bool:
        """Whether a text is a word that the template compares with, such as a type, and no control token."""
        if self._ids_unmarked and self._is_plain_id(leaf):
            return True
        return bool(leaf.part) and leaf.text in self._template.words and leaf.text not in self._controls

    def _is_plain_id(self, leaf: Leaf) -> bool:
        """Whether a text is a call's id of letters and digits, which templates measure and compare with one another."""
        plain = leaf.part == CALL_ID and _PLAIN_ID.fullmatch(leaf.text) is not None
        return plain and not any(control in leaf.text for control in self._controls)

    def _trimmed(self) -> list[Stretch] | None:
        """Renders with marks that leave white space at the ends, and words that the template knows, to the template."""
        marked = self._marked(self._core)
        if marked is None or not self._all_known(marked, self._parts):
            return None
        if all(leaf.text == leaf.text.strip() for leaf in self._leaves):
            return marked
        numbers = iter(range(len(self._leaves)))
        stripped = self._marks.stretches(
            self._render(lambda leaf: self._core(replace(leaf, text=leaf.text.strip()), next(numbers)), self._marks)
        )
        return _with_white_space(marked, stripped, [leaf.text for leaf in self._leaves])

    def _core(self, leaf: Leaf, number: int) -> str:
        return leaf.text if self._is_word(leaf) else self._marks.around_core(leaf.text, number, self._words(leaf))

    def _words(self, leaf: Leaf) -> list[str]:
        """Returns the tags that the template may look for in a text, longest first."""
        own = leaf.message >= 0 and self._conversation.messages[leaf.message].role == "assistant"
        words = (word for word in self._template.words if _TAG.fullmatch(word))
        return sorted((word for word in words if own or not self._controlled(word)), key=len, reverse=True)

    def _controlled(self, word: str) -> bool:
        return any(word in control or control in word for control in self._controls)

    def _parts(self, leaf: Leaf) -> list[str]:
        """Returns the parts of a text that stand between marks when it is laid out by `_core`."""
        return [part for part, own in parts_of(leaf.text, self._words(leaf)) if own]

    def _check_complete(self, stretches: Sequence[Stretch], left_out: set[str] | None) -> None:
        """Refuses, or tells of, a layout without one of the texts: what nobody sees would silently not be learnt."""
        shown: dict[int, set[str]] = {}
        for stretch in stretches:
            if stretch.leaf is not None:
                shown.setdefault(stretch.leaf, set()).add(stretch.text)
        for number, leaf in enumerate(self._leaves):
            if not leaf.text.strip() or leaf.part == CALL_ID or self._is_word(leaf):
                continue
            if _said(leaf.text, shown.get(number, ())):
                continue
            parts = self._parts(leaf)
            if not all(_said(part, shown.get(number, ())) for part in parts) or not (parts or leaf.text in self.text):
                reasoning = self._is_reasoning(leaf, number in shown)
                if reasoning and leaf.message < self._shortened:
                    continue
                if left_out is None:
                    more = _EACH + _LET_IT if reasoning and leaf.message < self._last_answer else _LET_IT
                    raise self._refused(f"leaves out {'a part of ' if number in shown else ''}{leaf.name}", more)
                left_out.add(leaf.kind)

    def _is_reasoning(self, leaf: Leaf, partly_shown: bool) -> bool:
        """Whether what is left out is the assistant's reasoning: in its field, or a part of the content."""
        own = leaf.message >= 0 and self._conversation.messages[leaf.message].role == "assistant"
        return own and (leaf.part == "reasoning" or (not leaf.part and partly_shown))

    @property
    def _last_answer(self) -> int:
        return max((n for n, m in enumerate(self._conversation.messages) if m.role == "assistant"), default=0)

    def _refused(self, why: str, more: str = "") -> DataError:
        return DataError(f"the chat template {why}", where=self._conversation.where, hint=_HINT + more)


def _escaped(text: str) -> tuple[str, ...]:
    """Returns a text as JSON writes it within quotes, in both ways."""
    return json.dumps(text, ensure_ascii=False)[1:-1], json.dumps(text)[1:-1]


def _said(text: str, shown: Collection[str]) -> bool:
    """Tells whether a text is among what is shown, but for white space around it, or as JSON writes it."""
    if text in shown:
        return True
    forms = {text.strip(), *(form.strip() for form in _escaped(text)), *_escaped(text.strip())}
    return any(found.strip() in forms for found in shown)


def _with_white_space(
    marked: Sequence[Stretch], stripped: Sequence[Stretch] | None, texts: Sequence[str]
) -> list[Stretch]:
    """Gives white space at a text's ends to the text where the template did not trim it.

    Args:
        marked: The layout with the white space outside the marks.
        stripped: The same of texts without that white space, which tells what the template itself writes there.
        texts: The texts.
    """
    if stripped is None or [part.leaf for part in marked if part.leaf is not None] != [
        part.leaf for part in stripped if part.leaf is not None
    ]:
        return list(marked)
    leaves = [(part, texts[part.leaf]) for part in marked if part.leaf is not None]
    found: list[Stretch] = []
    lead = ""
    for number, (ours, theirs) in enumerate(zip(_gaps(marked), _gaps(stripped), strict=True)):
        tail = _end(leaves[number - 1][1]) if number else ""
        ahead = _start(leaves[number][1]) if number < len(leaves) else ""
        left, between, right = _divided(ours, theirs, tail, ahead)
        if number:
            part = leaves[number - 1][0]
            found.append(replace(part, text=f"{lead}{part.text}{left}"))
        found += between
        lead = right
    return found


def _divided(
    ours: Sequence[Stretch], theirs: Sequence[Stretch], tail: str, ahead: str
) -> tuple[str, Sequence[Stretch], str]:
    """Divides what stands between two texts: the first one's white space, the template's own, and the second one's.

    Args:
        ours: What stands there.
        theirs: What stands there where texts have no white space at their ends: the template's own.
        tail: The white space at the end of the first text.
        ahead: The white space at the beginning of the second.
    """
    text, own = ("".join(part.text for part in gap) for gap in (ours, theirs))
    for left, right in ((tail, ahead), (tail, ""), ("", ahead)):
        if (left or right) and len(ours) == 1 and text == left + own + right:
            return left, [replace(ours[0], text=own)] if own else [], right
    return "", ours, ""


def _gaps(stretches: Sequence[Stretch]) -> list[list[Stretch]]:
    """Returns what stands before, between and after the marked parts."""
    gaps: list[list[Stretch]] = [[]]
    for part in stretches:
        if part.leaf is None:
            gaps[-1].append(part)
        else:
            gaps.append([])
    return gaps


def _start(text: str) -> str:
    return text[: len(text) - len(text.lstrip())] if text.strip() else ""


def _end(text: str) -> str:
    return text[len(text.rstrip()) :] if text.strip() else ""


def joined(pieces: Iterable[Piece]) -> Iterator[Piece]:
    """Joins neighbours that the template wrote."""
    last: Piece | None = None
    for piece in pieces:
        if last is not None and last.message is piece.message is None and last.block == piece.block:
            last = Piece(last.text + piece.text, None, piece.block)
            continue
        if last is not None:
            yield last
        last = piece
    if last is not None:
        yield last
