"""Writes a recipe to start from, by a look at the model and the records where they are there."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graftkit.errors import DataError, FolderError, RecipeError, RequestError, UnknownFormatError
from graftkit.flow.records.format_guess import Guess
from graftkit.flow.records.recipe_text import (
    TEMPLATE_FILE,
    recipe_text,
    told_of_guess,
    told_of_start,
    why_own_template,
)
from graftkit.flow.records.starting_point import StartingPoint, find_starting_point, numbers_beside_texts
from graftkit.host.host import PluginHost
from graftkit.interfaces.regular_file import read_regular
from graftkit.recipe.paths import anchored_reference, is_address, seen_from
from graftkit.store.files import check_new_file, write_new_text
from graftkit.visible import one_line

__all__ = ["FirstRecipe", "write_first_recipe"]


@dataclass(frozen=True, slots=True)
class FirstRecipe:
    """A recipe that was written.

    Attributes:
        told: What the user should know of it.
        template: The file with graftkit's own chat template that the recipe names; None where it names none.
        why_template: Why it does.
    """

    told: Sequence[str]
    template: Path | None = None
    why_template: str = ""


@dataclass(frozen=True, slots=True)
class _Look:
    """What a look at model and records came to.

    Attributes:
        found: What suits them; None where they can't be looked at.
        guess: What was guessed of the records, if anything.
        trouble: Why they can't be looked at, or not be laid out; "" where they can.
    """

    found: StartingPoint | None = None
    guess: Guess | None = None
    trouble: str = ""

    @property
    def told(self) -> Iterator[str]:
        """What the user should know."""
        if self.guess:
            yield told_of_guess(self.guess)
        if self.found:
            yield from told_of_start(self.found)
        if self.trouble:
            yield self.trouble


def write_first_recipe(
    path: str,
    model: str,
    train: str,
    host: PluginHost,
    *,
    said: Mapping[str, Any] | None = None,
    objective: str | None = None,
    named_records: bool = True,
) -> FirstRecipe:
    """Writes a recipe that trains a model on records, with numbers that suit them where they can be looked at.

    Args:
        path: The recipe's file, which is not there yet.
        model: The base model.
        train: The records: a file, a folder or a pattern.
        host: The plugins.
        said: What else an entry of `data.train` says of them.
        objective: What is to be learnt; what suits the records when left out.
        named_records: Whether somebody named the records, which are refused then where they can't be used; others
            need not be there yet.

    Raises:
        FolderError: There is such a file already, or another one where the chat template is to be.
        DataError: Records that somebody named can't be used.
        RecipeError: What is said of them is no entry of `data.train`.
        RequestError: An objective is asked for, and can't be looked at with them.
    """
    target, said = Path(path), said or {}
    check_new_file(target)
    folder, here = target.parent, Path.cwd()
    reference = anchored_reference(model, here)
    look = _look(reference, train, said, host, objective, named_records=named_records)
    template = look.found.template if look.found else None
    if template is not None:
        _holds(folder / TEMPLATE_FILE, template)
    records = train
    if not is_address(train):
        records = seen_from(folder, train, str(here / train), looked_at=look.found is not None)
    named = seen_from(folder, model, reference)
    text = recipe_text(one_line(path), named, {"path": records, **said}, look.found, look.guess)
    with _template_beside(folder, template):
        write_new_text(target, text)
    if look.found is None or template is None:
        return FirstRecipe(list(look.told))
    return FirstRecipe(list(look.told), folder / TEMPLATE_FILE, why_own_template(look.found))


def _look(
    reference: str,
    train: str,
    said: Mapping[str, Any],
    host: PluginHost,
    objective: str | None,
    *,
    named_records: bool,
) -> _Look:
    guess: Guess | None = None
    try:
        try:
            guess = numbers_beside_texts(host, train, said)
            found = find_starting_point(host, reference, train, {**said, **(guess or {})}, objective)
        except UnknownFormatError as error:
            guess = error.suggested
            if guess is None:
                raise
            found = find_starting_point(host, reference, train, {**said, **guess}, objective)
    except RequestError as error:
        refused = isinstance(error, DataError | RecipeError) and named_records
        if refused or objective is not None:
            raise
        return _Look(trouble=f"not looked at: {error}")
    return _Look(found, guess, found.trouble)


@contextmanager
def _template_beside(folder: Path, template: str | None) -> Iterator[None]:
    """Writes a chat template beside a recipe, and removes it again where the recipe that names it can't be written.

    Args:
        folder: The recipe's.
        template: The template; None where the recipe names none.
    """
    path = folder / TEMPLATE_FILE
    if template is None or _holds(path, template):
        yield
        return
    write_new_text(path, template)
    try:
        yield
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _holds(path: Path, text: str) -> bool:
    """Returns whether a file holds a text; False where there is no such file, nor a link of this name.

    Raises:
        FolderError: It is anything else.
    """
    encoded = text.encode()
    if not os.path.lexists(path):
        return False
    with suppress(OSError):  # larger, no regular file, or one that may not be read
        if read_regular(path, len(encoded)) == encoded:
            return True
    raise FolderError("there is such a file already", where=str(path), hint="Move it away.")
