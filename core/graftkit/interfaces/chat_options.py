"""What a recipe says of how conversations are laid out, besides the chat template itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = ["RESERVED_ARGUMENTS", "ChatOptions"]

RESERVED_ARGUMENTS = frozenset(
    [
        "messages",
        "tools",
        "documents",
        "add_generation_prompt",
        "continue_final_message",
        "bos_token",
        "eos_token",
        "pad_token",
        "unk_token",
        "sep_token",
        "cls_token",
        "mask_token",
        "additional_special_tokens",
        "raise_exception",
        "strftime_now",
        "namespace",
        "range",
        "dict",
        "cycler",
        "joiner",
        "loop",
        "self",
        "caller",
        "varargs",
        "kwargs",
        "conversation",
        "chat_template",
        "tokenize",
        "padding",
        "truncation",
        "max_length",
        "return_tensors",
        "return_dict",
        "return_assistant_tokens_mask",
        "tokenizer_kwargs",
        "processor_kwargs",
        "sanitize_control_tokens",
    ]
)
"""Names that every template is given, that Jinja has, or that are parameters of transformers' `apply_chat_template`."""


@dataclass(frozen=True, slots=True)
class ChatOptions:
    """How conversations are laid out, in training and in use.

    Attributes:
        arguments: What the template is given besides the conversation, by name, such as `enable_thinking`: JSON values.
        system: Where a system message at the beginning stands: "own" for a turn of its own, "first_user" for before
            the first user message's text, with a blank line between.
        turns: "all" for one example a conversation, "each" for one an answer: the conversation up to it, laid out as
            when it was given.
        end_of_turn: The text that ends an assistant's turn, with a special token at its end; None for what the template
            writes after the last one.
        template: The name of the tokenizer's template, where it has several; None for `tool_use` where a conversation
            has tools and there is one, else for the default.
    """

    arguments: Mapping[str, Any] = field(default_factory=dict)
    system: Literal["own", "first_user"] = "own"
    turns: Literal["all", "each"] = "all"
    end_of_turn: str | None = None
    template: str | None = None

    def facts(self) -> dict[str, Any]:
        """Returns what is not as usual, as JSON."""
        usual = ChatOptions()
        said = {name: getattr(self, name) for name in self.__slots__}
        return {name: value for name, value in said.items() if value != getattr(usual, name)}
