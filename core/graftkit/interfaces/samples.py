"""What a format makes of a record: text of which the author of every part is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, ClassVar

from graftkit.interfaces.record_source import RecordSource

__all__ = [
    "ANSWERED",
    "LONG_TEXT",
    "MOST_CALLS",
    "MOST_MESSAGES",
    "MOST_SCORE",
    "ROLES",
    "Completion",
    "Conversation",
    "LabelledAnswer",
    "LabelledText",
    "LongText",
    "Message",
    "Pair",
    "PreferencePair",
    "Prompt",
    "Sample",
    "ScoredText",
    "SimilarTexts",
    "TaggedText",
    "Text",
    "TextPrompt",
    "TextWithLabels",
    "Tokens",
    "ToolCall",
    "Unanswered",
    "join_pair",
    "tagged_words",
]

ROLES = ("system", "user", "assistant", "tool")
"""Who may say something in a conversation, as chat templates call them."""

ANSWERED = ("user", "tool")
"""Whose messages the assistant answers."""

LONG_TEXT = 4 << 20
"""Size in bytes from which on a text is not held in memory: a reader gives its source instead."""

MOST_MESSAGES = 100_000
"""The most messages of a record: as tokens more than any model reads, and each takes tens of microseconds."""

MOST_SCORE = 1e18
"""The largest number that a text has: the square of a larger one is infinite in float32."""

MOST_CALLS = 50_000
"""The most tool calls of a record."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A function that the assistant asks for.

    Attributes:
        name: The function's name.
        arguments: Its arguments, a JSON object, or that object's text.
        id: By which the result names the call; "" without one.
    """

    name: str
    arguments: Any
    id: str = ""

    def key(self) -> Any:
        """Returns what makes this call equal to another, as JSON."""
        return [self.name, self.arguments, self.id]


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation.

    Attributes:
        role: One of `ROLES`.
        content: What is said; "" where it is said in tool calls alone.
        weight: How much each of its tokens counts in the loss; None for 1 where the assistant says it and 0 else.
        reasoning: What the assistant thinks before it says so.
        tool_calls: The functions that the assistant asks for.
        tool_call_id: The call that a tool's message answers.
        name: Who says it, or which tool answers.
    """

    role: str
    content: str
    weight: float | None = None
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str = ""
    name: str = ""

    @property
    def says_something(self) -> bool:
        """Whether there is anything in it that could be learnt."""
        return bool(self.content or self.reasoning or self.tool_calls)

    def key(self) -> Any:
        """Returns what makes this message equal to another, as JSON."""
        more = {
            "weight": self.weight,
            "reasoning": self.reasoning or None,
            "tool_calls": [call.key() for call in self.tool_calls] or None,
            "tool_call_id": self.tool_call_id or None,
            "name": self.name or None,
        }
        said = {key: value for key, value in more.items() if value is not None}
        return [self.role, self.content, *([said] if said else [])]

    @property
    def loss_weight(self) -> float:
        """How much each of its tokens counts in the loss."""
        return self.weight if self.weight is not None else float(self.role == "assistant")


@dataclass(frozen=True, slots=True)
class Conversation:
    """A conversation; by default the loss is taken over the assistant's turns.

    Attributes:
        messages: Its turns.
        where: File and line.
        tools: Descriptions of the functions that the assistant may ask for, as JSON schemas.
    """

    messages: tuple[Message, ...]
    where: str
    tools: tuple[Mapping[str, Any], ...] = ()

    def key(self) -> Any:
        """Returns what makes this sample equal to another, as JSON."""
        turns = [message.key() for message in self.messages]
        return {"messages": turns, "tools": list(self.tools)} if self.tools else turns


@dataclass(frozen=True, slots=True)
class Prompt(Conversation):
    """A conversation that ends before an answer, which the model is to give: the last message is a user's or a tool's.

    There is nothing in it to learn for whoever learns expected answers.
    """

    def key(self) -> Any:
        """Returns what makes this sample equal to another, as JSON."""
        return {"prompt": Conversation.key(self)}


Pair = tuple[str, str]
"""Two texts of which something is learnt together, such as whether the second follows from the first."""


def join_pair(first: str, second: str) -> str:
    r"""Returns the text that a pair is for whoever learns from one text: both, with a blank line between.

    Example:
        >>> join_pair("It rains.", "It is wet.")
        'It rains.\n\nIt is wet.'
    """
    return f"{first}\n\n{second}"


@dataclass(frozen=True, slots=True)
class LabelledText(Conversation):
    """A text, or a pair of texts, that the user gives, and the label that the assistant answers.

    Whoever learns answers learns the label as one; a classifier learns which of its labels it is.

    Attributes:
        pair: The two texts of a pair, of which the user's message is what `join_pair` makes; None of a text alone.
    """

    pair: Pair | None = None

    def key(self) -> Any:
        """Returns what makes this sample equal to another, as JSON."""
        turns = Conversation.key(self)
        return turns if self.pair is None else {"pair": list(self.pair), "label": turns}

    @property
    def text(self) -> str:
        """The text; of a pair both."""
        return self.messages[0].content

    @property
    def label(self) -> str:
        """Its label."""
        return self.messages[-1].content


@dataclass(frozen=True, slots=True)
class Completion:
    """A prompt and its completion; the loss is taken over the completion."""

    prompt: str
    completion: str
    where: str

    def key(self) -> Any:
        """Returns what makes this sample equal to another, as JSON."""
        return [self.prompt, self.completion]


@dataclass(frozen=True, slots=True)
class TextPrompt(Completion):
    """A prompt without a completion, which the model is to give; the completion is empty."""


Unanswered = Prompt | TextPrompt
"""What has no expected answer."""


@dataclass(frozen=True, slots=True)
class Text:
    """Plain text; the loss is taken over all of it."""

    text: str
    where: str

    def key(self) -> Any:
        """Returns what makes this sample equal to another, as JSON."""
        return self.text


@dataclass(frozen=True, slots=True)
class TextWithLabels(Text):
    """A text and those of a few labels that it has: any number of them, or none.

    Whoever learns texts learns the text alone.

    Attributes:
        labels: The labels, each once.
        pair: The two texts of a pair, of which the text is what `join_pair` makes; None of a text alone.
    """

    labels: tuple[str, ...]
    pair: Pair | None = None

    def key(self) -> Any:
        """Returns what makes this sample equal to another, as JSON: the order of the labels says nothing."""
        return {"text": list(self.pair) if self.pair else self.text, "labels": sorted(self.labels)}


@dataclass(frozen=True, slots=True)
class ScoredText(Text):
    """A text and a number. Whoever learns texts learns the text alone.

    Attributes:
        score: The number, up to `MOST_SCORE` in size.
        pair: The two texts of a pair, of which the text is what `join_pair` makes; None of a text alone.
    """

    score: float
    pair: Pair | None = None

    def key(self) -> Any:
        """Returns what makes this sample equal to another, as JSON."""
        return {"text": list(self.pair) if self.pair else self.text, "score": self.score}


@dataclass(frozen=True, slots=True)
class TaggedText(Text):
    """A text whose words have a tag each. Whoever learns texts learns the text alone.

    Attributes:
        places: Where each word begins and ends, in characters of the text, one after the other; none is empty, and
            what stands between two is white space or nothing.
        tags: The tag of each word.
    """

    pair: ClassVar[None] = None

    places: tuple[tuple[int, int], ...]
    tags: tuple[str, ...]

    @property
    def words(self) -> tuple[str, ...]:
        """The words."""
        return tuple(self.text[start:end] for start, end in self.places)

    def key(self) -> Any:
        """Returns what makes this sample equal to another, as JSON."""
        return {"text": self.text, "places": [list(place) for place in self.places], "tags": list(self.tags)}


def tagged_words(words: Sequence[str], tags: Sequence[str], where: str) -> TaggedText:
    """Returns a text of words with a space between each two.

    Args:
        words: The words, none of them empty.
        tags: The tag of each.
        where: File and line.

    Example:
        >>> tagged_words(["Ada", "lives"], ["B-PER", "O"], "a:1").places
        ((0, 3), (4, 9))
    """
    ends = [end + number for number, end in enumerate(accumulate(map(len, words)))]
    places = tuple((end - len(word), end) for word, end in zip(words, ends, strict=True))
    return TaggedText(" ".join(words), where, places, tuple(tags))


@dataclass(frozen=True, slots=True)
class LongText:
    """The text of a large file, read in parts; the loss is taken over all of it."""

    source: RecordSource
    where: str

    @property
    def text(self) -> str:
        """The whole text."""
        return self.source.read_text() or ""

    def key(self) -> Any:
        """Returns what makes this sample equal to another, as JSON."""
        return self.text


@dataclass(frozen=True, slots=True)
class Tokens:
    """Token ids of the very tokenizer that is trained with.

    Attributes:
        ids: The ids, `[tokens]`.
        weights: What predicting each weighs in the loss, `[tokens]`; 0 where it is not learnt.
        where: File and line.
    """

    ids: tuple[int, ...]
    weights: tuple[float, ...]
    where: str

    def key(self) -> Any:
        """Returns what makes this sample equal to another, as JSON."""
        return {"ids": self.ids, "weights": self.weights}


@dataclass(frozen=True, slots=True)
class PreferencePair:
    """Two answers to the same prompt, of which one is preferred.

    Attributes:
        chosen: The prompt and the preferred answer.
        rejected: The prompt and the other one.
        where: File and line.
    """

    chosen: Conversation | Completion
    rejected: Conversation | Completion
    where: str

    def key(self) -> Any:
        """Returns what makes this sample equal to another, as JSON."""
        return {"chosen": self.chosen.key(), "rejected": self.rejected.key()}


@dataclass(frozen=True, slots=True)
class LabelledAnswer:
    """A prompt and an answer, which is wanted or not.

    Attributes:
        answer: The prompt and the answer.
        wanted: Whether it is wanted.
        where: File and line.
    """

    answer: Conversation | Completion
    wanted: bool
    where: str

    def key(self) -> Any:
        """Returns what makes this sample equal to another, as JSON."""
        return {"answer": self.answer.key(), "wanted": self.wanted}


@dataclass(frozen=True, slots=True)
class SimilarTexts:
    """A text and others that are to be found by it, such as a question and the passages that answer it.

    Attributes:
        query: The text.
        positives: What is to be found by it, one at least.
        negatives: What is not, though it may look so.
        where: File and line.
    """

    query: str
    positives: tuple[str, ...]
    negatives: tuple[str, ...]
    where: str

    def key(self) -> Any:
        """Returns what makes this sample equal to another, as JSON."""
        return {"query": self.query, "positives": list(self.positives), "negatives": list(self.negatives)}


Sample = (
    Conversation
    | Prompt
    | LabelledText
    | Completion
    | TextPrompt
    | Text
    | TextWithLabels
    | ScoredText
    | TaggedText
    | LongText
    | Tokens
    | PreferencePair
    | LabelledAnswer
    | SimilarTexts
)
"""What a format makes of a record: of one of these classes, and of none that derives from them."""
