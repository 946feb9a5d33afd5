"""An objective whose results of another kind than is due name its plugin."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import torch

from graftkit.flow.records.named_providers import Named
from graftkit.host.records import RegisteredProvider
from graftkit.host.results import kind_named
from graftkit.interfaces.objective import Scores, SequenceScores

__all__ = ["NamedObjective"]


class NamedObjective(Named):
    """An objective, of tokens or of whole sequences.

    Args:
        objective: The objective, whose methods are guarded.
        registered: The provider and its plugin.
    """

    def __init__(self, objective: Any, registered: RegisteredProvider) -> None:
        super().__init__(registered)
        self._objective = objective

    def losses(self, scores: Any) -> torch.Tensor:
        """Returns the loss of each example, `[examples]`."""
        given = _given(scores)
        before = [tensor._version for tensor in given]
        losses = self._objective.losses(scores)
        examples = _examples(scores)
        if not isinstance(losses, torch.Tensor) or losses.shape != (examples,):
            raise self.wrong(f"gave {_shape(losses)} as losses of {examples} examples: one each is due")
        if any(tensor.requires_grad for tensor in given) and not losses.requires_grad:
            raise self.wrong("gave losses that have no gradient by the scores: what makes them must be differentiable")
        if not _is_plain(losses) or not losses.is_floating_point():
            raise self.wrong(f"gave losses that are {_kind(losses)}: a dense tensor of floating-point numbers is due")
        if [tensor._version for tensor in given] != before:
            raise self.wrong("changed the scores that it was given")
        return losses

    def metrics(self, scores: Any) -> Mapping[str, torch.Tensor]:
        """Returns what else is told of the examples, `[examples]` each."""
        found = self._objective.metrics(scores)
        if not isinstance(found, Mapping):
            raise self.wrong(f"gave {kind_named(found)} as metrics, not a mapping")
        for name, values in found.items():
            if not isinstance(name, str):
                raise self.wrong(f"named a metric {name!r}, which is no text")
            if not isinstance(values, torch.Tensor) or values.shape != (_examples(scores),):
                told = f"gave {_shape(values)} as the metric '{name}' of {_examples(scores)} examples"
                raise self.wrong(f"{told}: one each is due")
            if not _is_plain(values) or values.is_complex():
                raise self.wrong(f"gave the metric '{name}' as {_kind(values)}: a dense tensor of numbers is due")
        return found


def _shape(value: object) -> str:
    return f"a tensor of the shape {list(value.shape)}" if isinstance(value, torch.Tensor) else kind_named(value)


def _is_plain(tensor: torch.Tensor) -> bool:
    return tensor.layout == torch.strided and not tensor.is_meta


def _kind(tensor: torch.Tensor) -> str:
    return f"of {tensor.dtype} and {tensor.layout} on the device {tensor.device}"


def _given(scores: Scores | SequenceScores) -> list[torch.Tensor]:
    """Returns the tensors that an objective is given."""
    values = [getattr(scores, each.name) for each in fields(scores)]
    return [value for value in [*values, *scores.by_example.values()] if isinstance(value, torch.Tensor)]


def _examples(scores: Scores | SequenceScores) -> int:
    return len(scores.values) if isinstance(scores, SequenceScores) else scores.examples
