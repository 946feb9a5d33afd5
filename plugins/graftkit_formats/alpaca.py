"""Instructions as Alpaca writes them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from graftkit import Column, Conversation, Message
from graftkit.errors import DataError

from graftkit_formats.answered import answer_of, beside_answer, conversation, earlier_turns
from graftkit_formats.turns import SYSTEMS, string_of, with_system

__all__ = ["Alpaca"]

_INPUTS = ("input", "context")
_OUTPUTS = ("output", "response", "answer", "completion")


class Alpaca:
    """Reads `{"instruction": ..., "input": ..., "output": ...}` as a conversation.

    The user says the instruction, and after an empty line the input where there is one. A column "system" comes before
    it, and a column "history", a list of pairs, between the two; "reasoning_content" is thought before the output.
    """

    def columns(self, found: Mapping[str, Column]) -> Collection[str] | None:
        """Fits where there is an instruction and one output, as texts."""
        text = {name for name, column in found.items() if column.is_text}
        inputs, outputs = ([name for name in names if name in text] for names in (_INPUTS, _OUTPUTS))
        if "instruction" not in text or len(outputs) != 1 or len(inputs) > 1:
            return None
        system = [name for name in SYSTEMS if name in text]
        return ["instruction", *inputs, *outputs, *system, *beside_answer(found)]

    def sample(self, record: Mapping[str, Any], where: str) -> Conversation:
        """Returns the conversation."""
        outputs = [name for name in _OUTPUTS if name in record]
        if "instruction" not in record or len(outputs) != 1:
            told = ", ".join(f'"{name}"' for name in record) or "no keys"
            raise DataError(f'a record of this format has "instruction" and "output"; found {told}', where=where)
        asked = [string_of(record, "instruction", where)]
        asked += [string_of(record, name, where) for name in _INPUTS if record.get(name) not in (None, "")]
        messages = (
            *earlier_turns(record, where),
            Message("user", "\n\n".join(asked)),
            answer_of(record, outputs[0], where),
        )
        return conversation(with_system(record, messages, where), where)
