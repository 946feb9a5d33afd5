"""How errors name an option of what was called: as a command's, or as an argument of the library's function."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["as_command", "option"]

_FLAGS = ("other_base", "overwrite", "resume")
"""Those that take no value on the command line."""

_commands = 0
"""How many commands are going on in this process: whoever calls the library has none."""


@contextmanager
def as_command() -> Iterator[None]:
    """Has options named as a command's meanwhile, in all threads."""
    global _commands
    _commands += 1
    try:
        yield
    finally:
        _commands -= 1


def option(name: str) -> str:
    """Returns what an error calls an option that commands and the library's functions have by the same name.

    Args:
        name: The argument's name.

    Example:
        >>> option("resume")
        'resume=True'
        >>> with as_command():
        ...     option("resume")
        '--resume'
    """
    if _commands:
        return f"--{name.replace('_', '-')}"
    return f"{name}=True" if name in _FLAGS else f"{name}=..."
