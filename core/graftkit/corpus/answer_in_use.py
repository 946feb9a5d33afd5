"""An answer laid out after the prompt that a model is given in use."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from graftkit.corpus.layout import Piece, joined, lay_out, rendered
from graftkit.corpus.template import ChatTemplate
from graftkit.errors import DataError
from graftkit.interfaces.samples import Conversation

__all__ = ["after_prompt_in_use"]


def after_prompt_in_use(
    pieces: Sequence[Piece],
    template: ChatTemplate,
    conversation: Conversation,
    generation_prompt: str,
    controls: Collection[str],
    left_out: set[str] | None,
) -> list[Piece] | None:
    """Returns a layout whose last message stands after the template's own prompt of the messages before it.

    A template may write those otherwise once they are answered: that of gpt-oss leaves out the reasoning before a call
    whose result has been answered, which the model saw as it answered.

    Args:
        pieces: The layout of the conversation, which ends with the answer.
        template: The chat template.
        conversation: The conversation.
        generation_prompt: What the template writes to have the assistant answer.
        controls: Texts of control tokens.
        left_out: As for `lay_out`.

    Returns:
        None where the prompt is what stands before the answer, or can't be told from it: where the answer or the prompt
        doesn't begin after the generation prompt, or the template lays out no prompt.
    """
    answer = len(conversation.messages) - 1
    first = next((place for place, piece in enumerate(pieces) if piece.message == answer), 0)
    between = pieces[first - 1] if first else None
    if between is None or between.message is not None or not generation_prompt:
        return None
    head, said, rest = between.text.rpartition(generation_prompt)
    if not said:
        return None
    before = "".join(piece.text for piece in pieces[: first - 1]) + head + said
    asked = replace(conversation, messages=conversation.messages[:-1])
    try:
        prompt = rendered(template, asked, add_generation_prompt=True)
        if prompt == before or not prompt.endswith(generation_prompt):
            return None
        found = lay_out(
            template, asked, add_generation_prompt=True, controls=controls, left_out=left_out, shortened=answer
        )
    except DataError:  # it takes no conversation without an answer
        return None
    return list(joined([*found, replace(between, text=rest), *pieces[first:]]))
