"""How much a client may ask for."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Limits"]


@dataclass(frozen=True, slots=True)
class Limits:
    """How much of a request is taken.

    Attributes:
        new_tokens: Tokens of an answer at most, also where a request says nothing of them.
        messages: Messages of a conversation.
        texts: Texts of a request for vectors.
        body_bytes: Bytes of a request's body.
        body_seconds: Seconds in which a request's body has to come.
        prompt_seconds: Seconds in which a tokenizer has to make tokens of a prompt of over 2,000 characters; on Linux.
        json_values: Values in a request's JSON, an object counted as four.
    """

    new_tokens: int = 4096
    messages: int = 1000
    texts: int = 2048
    body_bytes: int = 2 << 20
    body_seconds: float = 30.0
    prompt_seconds: float = 30.0
    json_values: int = 200_000
