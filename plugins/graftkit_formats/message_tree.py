"""Trees of messages, as OpenAssistant writes them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from math import inf, isnan
from typing import Any

from graftkit import Column, Conversation
from graftkit.errors import DataError
from graftkit.interfaces.record_format import kind_of

from graftkit_formats.answered import conversation
from graftkit_formats.config import RolesConfig
from graftkit_formats.turns import TurnKeys, messages_of

__all__ = ["MessageTree"]

_TEXTS = ("text", "content")
_IDS = ("message_id", "parent_id")
_KEYS = TurnKeys("message-tree", contents=_TEXTS)
_ABOUT = frozenset(
    {
        *_IDS,
        *("user_id", "created_date", "lang", "review_count", "review_result", "deleted", "rank", "synthetic"),
        *("model_name", "emojis", "replies", "labels", "events", "detoxify", "message_tree_id", "tree_state"),
    }
)
"""Keys that OpenAssistant's exports have of a message, of which a model need not know."""


class MessageTree:
    """Reads `{"prompt": {"role": "prompter", "text": ..., "replies": [...]}}`, a tree a record, as one conversation.

    Of several replies to a message the one with the lowest `rank` is taken, the first of those that have none or the
    same; one that is `deleted` only where there is no other. What messages say besides, as a weight, reasoning or
    calls, is read as of `messages`; keys of other names are refused, but for those of OpenAssistant's exports. A record
    that is a single message of a conversation is told from a text, and refused.

    Args:
        config: Its fields.
    """

    def __init__(self, config: RolesConfig) -> None:
        self._config = config

    def columns(self, found: Mapping[str, Column]) -> Collection[str] | None:
        """Fits where there is a tree under "prompt", or a message that is a record of its own."""
        tree = found.get("prompt")
        if tree is not None and "object" in tree.types and {"role", "replies"} <= tree.keys:
            return ["prompt"]
        texts = [name for name in _TEXTS if name in found and found[name].is_text]
        if len(texts) != 1 or "role" not in found or not found["role"].is_text:
            return None
        return ["role", *texts, *(name for name in found if name in _IDS or name == "replies" or name in _KEYS.known)]

    def sample(self, record: Mapping[str, Any], where: str) -> Conversation:
        """Returns the best-ranked path from the first message to one without a reply."""
        node = record.get("prompt", record)
        if not isinstance(node, dict) or "role" not in node or "replies" not in node:
            raise _no_tree(record, where)
        path = []
        if node is record:  # whose other columns are told as such
            node = {key: value for key, value in record.items() if key in _KEYS.known or key == "replies"}
        while node is not None:
            path.append({key: value for key, value in node.items() if key not in _ABOUT})
            node = _best(node.get("replies"), f"{where}: message {len(path)}")
        return conversation(messages_of(path, where, self._config, _KEYS), where)


def _best(replies: Any, where: str) -> Mapping[str, Any] | None:
    """Returns the reply that the conversation goes on with."""
    if replies is None:
        return None
    if not isinstance(replies, list) or not all(isinstance(reply, dict) for reply in replies):
        raise DataError(f'"replies" is {kind_of(replies)}, no list of messages', where=where)
    return min(replies, key=lambda reply: (bool(reply.get("deleted")), _rank(reply, where)), default=None)


def _rank(reply: Mapping[str, Any], where: str) -> float:
    """Returns a reply's place among those to the same message; the last one where it has none."""
    rank = reply.get("rank")
    if rank is not None and not isinstance(rank, int | float):
        raise DataError(f'a reply has a "rank" that is {kind_of(rank)}, no number', where=where)
    return inf if rank is None or isnan(rank) else float(rank)


def _no_tree(record: Mapping[str, Any], where: str) -> DataError:
    if not {"role", *_TEXTS} & record.keys():
        told = ", ".join(f'"{name}"' for name in record) or "no keys"
        return DataError(f'a record of this format has "prompt", a message with "replies"; found {told}', where=where)
    trees = '{"prompt": {"role": "prompter", "text": "...", "replies": [...]}}'
    whole = '{"messages": [{"role": "user", "content": "..."}, ...]}'
    form = f"a tree, {trees}, as in OpenAssistant's *.trees.jsonl.gz" if {*_IDS} & record.keys() else whole
    return DataError(
        'the record is one message ("role" and a text), and no conversation',
        where=where,
        hint=f"A record is a whole conversation: {form}; or, to learn each message as a text, format: text.",
    )
