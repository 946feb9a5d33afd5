"""What a run gives back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["Measured", "RunResult"]


@dataclass(frozen=True, slots=True)
class Measured:
    """What the holdout records said of the model.

    Attributes:
        holdout_loss: Mean negative log-likelihood of a token in the loss, in nats, or what the objective minimizes.
        bits_per_byte: The same in bits, of a byte of the text in the loss: comparable whatever the vocabulary is. None
            where the objective minimizes something else.
        scores: The mean score of the answers by each metric; empty where no answer was asked for.
        answers: How many answers were compared.
        metrics: What else the objective tells, by name.
    """

    holdout_loss: float
    bits_per_byte: float | None
    scores: Mapping[str, float] = field(default_factory=dict)
    answers: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Measured:
        """Returns what a manifest says was measured."""
        return cls(
            facts["holdout_loss"],
            facts.get("bits_per_byte"),
            facts.get("scores", {}),
            facts.get("answers", 0),
            facts.get("metrics", {}),
        )


@dataclass(frozen=True, slots=True)
class RunResult:
    """What a run leaves.

    Attributes:
        folder: The run's folder.
        manifest: What its manifest.json says.
    """

    folder: Path
    manifest: Mapping[str, Any]

    @property
    def metrics(self) -> Mapping[str, Mapping[str, float]]:
        """Holdout loss, bits per byte and the scores of answers, under "before" and "after" training.

        Where the vocabulary changed, "base" has what the base model gave with its own.
        """
        found: Mapping[str, Mapping[str, float]] = self.manifest.get("metrics", {})
        return found

    @property
    def before(self) -> Measured | None:
        """What was measured before training, or None where no record is held out."""
        return _measured(self.metrics.get("before"))

    @property
    def after(self) -> Measured | None:
        """What was measured after training."""
        return _measured(self.metrics.get("after"))

    @property
    def exports(self) -> dict[str, Path]:
        """The folder of each export."""
        return {name: Path(facts["folder"]) for name, facts in self.manifest.get("exports", {}).items()}

    def to_json(self) -> dict[str, Any]:
        """Returns the folder and the manifest, as `toolkit run --json` prints them."""
        return {"folder": str(self.folder), **self.manifest}


def _measured(facts: Mapping[str, Any] | None) -> Measured | None:
    return None if facts is None else Measured.of(facts)
