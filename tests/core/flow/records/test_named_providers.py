"""What a plugin's reader, format or objective gives is looked at where it comes in, and an error names the plugin."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from enum import IntEnum
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from graftkit import Conversation, Message, Record, RecordSource, Text
from graftkit.corpus.dataset import Dataset
from graftkit.corpus.sample_files import scan_samples
from graftkit.errors import DataError, PluginCallError
from graftkit.flow.preparation.named_objective import NamedObjective, NamedOverall, NamedSampled, named_objective
from graftkit.flow.records.named_providers import NamedFormat, NamedReader
from graftkit.interfaces.objective import Overall
from graftkit.interfaces.samples import (
    Completion,
    LabelledAnswer,
    LabelledText,
    LongText,
    PreferencePair,
    ScoredText,
    TaggedText,
    TextWithLabels,
    Tokens,
    ToolCall,
)
from graftkit.interfaces.scores import Scores, SequenceScores
from odd_mappings import Raising


def registered(kind: str) -> Any:
    plugin = SimpleNamespace(label="plugin 'p'", distribution="p")
    return SimpleNamespace(kind=kind, provider=SimpleNamespace(name="odd"), plugin=plugin)


def reader(records: Callable[[RecordSource], Any]) -> NamedReader:
    return NamedReader(SimpleNamespace(records=records), registered("reader"))  # type: ignore[arg-type]


def objective(losses: Any, metrics: Any = None) -> NamedObjective:
    made = SimpleNamespace(losses=losses, metrics=lambda scores: {} if metrics is None else metrics)
    return NamedObjective(made, registered("objective"))


@pytest.fixture
def source(tmp_path: Path) -> RecordSource:
    (tmp_path / "a.odd").write_text("")
    return RecordSource(tmp_path / "a.odd")


@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("given", [None, {"text": "a"}])
def test_a_reader_gives_records_and_ends_where_it_ends(source: RecordSource, place: int, given: Any) -> None:
    records = [Record(":1", dict), Record(":2", dict)]
    assert len(list(reader(lambda source: records).records(source))) == 2
    records[place] = given
    with pytest.raises(PluginCallError, match="plugin 'p': reader 'odd' gave .* in place of a Record"):
        list(reader(lambda source: records).records(source))
    with pytest.raises(PluginCallError, match="gave None for the records"):
        list(reader(lambda source: None).records(source))
    with pytest.raises(PluginCallError, match="gave a record whose place is an int"):
        list(reader(lambda source: [Record(3, dict)]).records(source))  # type: ignore[arg-type]


class Own(Text):
    """A text of a plugin's own class."""


class Markup(str):
    """A text that changes what it is joined with, as markupsafe's does."""

    def __radd__(self, other: str) -> Markup:
        return Markup(f"&lt;{other}" + str(self))


class Raises(torch.autograd.Function):
    """A function whose gradient raises."""

    @staticmethod
    def forward(ctx: Any, values: torch.Tensor) -> torch.Tensor:
        return values.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("its own")


class Numbers(IntEnum):
    """Numbers of a class of their own."""

    ONE = 1


class Small(float):
    """A number that is at most any other."""

    def __le__(self, other: object) -> bool:
        return True

    def __ge__(self, other: object) -> bool:
        return True


class OwnSource(RecordSource):
    """A file of a plugin's own class."""


class OwnError(DataError):
    """An error that says nothing of itself."""

    def __init__(self) -> None: ...


class Columns(dict[str, Any]):
    """Columns that raise."""

    def items(self) -> Any:
        raise RuntimeError("its own")


def test_an_error_of_a_plugins_own_class_has_the_parts_of_others() -> None:
    error = OwnError()
    assert str(error) == error.message == "an error without a message" and (error.where, error.hint) == ("", "")


@pytest.mark.parametrize("given", ["messages", 5, [1], Raising()])
def test_a_format_names_columns(given: Any) -> None:
    format: Any = NamedFormat(SimpleNamespace(columns=lambda found: given), registered("format"))  # type: ignore[arg-type]
    with pytest.raises(
        PluginCallError, match="format 'odd' (gave .* for the columns|raised RuntimeError: its own, at the columns)"
    ):
        format.columns({})


@pytest.mark.parametrize("given", ["words", 5, {"label": "words"}, {"label": [1]}, {"label": ("a", None)}, Raising()])
def test_a_reader_gives_lists_of_words_by_column(source: RecordSource, given: Any) -> None:
    found = NamedReader(SimpleNamespace(names=lambda source: given), registered("reader"))  # type: ignore[arg-type]
    with pytest.raises(PluginCallError, match="plugin 'p': reader 'odd'"):
        found.names(source)
    assert not reader(lambda source: []).names(source), "a reader need not have any"
    found = NamedReader(SimpleNamespace(names=lambda source: {"label": ("a",)}), registered("reader"))  # type: ignore[arg-type]
    assert found.names(source) == {"label": ["a"]}


@pytest.mark.parametrize("given", [None, 5, ["who speaks"]])
def test_a_format_says_in_a_text_what_it_reads_into_records(given: Any) -> None:
    made = NamedFormat(SimpleNamespace(reading=lambda record: given), registered("format"))  # type: ignore[arg-type]
    with pytest.raises(PluginCallError, match="plugin 'p': format 'odd' gave .* not a text"):
        made.reading({})
    assert NamedFormat(SimpleNamespace(), registered("format")).reading({}) == ""  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (None, "None in place of a sample"),
        ("text", "a str in place of a sample"),
        (Conversation((), "a:1"), "a conversation without messages"),
        (Conversation((Message("wizard", "hi"),), "a:1"), "the role 'wizard'"),
        (Conversation(({"role": "user"},), "a:1"), "a dict in place of a message"),  # type: ignore[arg-type]
        (Own("a", "a:1"), "an Own in place of a sample"),
        (Text("a", None), "whose 'where' is None"),  # type: ignore[arg-type]
        (Text(b"a", "a:1"), "a text whose 'text' is a bytes"),  # type: ignore[arg-type]
        (Completion("a", 3, "a:1"), "a completion whose 'completion' is an int"),  # type: ignore[arg-type]
        (LongText("a", "a:1"), "a long text of a str"),  # type: ignore[arg-type]
        (Conversation((Message("user", None),), "a:1"), "whose 'content' is None"),  # type: ignore[arg-type]
        (Conversation((Message("user", "a", weight=float("nan")),), "a:1"), "a message of the weight nan"),
        (Conversation((Message("user", "a", weight=True),), "a:1"), "a message of the weight True"),
        (Conversation((Message("user", "a", weight=1e300),), "a:1"), r"a message of the weight 1e\+300"),
        (Conversation((Message("user", "a", tool_calls=("f",)),), "a:1"), "a str in place of a call"),  # type: ignore[arg-type]
        (Conversation((Message("user", "a"),), "a:1", tools=("f",)), "a str in place of a tool's"),  # type: ignore[arg-type]
        (Tokens((1, 2), (1.0,), "a:1"), "2 tokens with 1 weights"),
        (Tokens((1, 2.0), (1.0, 1.0), "a:1"), "a float in place of an id"),  # type: ignore[arg-type]
        (Tokens((1, 2), (1.0, -1.0), "a:1"), "a token of the weight -1.0"),
        (PreferencePair(Text("a", "a:1"), Text("b", "a:1"), "a:1"), "a Text in place of a conv"),  # type: ignore[arg-type]
        (LabelledAnswer(Completion("a", "b", "a:1"), None, "a:1"), "whose 'wanted' is None"),  # type: ignore[arg-type]
        (Tokens((), (), "a:1"), "tokens without one"),
        (Tokens((1, 2), (1.0, Small("nan")), "a:1"), "a token of the weight nan"),
        (LongText(OwnSource(Path("a")), "a:1"), "a long text of an OwnSource"),
        (LongText(RecordSource("a"), "a:1"), "a long text whose path is a str"),  # type: ignore[arg-type]
        (Text("a", "b:2"), "a sample whose 'where' is 'b:2', not the text that it was given"),
        (LabelledText((Message("user", "a"),), "a:1"), "a text with a label in 1 messages"),
        (LabelledText(None, "a:1"), "raised TypeError"),  # type: ignore[arg-type]
        (TextWithLabels("a", "a:1", "good"), "a text whose 'labels' is a str"),  # type: ignore[arg-type]
        (TextWithLabels("a", "a:1", ("good", 1)), "a text with an int in place of a label"),  # type: ignore[arg-type]
        (TextWithLabels("a", "a:1", ("good", "good")), "a text with a label that it has twice"),
        (TaggedText("a b", "a:1", ((0, 1),), ("x", "y")), "a text of 1 words with 2 tags"),
        (TaggedText("a b", "a:1", ((0, 1), (2, 4)), ("x", "y")), r"a text with a word at \(2, 4\)"),
        (TaggedText("a b c", "a:1", ((0, 1), (4, 5)), ("x", "y")), r"a text with a word at \(4, 5\)"),
        (TaggedText("a", "a:1", ((0, 1),), ("",)), "a text with '' in place of a tag"),
        (ScoredText("a", "a:1", "0.5"), "a text of the score '0.5'"),  # type: ignore[arg-type]
        (ScoredText("a", "a:1", float("nan")), r"a text of the score nan, which is no number up to 1e\+18"),
        (
            Conversation((Message("assistant", "", tool_calls=(ToolCall(None, {}),)),), "a:1"),
            "a call whose 'name' is None",
        ),  # type: ignore[arg-type]
        (Conversation((Message("user", "a"),), "a:1", tools=(Raising(),)), "raised RuntimeError: its own, at a:1"),
    ],
)
def test_a_format_makes_samples(given: Any, message: str) -> None:
    format: Any = NamedFormat(SimpleNamespace(sample=lambda *_: given), registered("format"))  # type: ignore[arg-type]
    with pytest.raises(PluginCallError, match=message):
        format.sample({}, "a:1")


def test_samples_are_copies_of_plain_types() -> None:
    """A format that goes on with the list of its last sample changes none that is waiting to be encoded."""
    buffer: list[Message] = []
    arguments: dict[str, Any] = {"a": Markup("x")}

    def sample(record: Any, where: str) -> Conversation:
        buffer[:] = [Message("assistant", Markup(record["text"]), tool_calls=[ToolCall("f", arguments)])]  # type: ignore[arg-type]
        return Conversation(buffer, where)  # type: ignore[arg-type]

    format: Any = NamedFormat(SimpleNamespace(sample=sample), registered("format"))  # type: ignore[arg-type]
    first, second = (format.sample({"text": text}, "a:1") for text in "ab")
    arguments["a"] = "y"
    assert first == Conversation((Message("assistant", "a", tool_calls=(ToolCall("f", {"a": "x"}),)),), "a:1")
    assert second.messages[0].content == "b"
    texts = [first.messages[0].content, first.messages[0].tool_calls[0].arguments["a"]]
    assert [*map(type, texts)] == [str, str]


def test_records_are_read_as_plain_types_of_the_file_that_was_asked_for(source: RecordSource) -> None:
    def records(given: RecordSource) -> Iterator[Record]:
        given.path = Path("/elsewhere")
        yield Record(Markup(":1"), lambda: Columns(text=Markup("a"), more=[Columns(b=Numbers.ONE)]))

    path = source.path
    [record] = reader(records).records(source)
    assert source.path == path
    values = record.load()
    assert values == {"text": "a", "more": [{"b": 1}]}
    assert [*map(type, (record.place, values, values["text"], values["more"][0]))] == [str, dict, str, dict]
    deep: list[Any] = []
    deep.append(deep)
    [record] = reader(lambda source: [Record(":1", lambda: {"text": deep})]).records(source)
    with pytest.raises(PluginCallError, match="raised RecursionError.*a.odd:1"):
        record.load()


def scores() -> Scores:
    logps = torch.tensor([-1.0, -2.0, -3.0], requires_grad=True)
    return Scores(logps, torch.ones(3), torch.tensor([0, 0, 1]), 1, 2)


@pytest.mark.parametrize(
    ("losses", "message"),
    [
        (lambda s: s.sums().sum(), r"shape \[\] as losses of 2 examples"),
        (lambda s: s.sums(), r"shape \[2, 1\]"),
        (lambda s: [0.0, 0.0], "gave a list as losses"),
        (lambda s: None, "gave None as losses"),
        (lambda s: s.sums()[:, 0].detach(), "no gradient"),
        (lambda s: s.sums()[:, 0] + s.weights.zero_().sum(), "changed the scores"),
        (lambda s: s.sums()[:, 0].to(torch.complex64), "of torch.complex64"),
        (lambda s: s.sums()[:, 0].to("meta"), "on the device meta"),
        (lambda s: s.sums()[:, 0].to_sparse(), "torch.sparse_coo"),
    ],
)
def test_an_objective_gives_a_loss_an_example(losses: Any, message: str) -> None:
    assert objective(lambda s: -s.sums()[:, 0]).losses(scores()).tolist() == [3.0, 3.0]
    with pytest.raises(PluginCallError, match=f"plugin 'p': objective 'odd' .*{message}"):
        objective(losses).losses(scores())


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        ({"a": 1.0}, "gave a float as the metric 'a'"),
        ({"a": torch.zeros(2, 3)}, r"shape \[2, 3\] as the metric 'a'"),
        ({1: torch.zeros(2)}, "named a metric 1"),
        ({"a\ud800": torch.zeros(2)}, "named a metric 'a.*printable"),
        ({"a" * 300: torch.zeros(2)}, "named a metric 'aaa"),
        ({"a": torch.tensor([1.0, float("inf")])}, "gave inf as the metric 'a': a number up to 1e.100 is due, or NaN"),
        ({"a": torch.tensor([-1e200, 0.0], dtype=torch.float64)}, r"gave -1e\+200 as the metric 'a'"),
        ([1], "gave a list as metrics"),
        ({"a": torch.zeros(2, device="meta")}, "on the device meta"),
        ({"a": torch.zeros(2, dtype=torch.complex64)}, "torch.complex64"),
    ],
)
def test_an_objective_gives_a_number_an_example_of_each_metric(metrics: Any, message: str) -> None:
    for given in (scores(), SequenceScores(torch.zeros(2, 1, 3))):
        assert {*objective(None, {"a": torch.zeros(2)}).metrics(given)} == {"a"}
        with pytest.raises(PluginCallError, match=message):
            objective(None, metrics).metrics(given)


@pytest.mark.parametrize(
    ("advantages", "message"),
    [
        (None, "has no method advantages"),
        (lambda rewards: rewards[0], "advantages of .2, 3. answers: one each is due"),
        (lambda rewards: rewards.long(), "floating-point numbers is due"),
        (lambda rewards: rewards / 0, "no numbers up to"),
        (lambda rewards: rewards.double() + 1e39, r"no numbers up to 3.4e\+38"),
    ],
)
def test_an_objective_of_sampled_answers_gives_each_an_advantage(advantages: Any, message: str) -> None:
    with pytest.raises(PluginCallError, match=f"plugin 'p': objective 'odd' .*{message}"):
        made = SimpleNamespace(advantages=advantages) if advantages else SimpleNamespace()
        NamedSampled(made, registered("objective")).advantages(torch.zeros(2, 3))


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"a": torch.zeros(1)}, r"gave tensor.* as 'a'"),
        ({"a": True}, "gave True as 'a'"),
        ({"a": math.inf}, "gave inf as 'a': a number up to"),
        ({1: 0.5}, "named a metric 1"),
        ([0.5], "gave a list as figures of all examples"),
    ],
)
def test_an_objective_gives_numbers_of_all_examples(told: Any, message: str) -> None:
    def asked(told: Any, value: float = 0.0) -> dict[str, float]:
        made = SimpleNamespace(kept=lambda scores: {}, overall=lambda kept: told)
        found = named_objective(made, registered("objective"))
        assert isinstance(found, NamedOverall) and isinstance(found, Overall)
        return found.overall({"score": torch.full((2,), value)})

    assert asked({"a": 0.5, "b": 1}) == {"a": 0.5, "b": 1.0}
    assert not isinstance(named_objective(SimpleNamespace(losses=None), registered("objective")), Overall)
    assert math.isnan(asked({"a": math.inf}, math.nan)["a"]), "of a model that has diverged"
    with pytest.raises(PluginCallError, match=message):
        asked(told)


@pytest.mark.parametrize(
    ("kept", "message"),
    [
        ({"a": torch.zeros(1)}, r"gave a tensor of the shape \[1\] as 'a' of 2 examples: a row each is due"),
        ({"a": [1.0, 2.0]}, "gave a list as 'a'"),
        ({"a": torch.zeros(2, dtype=torch.complex64)}, "gave 'a' as of torch.complex64"),
        ({1: torch.zeros(2)}, "named a metric 1"),
        ({}, "not a mapping with an entry"),
        (None, "gave None as what is kept of examples"),
    ],
)
def test_an_objective_keeps_a_row_of_each_example(kept: Any, message: str) -> None:
    def asked(kept: Any) -> dict[str, torch.Tensor]:
        made = SimpleNamespace(kept=lambda scores: kept, overall=lambda kept: {})
        found = named_objective(made, registered("objective"))
        assert isinstance(found, NamedOverall)
        return found.kept(SequenceScores(torch.zeros(2, 1, 1)))

    assert {name: values.tolist() for name, values in asked({"a": torch.ones(2)}).items()} == {"a": [1, 1]}
    with pytest.raises(PluginCallError, match=message):
        asked(kept)


def test_an_objective_keeps_the_same_of_all_examples() -> None:
    """Or else what is kept of several passes is no table; nothing is left out where nothing is said to be kept."""
    made = SimpleNamespace(kept=lambda scores: {"a": scores.values.flatten(1)}, overall=lambda kept: {})
    found = named_objective(made, registered("objective"))
    assert isinstance(found, NamedOverall)
    found.kept(SequenceScores(torch.zeros(2, 1, 3)))
    assert found.kept(SequenceScores(torch.zeros(4, 1, 3)))["a"].shape == (4, 3)
    with pytest.raises(PluginCallError, match=r"keeps numbers of the shapes {'a': \(2,\)} of each example, and"):
        found.kept(SequenceScores(torch.zeros(2, 1, 2)))
    with pytest.raises(PluginCallError, match="has a method overall and no method kept"):
        named_objective(SimpleNamespace(overall=lambda kept: {}), registered("objective"))


def test_metrics_of_scores_that_are_no_numbers_may_be_none() -> None:
    """What a model that has diverged is measured by is no fault of the objective's."""
    given = SequenceScores(torch.full((2, 1, 1), -torch.inf))
    found = objective(None, {"a": torch.tensor([torch.inf, 1.0]), "b": torch.tensor([1, 2])}).metrics(given)
    assert found["a"].isnan().tolist() == [True, False] and found["a"].dtype == torch.float32
    assert found["b"].tolist() == [1, 2]


@pytest.mark.parametrize(
    ("losses", "message"),
    [
        (lambda s: torch.ones(2, requires_grad=True) * 2, "gave losses that have no gradient by the scores"),
        (lambda s: Raises.apply(s.sums()[:, 0]), "its own"),
    ],
)
def test_an_objective_whose_gradient_fails_is_named(losses: Any, message: str) -> None:
    with pytest.raises((PluginCallError, RuntimeError), match=message) as caught:
        objective(losses).losses(scores()).sum().backward()
    assert "plugin 'p'" in "".join([str(caught.value), *getattr(caught.value, "__notes__", [])])


def test_what_an_objective_does_to_its_scores_changes_no_gradient() -> None:
    """It is given copies; the gradient is what it says by them, bit for bit."""

    def losses(given: Scores) -> torch.Tensor:
        found = (-given.sums()[:, 0]).exp()
        given.sequence.data.zero_()
        given.logps.data.zero_()
        object.__setattr__(given, "logps", torch.zeros(1))
        return found

    scored, alone = scores(), scores()
    (objective(losses).losses(scored).sum() / 7).backward()
    ((-alone.sums()[:, 0]).exp().sum() / 7).backward()
    assert scored.logps.grad is not None and alone.logps.grad is not None
    assert torch.equal(scored.logps.grad, alone.logps.grad)
    assert scored.sequence.tolist() == [0, 0, 1] and scored.logps.tolist() == [-1, -2, -3]


@pytest.mark.parametrize("change", ["fewer", "more", "others"])
def test_records_that_are_others_when_they_are_read_again_are_refused(source: RecordSource, change: str) -> None:
    """A reader or a format that gives something else each time trains nobody in silence; nor does a changed file."""
    texts = ["a", "b", "c"]

    def records(source: RecordSource) -> list[Record]:
        return [Record(f":{number}", lambda text=text: {"text": text}) for number, text in enumerate(texts, 1)]  # type: ignore[misc]

    format: Any = SimpleNamespace(sample=lambda values, where: Text(values["text"], where))
    dataset = Dataset(source, reader(records), "odd", format, "odd", known=frozenset({"text"}))
    samples = scan_samples([dataset])
    assert [sample.key() for sample in samples] == texts
    texts[:] = {"fewer": ["a", "b"], "more": ["a", "b", "c", "d"], "others": ["a", "b", "d"]}[change]
    message = "the record is another than" if change == "others" else "records were read, 3 when they were checked"
    with pytest.raises(DataError, match=message):
        list(samples)
