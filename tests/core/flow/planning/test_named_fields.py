"""What a plugin's objective says of the training records is looked at before anything is trained."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from graftkit.errors import PluginCallError, RecipeError
from graftkit.flow.planning.named_fields import NamedFields
from graftkit.interfaces.objective_config import AnyObjectiveConfig, LearnsFrom, ObjectiveConfig


class OddConfig(AnyObjectiveConfig):
    learns_from: ClassVar[LearnsFrom] = "labels"
    given: ClassVar[Callable[[OddConfig], Any]] = lambda config: config
    weights: ClassVar[Any] = {}
    awaits: ClassVar[Any] = False

    @property
    def label_weights(self) -> Mapping[str, float]:
        found: Mapping[str, float] = self.weights
        return found

    @property
    def awaits_records(self) -> bool:
        return bool(self.awaits)

    def for_records(self, counts: Mapping[str, float], records: float) -> Any:
        return type(self).given(self)


def fields(**facts: Any) -> NamedFields:
    config = type("Odd", (OddConfig,), facts)()
    plugin = SimpleNamespace(label="plugin 'p'", distribution="p")
    registered = SimpleNamespace(kind="objective", provider=SimpleNamespace(name="odd"), plugin=plugin)
    document = SimpleNamespace(where=lambda path: "recipe.yaml:3")
    bound: Any = SimpleNamespace(
        objective=SimpleNamespace(registered=registered), objective_config=config, document=document
    )
    return NamedFields(bound)


def raising(error: Exception) -> Callable[[Any], Any]:
    def given(config: Any) -> Any:
        raise error

    return given


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"given": lambda config: None}, "gave None for its records, not a Odd"),
        ({"given": lambda config: ObjectiveConfig()}, "gave an ObjectiveConfig for its records"),
        ({"given": raising(KeyError("a"))}, "raised KeyError: 'a', at for_records"),
        ({"awaits": True}, "still await records"),
        ({"weights": [1.0]}, "gave a list as label_weights, not a mapping"),
        ({"weights": {"a": 0}}, "weighs the label 'a' as 0: a text and a number above 0 are due"),
        ({"weights": {"a": math.nan}}, "as nan"),
        ({"weights": {"a": math.inf}}, "as inf"),
        ({"weights": {"a": 1e-50}}, "as 1e-50"),
        ({"weights": {"a": True}}, "as True"),
        ({"weights": {1: 1.0}}, "the label 1 as"),
        ({"weights": {"a": 2.0}, "learns_from": "scores"}, "gave label_weights, and learns from 'scores'"),
    ],
)
def test_what_follows_from_records_is_looked_at(facts: dict[str, Any], message: str) -> None:
    with pytest.raises(PluginCallError, match=f"plugin 'p': objective 'odd' .*{message}"):
        fields(**facts).for_records({"a": 1}, 1)


def test_what_does_not_hold_for_records_is_the_recipes_fault() -> None:
    with pytest.raises(RecipeError, match="recipe.yaml:3: too few"):
        fields(given=raising(ValueError("too few"))).for_records({"a": 1}, 1)
    for learnt in ("labels", "label_sets", "tags"):
        assert fields(weights={"a": 2}, learns_from=learnt).for_records({"a": 1}, 1).label_weights == {"a": 2}
