"""`data.date` is a day, however a recipe writes it."""

from __future__ import annotations

from datetime import date, datetime
from pathlib import Path
from typing import Any

import pytest
from graftkit.errors import RecipeError
from graftkit.recipe.load import load_recipe

DAY = date(2026, 1, 31)
WRITTEN = {
    "day.yaml": "model: m\ndata:\n  train: records.jsonl\n  date: {}\n",
    "day.toml": 'model = "m"\n[data]\ntrain = "records.jsonl"\ndate = {}\n',
}


@pytest.mark.parametrize(
    ("file", "value"),
    [
        ("day.yaml", "2026-01-31"),
        ("day.yaml", "'2026-01-31'"),
        ("day.toml", "2026-01-31"),
        ("day.toml", '"2026-01-31"'),
    ],
)
def test_every_way_of_writing_it_is_the_same_day(tmp_path: Path, file: str, value: str) -> None:
    (tmp_path / file).write_text(WRITTEN[file].format(value))
    assert load_recipe(tmp_path / file).recipe.data.date == DAY


@pytest.mark.parametrize("value", [DAY, "2026-01-31"])
def test_a_mapping_may_hold_either(value: Any) -> None:
    loaded = load_recipe({"model": "m", "data": {"train": "records.jsonl", "date": value}}, [])
    assert loaded.recipe.data.date == DAY
    assert load_recipe(loaded.recipe).recipe == loaded.recipe


def test_it_can_be_set_on_the_command_line() -> None:
    assert load_recipe({"model": "m", "data": {"train": "r.jsonl"}}, ["data.date=2026-01-31"]).recipe.data.date == DAY


@pytest.mark.parametrize(
    "value", ["today", "2026-02-31", "2026-1-31", "20260131", "2026-01-31T00:00", "", 2026, True, datetime(2026, 1, 31)]
)
def test_what_is_no_day_is_refused_with_an_example(value: Any) -> None:
    with pytest.raises(RecipeError, match=r"data\.date: a day, such as 2026-01-31"):
        load_recipe({"model": "m", "data": {"train": "records.jsonl", "date": value}})


def test_a_toml_time_is_refused_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "day.toml").write_text(WRITTEN["day.toml"].format("2026-01-31T10:00:00"))
    with pytest.raises(RecipeError, match=r"day\.toml:4: data\.date: a day") as caught:
        load_recipe(tmp_path / "day.toml")
    assert "2026-01-31" in str(caught.value)
