"""Every error that graftkit raises on purpose.

GraftkitError                what was wrong, where, and what to do
|-- RequestError             the request was wrong; nothing ran            (exit 2)
|   |-- RecipeError          the recipe: a key, a value, a combination
|   |-- DataError            the records: missing, empty, malformed, not UTF-8
|   |   |-- NothingToLearn   a record that is well-formed, and has no answer
|   |   |-- UnknownFormatError  records that no format fits as they are
|   |   `-- TemplateLimitError  a chat template that does far more work than its conversation asks for
|   |-- ContextLengthError   a prompt that leaves no room in the model's context
|   |-- ModelError           the base model's files, or its tokenizer
|   |   `-- LogitsError      logits that are no finite numbers, of which no token can be chosen
|   |-- TargetError          an adapter's target that matches no layer
|   |-- ProviderError        a name that no plugin offers, or several do
|   |-- PluginError          a plugin that the request needs is broken
|   `-- FolderError          the output folder: not writable, too small a disk, another run in it
|       `-- FolderInUseError a folder in which somebody is at work
|-- RunError                 the run failed                                (exit 1)
|   |-- StorageError         a write that the system refused
|   |-- TrainingError        a state that doesn't fit the model
|   |   `-- LossError        a step whose loss has gone wrong, and which was not taken
|   |-- ExportError          an export that failed or that did not verify
|   |   `-- ProofStoppedError  a proof that was stopped before it said anything of the export
|   |-- ProcessError         one of several processes that train together failed, or is gone
|   |-- HookError            a plugin's lifecycle hook raised
|   `-- PluginCallError      a plugin's code tried to end the program, or gave something else than was due
`-- Cancelled                somebody asked the run to stop                (exit 130)
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

from graftkit.redact import without_secrets

__all__ = [
    "Cancelled",
    "ContextLengthError",
    "DataError",
    "ExportError",
    "FolderError",
    "FolderInUseError",
    "GraftkitError",
    "HookError",
    "LogitsError",
    "LossError",
    "ModelError",
    "NothingToLearn",
    "PluginCallError",
    "PluginError",
    "ProcessError",
    "ProofStoppedError",
    "ProviderError",
    "RecipeError",
    "RequestError",
    "RunError",
    "StorageError",
    "TargetError",
    "TemplateLimitError",
    "TrainingError",
    "UnknownFormatError",
    "named",
    "text_of",
]


_LONGEST_WORD, _LONGEST_TEXT, _MOST_LINES = 200, 1500, 20
_WORD = re.compile(rf"\S{{{_LONGEST_WORD},}}")


def _fit(text: str) -> str:
    """Returns a text that fits on a screen: long words and long texts lose their middle."""
    if len(text) > _LONGEST_TEXT:
        lost = len(text) - _LONGEST_TEXT
        text = f"{text[: _LONGEST_TEXT - 300]} ... ({lost:,} characters left out) ... {text[-300:]}"
    lines = _WORD.sub(lambda word: f"{word[0][:120]}...{word[0][-40:]}", text).split("\n")
    if len(lines) > _MOST_LINES:
        lines = [*lines[: _MOST_LINES - 3], f"... ({len(lines) - _MOST_LINES + 1:,} lines left out) ...", *lines[-2:]]
    return "\n".join(lines)


class GraftkitError(Exception):
    """An error with a place and a remedy: without secrets (`graftkit.redact`), none longer than a screen.

    Args:
        message: What was wrong, one sentence.
        where: The file and line, the recipe's key or the plugin, as a user would name it.
        hint: What to do about it.

    Attributes:
        code: What a program tells errors apart by: the class's name in lower case, as "recipe", "loss" or
            "nothing-to-learn". It stays when a message is reworded.
        exit_code: What the command ends with.
    """

    exit_code = 1
    code: ClassVar[str] = "graftkit"
    message: str = "an error without a message"  # of a plugin's own class, whose `__init__` does not call this one's
    where: str = ""
    hint: str = ""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        words = re.findall(r"[A-Z][a-z0-9]*", cls.__name__.removesuffix("Error") or cls.__name__)
        cls.code = "-".join(words).lower()

    def __init__(self, message: str, *, where: str = "", hint: str = "") -> None:
        self.message, self.hint = _fit(without_secrets(message)), _fit(without_secrets(hint))
        self.where = without_secrets(where)
        super().__init__(self.message)

    def to_json(self) -> dict[str, Any]:
        """Returns it as JSON: `code`, `message`, `where`, `hint`, and what else was noted of it as `notes`."""
        facts = {"code": self.code, "message": self.message, "where": self.where, "hint": self.hint}
        return {**facts, "notes": [without_secrets(str(note)) for note in getattr(self, "__notes__", ())]}

    def __str__(self) -> str:
        where = self.where.replace("\n", "\\n")  # a file may be called anything, two lines of an error for one
        where = where if len(where) <= _LONGEST_TEXT else _fit(where)
        message, hint = (text.replace("\n", "\n  ") for text in (self.message, self.hint))  # data begins no line
        head = f"{where}: {message}" if where else message
        return f"{head}\n{hint}" if hint else head


class RequestError(GraftkitError):
    """The request was wrong; nothing ran."""

    exit_code = 2


class RecipeError(RequestError):
    """The recipe holds a key or a value that means nothing, or a combination that can't be."""


class DataError(RequestError):
    """The training or holdout rows can't be used as they are."""


class NothingToLearn(DataError):
    """A record is of its format, but nothing in it is learnt, such as an empty answer. A recipe may leave those out."""


class UnknownFormatError(DataError):
    """No format fits the records as they are.

    Attributes:
        suggested: What a recipe's `data.train` may say of them beside their path, guessed from the names of their
            columns: `{"format": NAME, "columns": {THE_FORMATS: THEIRS}}`. None where nothing can be guessed.
    """

    suggested: Mapping[str, Any] | None = None


class TemplateLimitError(DataError):
    """A chat template does far more work, or makes larger values, than laying out a conversation takes."""


class ContextLengthError(RequestError):
    """A prompt leaves no room for an answer in the model's context."""


class ModelError(RequestError):
    """The base model's files, or its tokenizer, can't be used as they are."""


class LogitsError(ModelError):
    """A model's logits are no finite numbers: its weights, or those of the adapter, are damaged or far too large."""


class TargetError(RequestError):
    """An adapter's target matches no layer of the base model."""


class ProviderError(RequestError):
    """A name that no plugin offers, or that several do."""


class PluginError(RequestError):
    """A plugin that the request needs is broken, disabled or lacks a requirement."""


class FolderError(RequestError):
    """The output folder holds another run, can't be written, or lies on too small a disk."""


class FolderInUseError(FolderError):
    """A run or an export is going on in the folder."""


class RunError(GraftkitError):
    """The run failed."""


class StorageError(RunError):
    """The system refused a write."""


class TrainingError(RunError):
    """Training can't go on: the loss is no number, or a state doesn't fit the model."""


class LossError(TrainingError):
    """A step's loss has gone wrong, and the step was not taken.

    Attributes:
        step: The step's number.
        good: The last step that nothing speaks against.
        examples: The numbers of its examples; those whose loss is no number by itself, where some are not.
    """

    step = 0
    good = 0
    examples: Sequence[int] = ()


class ExportError(RunError):
    """An export failed, or did not compute what was trained."""


class ProofStoppedError(ExportError):
    """The proof of an export was killed, or took too long or too much memory: nothing is known of what it computes."""


class ProcessError(RunError):
    """One of several processes that train together failed, is gone, or was started otherwise than the others."""


class HookError(RunError):
    """A plugin's lifecycle hook raised."""


class PluginCallError(RunError):
    """A plugin's provider raised what ends a program, such as `SystemExit`, or gave something else than was due."""


class Cancelled(GraftkitError):
    """Somebody asked the run to stop."""

    exit_code = 130


@contextmanager
def named(where: str) -> Iterator[None]:
    """Gives a place to the errors that come up without one, for whoever knows the file that was read.

    Args:
        where: The file or folder.

    Example:
        >>> with named("model/config.json"):
        ...     raise ModelError("it has no model_type")
        Traceback (most recent call last):
        graftkit.errors.ModelError: model/config.json: it has no model_type
    """
    try:
        yield
    except GraftkitError as error:
        error.where = error.where or where
        raise


def text_of(error: BaseException) -> str:
    """Returns an error's text, whoever has made it: that of a plugin's own class may fail to be made.

    Example:
        >>> text_of(ValueError("no such layer"))
        'no such layer'
    """
    try:
        return str(error)
    except KeyboardInterrupt:
        raise
    except BaseException as second:
        return f"its text can't be made: {type(second).__name__}"
