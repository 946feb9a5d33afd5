"""How several processes hold the frozen weights, where the recipe leaves that to the memory of their devices."""

from __future__ import annotations

__all__ = ["WAYS", "choose_way", "kept_for_good", "sharers_of"]

WAYS = ("data", "hybrid", "shard")
"""What `training.parallel` may say besides `auto`, what sends least first."""

_ROOM = 0.7
"""The share of a device's memory that what is kept for good may fill: embeddings and a pass have to fit, too."""
_TRAINED = 16
"""Bytes that AdamW keeps of each number that is trained, all in float32: itself, its gradient, and two moments."""


def kept_for_good(frozen: int, trained: int, sharers: int) -> int:
    """Returns the bytes of frozen layers and of what is trained that a process keeps.

    Args:
        frozen: The bytes of the frozen layers.
        trained: How many numbers are trained.
        sharers: How many processes keep the frozen layers among them.
    """
    return frozen // sharers + _TRAINED * trained


def sharers_of(way: str, here: int, count: int) -> int:
    """Returns how many processes keep the frozen weights among them.

    Args:
        way: What `training.parallel` says, or comes to.
        here: How many processes there are on each machine.
        count: How many there are.
    """
    return {"data": 1, "hybrid": here, "shard": count}[way]


def choose_way(frozen: int, trained: int, room: int, here: int, count: int) -> str:
    """Returns what `training.parallel: auto` comes to: what sends least of the ways that leave room for a pass.

    Args:
        frozen: The bytes of the frozen layers.
        trained: How many numbers are trained.
        room: The bytes of a device's memory.
        here: How many processes there are on each machine.
        count: How many there are.

    Example:
        >>> [choose_way(40 * 10**9, 10**8, memory * 10**9, here=8, count=16) for memory in (80, 24, 7)]
        ['data', 'hybrid', 'shard']
    """
    for way in WAYS:
        if kept_for_good(frozen, trained, sharers_of(way, here, count)) <= _ROOM * room:
            return "shard" if way == "hybrid" and here == count else way
    return "shard"
