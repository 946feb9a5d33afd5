"""What an assistant writes in use, by a conversation that a chat template is tried with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from graftkit.corpus.encode import Encoder
from graftkit.errors import DataError, ModelError
from graftkit.interfaces.samples import Conversation, Message

__all__ = ["ASKED", "try_answer"]

ASKED = Message("user", "well?")
"""What the assistant is asked."""


def try_answer(encoder: Encoder, answer: Message, tools: Sequence[Mapping[str, Any]] = ()) -> str:
    """Returns the text of an answer from the generation prompt to the end of the turn, special tokens left out.

    Args:
        encoder: It has a chat template.
        answer: What the assistant says, reasons and calls.
        tools: Descriptions of the functions that it may call.

    Returns:
        The text; "" where the template takes no such conversation.
    """
    tokenizer = encoder.tokenizer
    try:
        asked = Conversation((ASKED, answer), "a conversation to try the chat template with", tuple(tools))
        [example] = encoder.encode(asked).examples
    except (DataError, ModelError, ValueError):
        return ""
    decoder, specials = tokenizer.stream_decoder(), {*tokenizer.special_tokens.values()}
    learnt = [token for token in example.ids[example.loss_mask].tolist() if token not in specials]
    return "".join(map(decoder.push, learnt)) + decoder.finish()
