"""What an objective's fields say of training records; where that is something else than is due, its plugin is named."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from graftkit.errors import RecipeError, RequestError
from graftkit.flow.records.named_providers import Named
from graftkit.host.results import kind_named
from graftkit.interfaces.objective_config import AnyObjectiveConfig, EmbeddingConfig
from graftkit.recipe.bind import BoundRecipe
from graftkit.visible import first_of

__all__ = ["NamedFields", "check_weighed_labels", "listed_labels"]

_LEAST, _MOST = 1e-30, 1e30
"""Between these lies what a label weighs: a column of float32 holds it, and a sum of them."""


class NamedFields(Named):
    """The fields of an objective that a recipe chose.

    Args:
        bound: The recipe.
    """

    def __init__(self, bound: BoundRecipe) -> None:
        super().__init__(bound.objective.registered)
        self._config, self._where = bound.objective_config, bound.document.where(("objective",))

    def for_records(self, counts: Mapping[str, float], records: float) -> AnyObjectiveConfig:
        """Returns the fields with what follows from the training records.

        Args:
            counts: How many training records have each label, as often as an epoch sees them.
            records: How many there are, likewise.

        Raises:
            RecipeError: They do not hold for these records.
            PluginCallError: They raise something else, or give no fields of their own kind.
        """
        found: object = self._call("for_records", self._settled, counts, records)
        if isinstance(found, ValueError):
            raise RecipeError(str(found), where=self._where)
        if type(found) is not type(self._config):
            raise self.wrong(f"gave {kind_named(found)} for its records, not a {type(self._config).__name__}")
        assert isinstance(found, AnyObjectiveConfig)
        self._config = found
        if self._call("awaits_records", lambda: found.awaits_records):
            raise self.wrong("has fields that still await records (awaits_records) once for_records was given them")
        self._call("the fields that for_records gave", lambda: json.dumps(found.model_dump(mode="json")))
        self.label_weights()
        return found

    def _settled(self, counts: Mapping[str, float], records: float) -> object:
        try:
            return self._config.for_records(dict(counts), records)
        except ValueError as error:
            return error

    def check_width(self, width: int) -> None:
        """Refuses fields that do not hold for vectors of so many numbers, where it learns vectors.

        Raises:
            RecipeError: They do not.
            PluginCallError: They raise something else.
        """
        if isinstance(self._config, EmbeddingConfig):
            wrong = self._call("check_width", self._wrong_width, self._config, width)
            if wrong:
                raise RecipeError(str(wrong), where=self._where)

    def _wrong_width(self, config: EmbeddingConfig, width: int) -> ValueError | None:
        try:
            config.check_width(width)
        except ValueError as error:
            return error
        return None

    def label_weights(self) -> dict[str, float]:
        """Returns how much each label weighs, where that is said.

        Raises:
            PluginCallError: They are no numbers above 0, or the objective learns from something else than labels.
        """
        found: object = self._call("label_weights", lambda: self._config.label_weights)
        if not isinstance(found, Mapping):
            raise self.wrong(f"gave {kind_named(found)} as label_weights, not a mapping")
        for label, weight in found.items():
            number = isinstance(weight, int | float) and not isinstance(weight, bool)
            if not isinstance(label, str) or not number or not _LEAST < weight < _MOST:
                raise self.wrong(
                    f"weighs the label {label!r:.60} as {weight!r:.40}: a text and a number above 0 are due"
                )
        if found and not self._config.names_labels:
            raise self.wrong(f"gave label_weights, and learns from '{self._config.learns_from}': only labels weigh")
        return dict(found)


def check_weighed_labels(bound: BoundRecipe, labels: Sequence[str]) -> None:
    """Refuses a weight of a label that a finished model does not tell apart.

    Args:
        bound: The recipe that it is measured by.
        labels: What its scores are of.

    Raises:
        RequestError: There is one.
        PluginCallError: As for `NamedFields.label_weights`.
    """
    unknown = next((label for label in NamedFields(bound).label_weights() if label not in labels), None)
    if unknown is not None:
        raise RequestError(
            f"the objective {bound.objective.use} gives the label {unknown[:60]!r} a weight, which is none of the "
            f"model's: {listed_labels(labels)}",
            where=bound.document.where(("objective",)),
        )


def listed_labels(labels: Sequence[str]) -> str:
    """Returns the first labels as a message shows them."""
    return first_of((f"{label:.40}" for label in labels), 6)
