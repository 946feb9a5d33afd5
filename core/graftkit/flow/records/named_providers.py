"""Readers and formats whose errors, and results of another kind than is due, name their plugin.

They are called for every record, too often for the guard around other providers' methods (`graftkit.host.guard`): what
they change in the process is looked at after each stage.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from copy import copy
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from graftkit.errors import Cancelled, GraftkitError, PluginCallError
from graftkit.flow.records.plain_values import SAMPLES, plain_sample, plain_value
from graftkit.host.guard import brief, is_stop
from graftkit.host.records import BUILT_IN, RegisteredProvider
from graftkit.host.results import kind_named
from graftkit.interfaces.reader import NamesNumbers, Reader
from graftkit.interfaces.record_format import Column, DescribesReading, RecordFormat, TakesNames
from graftkit.interfaces.record_source import Record, RecordSource
from graftkit.interfaces.samples import (
    ANSWERED,
    MOST_SCORE,
    ROLES,
    Completion,
    Conversation,
    LabelledAnswer,
    LabelledText,
    LongText,
    Message,
    PreferencePair,
    Prompt,
    Sample,
    ScoredText,
    SimilarTexts,
    TaggedText,
    Text,
    TextPrompt,
    TextWithLabels,
    Tokens,
    ToolCall,
    join_pair,
)

__all__ = ["Named", "NamedFormat", "NamedReader"]

Result = TypeVar("Result")


class Named:
    """A provider that is named where it fails.

    Args:
        registered: The provider and its plugin.
    """

    def __init__(self, registered: RegisteredProvider) -> None:
        self._registered = registered

    @property
    def _is_built_in(self) -> bool:
        """Whether it is one of graftkit's own, whose results, millions, are held by contracts to what others' are."""
        return self._registered.plugin.distribution == BUILT_IN

    def _call(self, place: object, function: Callable[..., Result], *arguments: Any) -> Result:
        """Calls a plugin's code; graftkit's own errors, and a stop, pass as they are."""
        try:
            return function(*arguments)
        except BaseException as error:
            if is_stop(error) or (isinstance(error, GraftkitError) and not isinstance(error, Cancelled)):
                raise
            what = f"{self._registered.kind} '{self._registered.provider.name}' raised {brief(error)}"
            raise PluginCallError(f"{what}, at {place}", where=self._registered.plugin.label) from error

    def wrong(self, what: str, place: object = None) -> PluginCallError:
        """Returns the error of a result of another kind than is due.

        Args:
            what: What the provider gave.
            place: Of what.
        """
        at = f", at {place}" if place is not None else ""
        return PluginCallError(
            f"{self._registered.kind} '{self._registered.provider.name}' {what}{at}",
            where=self._registered.plugin.label,
        )


class NamedReader(Named):
    """A reader.

    Args:
        reader: The reader.
        registered: The provider and its plugin.
    """

    def __init__(self, reader: Reader, registered: RegisteredProvider) -> None:
        super().__init__(registered)
        self._reader = reader

    def accepts(self, source: RecordSource) -> bool:
        """Asks the reader."""
        return bool(self._call(source, self._reader.accepts, copy(source)))

    def records(self, source: RecordSource) -> Iterator[Record]:
        """Yields the reader's records."""
        records = self._call(source, self._reader.records, copy(source))  # what it does to its own is nobody else's
        if not isinstance(records, Iterable):
            raise self.wrong(f"gave {kind_named(records)} for the records", source)
        records = self._call(source, iter, records)
        while (record := self._call(source, next, records, _END)) is not _END:
            if not isinstance(record, Record):
                raise self.wrong(f"gave {kind_named(record)} in place of a Record", source)
            if not isinstance(record.place, str):
                raise self.wrong(f"gave a record whose place is {kind_named(record.place)}, not a text", source)
            place = str.__str__(record.place)
            yield Record(place, partial(self._load, f"{source}{place}", record.load))

    def names(self, source: RecordSource) -> Mapping[str, Sequence[str]]:
        """Asks the reader which words the numbers of columns stand for."""
        if not isinstance(self._reader, NamesNumbers):
            return {}
        found: object = self._call(source, self._reader.names, copy(source))
        words = self._call(source, _words_by_column, found)
        if words is None:
            raise self.wrong("gave something else than lists of texts, by column, for the words of numbers", source)
        return words

    def _load(self, place: str, load: Callable[[], Any]) -> Any:
        values = self._call(place, load)
        return values if self._is_built_in else self._call(place, plain_value, values)


class NamedFormat(Named):
    """A format.

    Args:
        format: The format.
        registered: The provider and its plugin.
    """

    def __init__(self, format: RecordFormat, registered: RegisteredProvider) -> None:
        super().__init__(registered)
        self._format = format
        self.unanswered = bool(getattr(format, "unanswered", False))
        self.takes_names = isinstance(format, TakesNames)
        self.describes = isinstance(format, DescribesReading)

    def columns(self, found: Mapping[str, Column]) -> Collection[str] | None:
        """Asks the format."""
        columns: Any = self._call("the columns of a file", self._format.columns, found)
        if columns is None:
            return None
        names: list[Any] = self._call("the columns of a file", list, columns) if isinstance(columns, Collection) else []
        if isinstance(columns, str) or not isinstance(columns, Collection) or not all(map(_is_text, names)):
            raise self.wrong(
                f"gave {kind_named(columns)} for the columns that it reads, not a collection of their names"
            )
        return names

    def with_names(self, names: Mapping[str, Sequence[str]]) -> RecordFormat:
        """Returns the format with the words for numbers that a file keeps, where it takes any."""
        if not isinstance(self._format, TakesNames):
            return self
        return NamedFormat(self._call("the words for numbers", self._format.with_names, names), self._registered)

    def reading(self, record: Mapping[str, Any]) -> str:
        """Asks the format what it reads into a file's records."""
        if not isinstance(self._format, DescribesReading):
            return ""
        told: object = self._call("a file's records", self._format.reading, record)
        if not isinstance(told, str):
            raise self.wrong(f"gave {kind_named(told)} for what it reads into records, not a text")
        return str.__str__(told)

    def sample(self, record: Mapping[str, Any], where: str) -> Sample:
        """Returns the format's sample of a record."""
        sample = self._call(where, self._format.sample, record, where)
        if type(sample) in SAMPLES and not self._is_built_in:
            sample = self._call(where, plain_sample, sample)
        wrong = self._call(where, _wrong_with, sample)
        if wrong:
            raise self.wrong(f"gave {wrong}", where)
        if sample.where != where:
            told = f"a sample whose 'where' is {sample.where!r:.80}, not the text that it was given"
            raise self.wrong(f"gave {told}", where)
        return sample


_END = object()


def _words_by_column(given: object) -> dict[str, list[str]] | None:
    """Returns a copy of the words for numbers, by column; None of anything else."""
    if not isinstance(given, Mapping):
        return None
    lists = {name: list(words) if isinstance(words, list | tuple) else None for name, words in given.items()}
    if not all(_is_text(name) and words is not None and all(map(_is_text, words)) for name, words in lists.items()):
        return None
    return {str.__str__(name): [str.__str__(word) for word in words or ()] for name, words in lists.items()}


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _wrong_with(sample: object) -> str:
    """Returns what a format must not give; "" where a sample is one."""
    if type(sample) not in SAMPLES:  # a class of the plugin's own may say anything of itself
        return f"{kind_named(sample)} in place of a sample"
    if not isinstance(getattr(sample, "where", None), str):
        return f"a sample whose 'where' is {kind_named(getattr(sample, 'where', None))}, not the text that it was given"
    match sample:
        case LabelledText(messages) if len(messages) != 2:
            return f"a text with a label in {len(messages)} messages, where one of each is due"
        case LabelledText(messages, _, tools, pair):
            return _wrong_messages(messages) or _wrong_tools(tools) or _wrong_pair(messages[0].content, pair)
        case Prompt(messages) if not messages or getattr(messages[-1], "role", "") not in ANSWERED:
            return "a prompt whose last message is neither a user's nor a tool's"
        case Conversation(messages, _, tools):
            return _wrong_messages(messages) or _wrong_tools(tools)
        case PreferencePair(chosen, rejected):
            return _wrong_answer(chosen) or _wrong_answer(rejected)
        case LabelledAnswer(answer, wanted):
            told = (
                "" if isinstance(wanted, bool) else f"an answer whose 'wanted' is {kind_named(wanted)}, not a boolean"
            )
            return told or _wrong_answer(answer)
        case TextPrompt(_, completion) if completion != "":
            return "a prompt without a completion whose 'completion' is not empty"
        case Completion(prompt, completion):
            return _no_text("a completion", prompt=prompt, completion=completion)
        case TextWithLabels(text, _, labels, pair):
            return _no_text("a text", text=text) or _wrong_pair(text, pair) or _wrong_labels(labels)
        case ScoredText(text, _, score, pair):
            return _no_text("a text", text=text) or _wrong_pair(text, pair) or _wrong_score(score)
        case TaggedText(text, _, places, tags):
            return _no_text("a text", text=text) or _wrong_tags(text, places, tags)
        case SimilarTexts(query, positives, negatives):
            return _no_text("texts that are found by another", query=query) or _wrong_found(positives, negatives)
        case Text(text):
            return _no_text("a text", text=text)
        case LongText(source):
            if type(source) is not RecordSource:
                return f"a long text of {kind_named(source)}, not a RecordSource"
            path = source.path
            return "" if isinstance(path, Path) else f"a long text whose path is {kind_named(path)}, not a Path"
        case Tokens(ids, weights):
            return _wrong_tokens(ids, weights)
    return ""


def _wrong_labels(labels: object) -> str:
    if not isinstance(labels, list | tuple):
        return f"a text whose 'labels' is {kind_named(labels)}, not a tuple of texts"
    strange = next((label for label in labels if not isinstance(label, str)), None)
    if strange is not None:
        return f"a text with {kind_named(strange)} in place of a label"
    return "a text with a label that it has twice" if len({*labels}) < len(labels) else ""


def _wrong_pair(text: str, pair: object) -> str:
    """Returns what is wrong with the two texts of a pair, of which `join_pair` has made a text; "" if nothing."""
    if pair is None:
        return ""
    if not isinstance(pair, tuple) or len(pair) != 2 or not all(isinstance(one, str) for one in pair):
        return f"a pair of texts that is {kind_named(pair)}, not a tuple of two texts"
    return "" if text == join_pair(*pair) else "a pair of texts beside another text than `join_pair` makes of them"


def _wrong_found(positives: object, negatives: object) -> str:
    for name, texts in (("positives", positives), ("negatives", negatives)):
        if not isinstance(texts, list | tuple) or not all(isinstance(text, str) for text in texts):
            return f"texts that are found by another, whose '{name}' is no tuple of texts"
    return "" if positives else "a text by which none is to be found: 'positives' is empty"


def _wrong_score(score: object) -> str:
    if isinstance(score, int | float) and not isinstance(score, bool) and abs(score) <= MOST_SCORE:
        return ""
    return f"a text of the score {score!r:.40}, which is no number up to {MOST_SCORE:g}"


def _wrong_tags(text: str, places: object, tags: object) -> str:
    if not isinstance(places, list | tuple) or not isinstance(tags, list | tuple):
        return f"a text with words at {kind_named(places)} and tags in {kind_named(tags)}, not in tuples"
    if len(places) != len(tags) or not places:
        return f"a text of {len(places)} words with {len(tags)} tags"
    strange = next((tag for tag in tags if not isinstance(tag, str) or not tag), None)
    if strange is not None:
        return f"a text with {strange!r:.40} in place of a tag"
    last = 0
    for place in places:
        numbers = isinstance(place, tuple) and len(place) == 2 and all(type(at) is int for at in place)
        if not numbers or not last <= place[0] < place[1] <= len(text) or text[last : place[0]].strip():
            return f"a text with a word at {place!r:.40}, where words follow each other with white space between"
        last = place[1]
    return ""


def _wrong_answer(sample: object) -> str:
    if type(sample) not in (Conversation, LabelledText, Completion):
        return f"{kind_named(sample)} in place of a conversation or a completion"
    return _wrong_with(sample)


def _no_text(what: str, **texts: object) -> str:
    """Returns which of some attributes is no text."""
    found = next(((name, value) for name, value in texts.items() if not isinstance(value, str)), None)
    return f"{what} whose '{found[0]}' is {kind_named(found[1])}, not a text" if found else ""


def _wrong_messages(messages: object) -> str:
    if not isinstance(messages, list | tuple) or not messages:
        return "a conversation without messages" if not messages else f"a conversation of {kind_named(messages)}"
    for message in messages:
        if type(message) is not Message:
            return f"a conversation with {kind_named(message)} in place of a message"
        if not isinstance(message.role, str) or message.role not in ROLES:
            return f"a message of the role {message.role!r:.80}: roles are {', '.join(ROLES)}"
        if not all(map(_is_text, (message.content, message.reasoning, message.tool_call_id, message.name))):
            texts = {name: getattr(message, name) for name in ("content", "reasoning", "tool_call_id", "name")}
            return _no_text("a message", **texts)
        if message.weight is not None and not _is_weight(message.weight):
            return f"a message of the weight {message.weight!r:.40}, which is no number from 0"
        if not isinstance(message.tool_calls, list | tuple):
            return f"a message whose 'tool_calls' is {kind_named(message.tool_calls)}, not a tuple of calls"
        strange = next((call for call in message.tool_calls if type(call) is not ToolCall), None)
        if strange is not None:
            return f"a message with {kind_named(strange)} in place of a call"
        told = next(filter(None, (_no_text("a call", name=call.name, id=call.id) for call in message.tool_calls)), "")
        if told:
            return told
    return ""


def _wrong_tools(tools: object) -> str:
    if not isinstance(tools, list | tuple):
        return f"a conversation whose 'tools' is {kind_named(tools)}, not a tuple of descriptions"
    strange = next((tool for tool in tools if not isinstance(tool, Mapping)), None)
    return "" if strange is None else f"a conversation with {kind_named(strange)} in place of a tool's description"


_LARGEST_WEIGHT = 1e30
"""The largest weight of a token in the loss: sums of such numbers have room in float32."""


def _is_weight(value: object) -> bool:
    return (
        isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= _LARGEST_WEIGHT
    )  # which no NaN is


def _wrong_tokens(ids: object, weights: object) -> str:
    if not isinstance(ids, list | tuple) or not isinstance(weights, list | tuple):
        return f"tokens of {kind_named(ids)} with {kind_named(weights)}, not of two tuples"
    if len(ids) != len(weights):
        return f"{len(ids)} tokens with {len(weights)} weights"
    if not ids:
        return "tokens without one"
    strange: Any = next((id for id in ids if isinstance(id, bool) or not isinstance(id, int)), None)
    if strange is not None:
        return f"tokens with {kind_named(strange)} in place of an id"
    strange = next((weight for weight in weights if not _is_weight(weight)), None)
    return "" if strange is None else f"a token of the weight {strange!r:.40}, which is no number from 0"
