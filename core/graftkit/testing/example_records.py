"""A few records to train on, in each of the three shapes."""

from __future__ import annotations

from typing import Any, Literal

__all__ = ["RecordKind", "tiny_records"]

RecordKind = Literal["chat", "completion", "text"]


def tiny_records(kind: RecordKind, count: int) -> list[dict[str, Any]]:
    """Returns records that differ from one another, as a .jsonl file holds them.

    Args:
        kind: "chat" for messages, "completion" for a prompt and its completion, "text" for plain text.
        count: How many.

    Example:
        >>> tiny_records("completion", 2)[1]
        {'prompt': '1 + 1 =', 'completion': ' 2'}
    """
    return [_row(kind, number) for number in range(count)]


def _row(kind: RecordKind, number: int) -> dict[str, Any]:
    question, answer = f"{number} + {number} =", f" {2 * number}"
    if kind == "completion":
        return {"prompt": question, "completion": answer}
    if kind == "text":
        return {"text": f"{question}{answer}"}
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer.strip()}]}
