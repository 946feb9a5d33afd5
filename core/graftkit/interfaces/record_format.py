"""What records mean."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from graftkit.articles import with_article
from graftkit.interfaces.samples import Sample

__all__ = ["Column", "DescribesReading", "RecordFormat", "TakesNames", "kind_of"]


@dataclass(frozen=True, slots=True)
class Column:
    """What the first records of a file hold in a column.

    Attributes:
        types: The JSON types found: "string", "number", "boolean", "null", "list", "object".
        items: Where lists were found, the types of what is in them.
        keys: Where objects, or lists of them, were found: their keys.
    """

    types: frozenset[str] = frozenset()
    items: frozenset[str] = frozenset()
    keys: frozenset[str] = frozenset()

    @property
    def is_text(self) -> bool:
        """Whether it holds strings, and nothing else but nulls."""
        return "string" in self.types and self.types <= {"string", "null"}

    @property
    def is_list_of_objects(self) -> bool:
        """Whether it holds lists of objects, and nothing else but nulls."""
        return "list" in self.types and self.types <= {"list", "null"} and self.items == {"object"}


def kind_of(value: Any) -> str:
    """Returns what a value of a record is called in an error, such as "a list"."""
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", type(None): "null"}
    names |= {int: "a number", float: "a number"}
    return names.get(type(value), with_article(type(value).__name__))


class RecordFormat(Protocol):
    """Makes samples of records of one shape. Built from its own config model: `Class(config)`, or `Class()`.

    One whose records are prompts without an answer says so by an attribute `unanswered` that is true: it is asked where
    no other format fits, since a column that it does not read may be the answer.
    """

    def columns(self, found: Mapping[str, Column]) -> Collection[str] | None:
        """Returns which of a file's columns this format reads, or None where the file is of another shape.

        Where a recipe names no format, each is asked, and exactly one must fit; one whose columns include all those of
        another goes before it.

        Args:
            found: The columns of the file's first records, by name.
        """

    def sample(self, record: Mapping[str, Any], where: str) -> Sample:
        """Makes a sample of a record.

        Args:
            record: The record's columns; those that are null are left out, as columnar files hold every column in
                every record. A text too large to hold is a `RecordSource`.
            where: File and line, which the sample keeps and errors name.

        Raises:
            NothingToLearn: The record is of the format, but there is nothing in it to learn, such as an empty answer.
            DataError: It is of another shape, or malformed.
        """


@runtime_checkable
class DescribesReading(Protocol):
    """A format that reads into some records what they don't say themselves, such as who speaks."""

    def reading(self, record: Mapping[str, Any]) -> str:
        """Says what is read into a record, for a notice; "" where it says all of it.

        Args:
            record: One of the file's, as `sample` is given it.
        """


@runtime_checkable
class TakesNames(Protocol):
    """A format whose records may have numbers that stand for words, such as labels."""

    def with_names(self, names: Mapping[str, Sequence[str]]) -> RecordFormat:
        """Returns the format with the words that a file says its numbers stand for; what the recipe says goes before.

        Args:
            names: The words from 0 on, by the column; see `NamesNumbers`.
        """
