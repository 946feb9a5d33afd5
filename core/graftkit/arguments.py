"""Checks the arguments of public functions before any work, so that an error names the argument."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from graftkit.errors import FolderError, RequestError

__all__ = [
    "check_callable",
    "check_choice",
    "check_current_folder",
    "check_flags",
    "check_is",
    "check_mappings",
    "check_number",
    "check_path",
    "check_several",
    "check_text",
    "check_texts",
    "check_unicode",
]


def check_current_folder() -> None:
    """Makes sure that there is a current folder, where relative paths start.

    Raises:
        FolderError: It was deleted.
    """
    try:
        os.getcwd()  # noqa: PTH109
    except FileNotFoundError:
        hint = "Change into one that is, with cd."
        raise FolderError("the current folder is not there any more", hint=hint) from None


def check_path(
    value: Any, name: str, error: type[RequestError] = FolderError, hint: str = "Give a text or a Path."
) -> str:
    """Returns the path that an argument names.

    Args:
        value: The argument.
        name: What it is called.
        error: What is raised.
        hint: What the error says to do.

    Raises:
        RequestError: It is no path, one that no file can have, or one that the system refuses to open; of the class
            that was asked for.
    """
    try:
        path = os.fspath(value)
    except TypeError:
        path = None
    if not isinstance(path, str):
        raise error(_other_type(value, "path"), where=name, hint=hint)
    if "\0" in path:
        raise error("it has a null character, which no path can have", where=name, hint=hint)
    try:
        Path(path, "x").lstat()  # also whether a folder's files may be looked at
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as reason:
        if reason.errno != errno.EINVAL:  # as Windows says of "package:NAME/FILE", which is no path but may be meant
            raise error(f"can't be opened: {reason.strerror}", where=path) from None
    except UnicodeEncodeError:
        raise error("it has half of a surrogate pair, which no path can have", where=name, hint=hint) from None
    return path


def check_text(value: Any, name: str) -> None:
    """Makes sure that an argument is a text.

    Raises:
        RequestError: It is something else.
    """
    if not isinstance(value, str):
        raise RequestError(_other_type(value, "text"), where=name, hint="Give a str.")


def check_unicode(text: str, what: str) -> None:
    """Makes sure that a text can be written as UTF-8: one with half of a surrogate pair can't.

    Args:
        text: The text.
        what: What the error calls it.

    Raises:
        RequestError: It can't.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        raise RequestError(f"the {what} is not UTF-8") from None


def check_texts(values: Any, name: str, error: type[RequestError] = RequestError) -> list[str]:
    """Returns the texts of an argument that takes several; each is taken once.

    Args:
        values: The argument.
        name: What it is called.
        error: What is raised.

    Raises:
        RequestError: It is one text, or holds something else; of the class that was asked for.
    """
    hint = "Give a list of texts, each a str."
    if isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable):
        raise error(_other_type(values, "list of texts"), where=name, hint=hint)
    found = list(values)
    for number, value in enumerate(found):
        if not isinstance(value, str):
            raise error(_other_type(value, "text"), where=f"{name}[{number}]", hint=hint)
    return found


def check_several(values: Any, name: str, kind: str, hint: str, error: type[RequestError] = RequestError) -> None:
    """Makes sure that things that are handed in can be taken one by one.

    Args:
        values: The argument.
        name: What it is called.
        kind: What they are to be.
        hint: What the error says to do.
        error: What is raised.

    Raises:
        RequestError: They can't; of the class that was asked for.
    """
    if not isinstance(values, Iterable):
        raise error(_other_type(values, kind), where=name, hint=hint)


def check_mappings(values: Any, name: str) -> None:
    """Makes sure that an argument is a list of mappings.

    Raises:
        RequestError: It is something else.
    """
    if not isinstance(values, list | tuple) or not all(isinstance(value, Mapping) for value in values):
        raise RequestError("it is no list of mappings", where=name, hint="Give a list of mappings, such as JSON has.")


def check_flags(*may_be_none: str, **values: Any) -> None:
    """Makes sure that arguments are true or false: "no" and "false" would count as true.

    Args:
        may_be_none: The names of those that may be None as well.
        values: The arguments by name.

    Raises:
        RequestError: One is something else.
    """
    for name, value in values.items():
        if not isinstance(value, bool) and not (value is None and name in may_be_none):
            raise RequestError(_other_type(value, "bool"), where=name, hint="Give True or False.")


def check_callable(value: Any, name: str) -> None:
    """Makes sure that an argument can be called.

    Raises:
        RequestError: It can't.
    """
    if not callable(value):
        raise RequestError(_other_type(value, "function"), where=name, hint="Give a function, or leave it out.")


def check_number(value: Any, name: str, least: int | None = None, most: int | None = None) -> None:
    """Makes sure that an argument is a whole number.

    Args:
        value: The argument.
        name: What it is called.
        least: The least that it may be; any where None.
        most: The most that it may be; any where None.

    Raises:
        RequestError: It is something else, or out of its range.
    """
    hint = "Give a whole number." if least is None else f"Give a whole number from {least} on."
    if not isinstance(value, int) or isinstance(value, bool):
        raise RequestError(_other_type(value, "whole number"), where=name, hint=hint)
    if least is not None and value < least:
        told = f"it is {value}, which is too little" if value.bit_length() < 64 else "it is too little"
        raise RequestError(told, where=name, hint=hint)
    if most is not None and value > most:
        raise RequestError("it is too large", where=name, hint=f"Give a whole number up to {most}.")


def check_is(value: Any, kind: type, name: str) -> None:
    """Makes sure that an argument is an object of a class.

    Raises:
        RequestError: It is something else.
    """
    if not isinstance(value, kind):
        told = _other_type(value, kind.__name__)
        raise RequestError(told, where=name, hint=f"Give a {kind.__name__}, or leave it out.")


def check_choice(value: Any, name: str, choices: Iterable[str]) -> None:
    """Makes sure that an argument is one of a few texts.

    Raises:
        RequestError: It is something else.
    """
    allowed = [*choices]
    if value not in allowed:
        told = f"it is {value!r:.60}" if isinstance(value, str) else f"it is of the type {type(value).__name__}"
        raise RequestError(told, where=name, hint=f"Give one of {', '.join(allowed)}, or leave it out.")


def _other_type(value: Any, due: str) -> str:
    return f"it is of the type {type(value).__name__}, and no {due}"
