"""What the built-in metrics say of answers."""

from __future__ import annotations

from typing import Any

import pytest
from graftkit import Answered, Completion, PluginHost
from graftkit.errors import DataError, RecipeError
from graftkit.testing.contracts.base import choose

HOST = PluginHost()


def score(name: str, answer: str, expected: str, **options: Any) -> float:
    choice = choose(HOST, "metric", name, options)
    metric = HOST.registry.create(choice.registered, choice.config)
    return float(metric.score(Answered(answer, expected, "p", Completion("p", expected, "r.jsonl:7"))))


@pytest.mark.parametrize(
    ("name", "options", "answer", "expected", "worth"),
    [
        ("exact-match", {}, " yes\n", "yes", 1),
        ("exact-match", {}, "Yes", "yes", 0),
        ("exact-match", {"ignore_case": True}, "STRASSE", "straße", 1),
        ("contains", {}, "I say yes.", "yes", 1),
        ("contains", {}, "I say Yes.", "yes", 0),
        ("contains", {"text": "I"}, "I say no.", "yes", 1),
        ("regex", {"pattern": r"\d+"}, "it is 42", "", 1),
        ("regex", {"pattern": r"\d+", "match": "whole"}, "it is 42", "", 0),
        ("regex", {"pattern": r"\d+", "match": "whole"}, " 42\n", "", 1),
        ("regex", {"pattern": r"#### (\d+)", "match": "same"}, "so it is\n#### 42", "2 * 21 = 42 #### 42", 1),
        ("regex", {"pattern": r"#### (\d+)", "match": "same"}, "#### 41", "#### 42", 0),
        ("regex", {"pattern": r"#### (\d+)", "match": "same"}, "42", "#### 42", 0),
        ("json-valid", {}, '{"a": [1, 2.5e3, null, true]} ', "", 1),
        ("json-valid", {}, '{"a": NaN}', "", 0),
        ("json-valid", {}, '{"a": 1, "a": 1}', "", 0),
        ("json-valid", {}, '{"a": 1} and so on', "", 0),
        ("json-valid", {}, "[" * 100_000, "", 0),
        ("json-equal", {}, '{"b":[1.0], "a": "\\u0041"}', '{"a": "A", "b": [1]}', 1),
        ("json-equal", {}, '{"a": true}', '{"a": 1}', 0),
        ("json-equal", {}, '{"a": 1, "b": 2}', '{"a": 1}', 0),
        ("json-equal", {}, "[1, 2]", "[2, 1]", 0),
        ("json-equal", {}, "none", "[1]", 0),
    ],
)
def test_an_answer_is_worth(name: str, options: dict[str, Any], answer: str, expected: str, worth: int) -> None:
    assert score(name, answer, expected, **options) == worth


def test_an_expected_answer_that_can_not_be_compared_is_named() -> None:
    with pytest.raises(DataError, match="json-equal compares JSON") as caught:
        score("json-equal", "{}", "plain words")
    assert caught.value.where == "r.jsonl:7"
    with pytest.raises(DataError, match="nowhere in the expected answer"):
        score("regex", "42", "no number", pattern=r"\d+", match="same")


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("(", "no regular expression"),
        ("(a+)+$", "may take forever"),
        (".*.*.*.*#", "may take forever"),
        ("(?:a|a)" * 40, "may take forever"),
        ("(?:[a&&b]|a)*$", "Possible set intersection"),
        (r"(?:[a[b]|\[)*$", "may take forever"),
        ("(?:(?s:.)|\n)*$", "may take forever"),
        (r"(a)\1", "a '\\\\1'"),
        ("", "pattern"),
    ],
)
def test_a_pattern_that_can_not_be_used_is_refused(pattern: str, said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        score("regex", "a", "a", pattern=pattern)


def test_a_pattern_is_judged_as_it_is_used() -> None:
    """Letters of either case may be two ways to read one text, and so may all of the text."""
    assert score("regex", "ab", "", pattern="(?:a|A)*b") == 1
    with pytest.raises(RecipeError, match="may take forever"):
        score("regex", "ab", "", pattern="(?:a|A)*b", ignore_case=True)
    assert score("regex", "aa", "", pattern="a*a*a*") == 1
    with pytest.raises(RecipeError, match="may take forever"):
        score("regex", "aa", "", pattern="a*a*a*", match="whole")


@pytest.mark.parametrize(
    "pattern",
    [
        r"(?s)<a>.*?</a>",
        r"(?mi)^yes\b",
        r"(?P<n>\d+)\s*(?:euros?|EUR)",
        r"(?<=\$)\d+(?:\.\d+)?",
        r"\\boxed\{(.*)\}",
        r"(\d+)\D*$",
        r"^(?=.*[A-Z])(?=.*\d).+$",
        r"[\w.+-]+@[\w-]+\.[\w.-]+",
        r"(?x) the \s answer \s is \s ([A-E])  # and nothing else",
        r"[^\[\]&|-]+",
    ],
)
def test_patterns_that_people_write_are_taken(pattern: str) -> None:
    assert score("regex", "no such thing", "", pattern=pattern) in (0, 1)
