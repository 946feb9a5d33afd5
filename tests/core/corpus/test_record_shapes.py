"""A record that an objective does not learn from is refused, with what does."""

from __future__ import annotations

from typing import get_args

import pytest
from graftkit.corpus.record_shapes import SHAPES, check_learns_from, shape_of
from graftkit.errors import DataError
from graftkit.interfaces.objective_config import LearnsFrom
from graftkit.interfaces.samples import Sample, ScoredText, SimilarTexts, Text, tagged_words

TAGGED = tagged_words(["Ada"], ["O"], "a:1")


@pytest.mark.parametrize(
    ("sample", "learns_from", "hint"),
    [
        (TAGGED, "labelled", "From tags of words learns objective: token-classification."),
        (ScoredText("a", "a:1", 1.0), "pairs", "From numbers learns objective: regression."),
        (SimilarTexts("a", ("b",), (), "a:1"), "texts", "learns objective: embedding."),
        (Text("a", "a:1"), "tags", "Name the columns that hold the words and their tags: format: tags"),
        (Text("a", "a:1"), "labelled", "Leave out `objective`"),
    ],
)
def test_a_refusal_says_what_learns_from_such_records(sample: Sample, learns_from: LearnsFrom, hint: str) -> None:
    with pytest.raises(DataError) as caught:
        check_learns_from(sample, learns_from, "x")
    assert hint in caught.value.hint


def test_every_kind_that_an_objective_may_learn_from_has_a_row() -> None:
    assert {*SHAPES} == {*get_args(LearnsFrom)}
    assert shape_of(TAGGED).beside == "tags of its words"
