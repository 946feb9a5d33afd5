"""An objective whose results of another kind than is due name its plugin."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from functools import partial
from typing import Any

import torch

from graftkit.flow.records.named_providers import Named
from graftkit.host.guard import note_once
from graftkit.host.records import RegisteredProvider
from graftkit.host.results import LARGEST_SCORE, kind_named
from graftkit.interfaces.objective import Overall
from graftkit.interfaces.scores import Embeddings, Scores, SequenceScores, TokenScores, VectorPairs

__all__ = ["NamedObjective", "NamedOverall", "NamedSampled", "named_objective"]

_Given = Scores | SequenceScores | TokenScores | Embeddings | VectorPairs
"""What objectives are given."""

_LONGEST_NAME = 200
_NO_GRADIENT = "gave losses that have no gradient by the scores: what makes them must be differentiable"


class NamedObjective(Named):
    """An objective, of log-probabilities or of scores of a head.

    Args:
        objective: The objective, whose methods are guarded.
        registered: The provider and its plugin.
    """

    def __init__(self, objective: Any, registered: RegisteredProvider) -> None:
        super().__init__(registered)
        self._objective = objective

    def losses(self, scores: Any) -> torch.Tensor:
        """Returns the loss of each example, `[examples]`; its gradient is what the objective says by its copies."""
        own, examples = _copied(scores), _examples(scores)
        copies = _tensors(own)
        before = [tensor._version for tensor in copies]
        losses = self._objective.losses(own)
        if not isinstance(losses, torch.Tensor) or losses.shape != (examples,):
            raise self.wrong(f"gave {_shape(losses)} as losses of {examples} examples: one each is due")
        learns = any(tensor.requires_grad for tensor in _tensors(scores))
        if learns and not losses.requires_grad:
            raise self.wrong(_NO_GRADIENT)
        if not _is_plain(losses) or not losses.is_floating_point():
            raise self.wrong(f"gave losses that are {_kind(losses)}: a dense tensor of floating-point numbers is due")
        if [tensor._version for tensor in copies] != before:
            raise self.wrong("changed the scores that it was given")
        if not learns:
            return losses.detach()
        by_copies = partial(self._gradients, losses, [copy for copy in copies if copy.requires_grad])
        given = [tensor for tensor in _tensors(scores) if tensor.requires_grad]
        found: torch.Tensor = _ByCopies.apply(by_copies, losses.detach(), *given)  # type: ignore[no-untyped-call]
        return found

    def _gradients(
        self, losses: torch.Tensor, copies: Sequence[torch.Tensor], by_losses: torch.Tensor
    ) -> list[torch.Tensor]:
        """Returns the gradient by each of the copies that the objective was given."""
        try:
            found = torch.autograd.grad(losses, copies, by_losses, allow_unused=True)
        except Exception as error:
            note_once(error, f"{self._registered.plugin.label} raised it: the gradient of its losses")
            raise
        if all(gradient is None for gradient in found):
            raise self.wrong(_NO_GRADIENT)
        return [torch.zeros_like(copy) if each is None else each for copy, each in zip(copies, found, strict=True)]

    def metrics(self, scores: Any) -> Mapping[str, torch.Tensor]:
        """Returns what else is told of the examples, `[examples]` each; of scores that are no numbers it may be NaN."""
        found = self._objective.metrics(_copied(scores))
        if not isinstance(found, Mapping):
            raise self.wrong(f"gave {kind_named(found)} as metrics, not a mapping")
        values = {name: self._metric(name, values, scores) for name, values in dict(found).items()}
        too_large = {name: _too_large(each) for name, each in values.items()}
        some = [each.any() for each in too_large.values()]
        if not some or not torch.stack([each.to(some[0].device) for each in some]).any():  # one wait for the device
            return values
        if all(tensor.isfinite().all() for tensor in _tensors(scores)):
            name = next(name for name, each in too_large.items() if each.any())
            told = f"gave {values[name][too_large[name]][0].item()} as the metric '{name}'"
            raise self.wrong(f"{told}: a number up to {LARGEST_SCORE:g} is due, or NaN where an example has none")
        return {
            name: each.masked_fill(too_large[name], math.nan) if too_large[name].any() else each
            for name, each in values.items()
        }

    def _metric_name(self, name: object) -> str:
        if not isinstance(name, str) or not name.isprintable() or not 0 < len(name) <= _LONGEST_NAME:
            raise self.wrong(
                f"named a metric {name!r:.80}, which is no text of 1 to {_LONGEST_NAME} printable characters"
            )
        return name

    def _metric(self, name: object, values: object, scores: Any) -> torch.Tensor:
        self._metric_name(name)
        if not isinstance(values, torch.Tensor) or values.shape != (_examples(scores),):
            told = f"gave {_shape(values)} as the metric '{name}' of {_examples(scores)} examples"
            raise self.wrong(f"{told}: one each is due")
        if not _is_plain(values) or values.is_complex():
            raise self.wrong(f"gave the metric '{name}' as {_kind(values)}: a dense tensor of numbers is due")
        return values


class NamedOverall(NamedObjective):
    """One that tells something of all examples together, too; of others nothing is kept or gathered for that."""

    def __init__(self, objective: Any, registered: RegisteredProvider) -> None:
        super().__init__(objective, registered)
        self._columns: dict[str, tuple[int, ...]] = {}

    def kept(self, scores: _Given) -> dict[str, torch.Tensor]:
        """Returns what is kept of each example, `[examples]` or `[examples, ...]`."""
        found = self._objective.kept(_copied(scores))
        if not isinstance(found, Mapping) or not found:
            raise self.wrong(f"gave {kind_named(found)} as what is kept of examples, not a mapping with an entry")
        kept = {self._metric_name(name): self._kept(name, values, scores) for name, values in dict(found).items()}
        columns = {name: tuple(values.shape[1:]) for name, values in kept.items()}
        self._columns = self._columns or columns
        if columns != self._columns:
            told = f"keeps numbers of the shapes {columns} of each example, and {self._columns} of others"
            raise self.wrong(f"{told}: the same are due of all")
        return kept

    def _kept(self, name: str, values: object, scores: _Given) -> torch.Tensor:
        examples = _examples(scores)
        if not isinstance(values, torch.Tensor) or values.ndim < 1 or len(values) != examples:
            raise self.wrong(f"gave {_shape(values)} as '{name}' of {examples} examples: a row each is due")
        if not _is_plain(values) or values.is_complex():
            raise self.wrong(f"gave '{name}' as {_kind(values)}: a dense tensor of numbers is due")
        return values.detach().cpu()

    def overall(self, kept: Mapping[str, torch.Tensor]) -> dict[str, float]:
        """Returns what is told of all examples together, each a number or NaN."""
        found = self._objective.overall({name: values.clone() for name, values in kept.items()})
        if not isinstance(found, Mapping):
            raise self.wrong(f"gave {kind_named(found)} as figures of all examples, not a mapping")
        known = all(bool(values.isfinite().all()) for values in kept.values())
        return {self._metric_name(name): self._figure(name, value, known) for name, value in dict(found).items()}

    def _figure(self, name: str, value: object, known: bool) -> float:
        if isinstance(value, int | float) and not isinstance(value, bool):
            if not abs(value) > LARGEST_SCORE:
                return float(value)
            if not known:
                return math.nan
        raise self.wrong(f"gave {value!r:.40} as '{name}': a number up to {LARGEST_SCORE:g} is due, or NaN")


class NamedSampled(NamedObjective):
    """One that learns from sampled answers.

    Raises:
        PluginCallError: It has no `advantages`.
    """

    def __init__(self, objective: Any, registered: RegisteredProvider) -> None:
        super().__init__(objective, registered)
        if not callable(getattr(objective, "advantages", None)):
            raise self.wrong("has no method advantages, and its config is a SampledConfig")

    def advantages(self, rewards: torch.Tensor) -> torch.Tensor:
        """Returns how much better each answer is than the others, `[prompts, group_size]`, float32."""
        found = self._objective.advantages(rewards.clone())
        if not isinstance(found, torch.Tensor) or found.shape != rewards.shape:
            raise self.wrong(f"gave {_shape(found)} as advantages of {list(rewards.shape)} answers: one each is due")
        if not _is_plain(found) or not found.is_floating_point():
            raise self.wrong(
                f"gave advantages that are {_kind(found)}: a dense tensor of floating-point numbers is due"
            )
        most = torch.finfo(torch.float32).max
        if not (found.abs() <= most).all():
            raise self.wrong(f"gave advantages that are no numbers up to {most:.2g}")
        return found.detach().float()


def named_objective(objective: Any, registered: RegisteredProvider) -> NamedObjective:
    """Returns an objective whose results of another kind than is due name its plugin.

    Args:
        objective: The objective.
        registered: The provider and its plugin.

    Raises:
        PluginCallError: It has figures of all examples (`overall`), and says not what they follow from (`kept`).
    """
    if isinstance(objective, Overall):
        return NamedOverall(objective, registered)
    found = NamedObjective(objective, registered)
    if callable(getattr(objective, "overall", None)):
        raise found.wrong("has a method overall and no method kept, which says what its figures follow from")
    return found


class _ByCopies(torch.autograd.Function):
    """The losses that were computed of copies, as those of what these are copies of."""

    @staticmethod
    def forward(ctx: Any, gradients: Any, losses: torch.Tensor, *given: torch.Tensor) -> torch.Tensor:
        """Keeps what gives the gradients by the copies, and gives the losses."""
        ctx.gradients = gradients
        return losses.clone()

    @staticmethod
    def backward(ctx: Any, by_losses: torch.Tensor) -> Any:
        """Gives the gradients by the copies as those by what was given."""
        return None, None, *ctx.gradients(by_losses)


def _shape(value: object) -> str:
    return f"a tensor of the shape {list(value.shape)}" if isinstance(value, torch.Tensor) else kind_named(value)


def _is_plain(tensor: torch.Tensor) -> bool:
    return tensor.layout == torch.strided and not tensor.is_meta


def _kind(tensor: torch.Tensor) -> str:
    return f"of {tensor.dtype} and {tensor.layout} on the device {tensor.device}"


def _too_large(values: torch.Tensor) -> torch.Tensor:
    """Tells which are no score; infinity alone where the type is no float64, which not every device has."""
    return values.abs() > LARGEST_SCORE if values.dtype is torch.float64 else values.isinf()


def _copied(scores: Any) -> Any:
    """Returns scores that an objective may do with as it likes; nothing that it does changes a gradient of core's."""
    values = {each.name: getattr(scores, each.name) for each in fields(scores)}
    copies = {name: _copy(value) for name, value in values.items() if isinstance(value, torch.Tensor)}
    columns = {name: _copy(value) for name, value in values.get("by_example", {}).items()}
    return replace(scores, **copies, **({"by_example": columns} if columns else {}))


def _copy(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().clone().requires_grad_(tensor.requires_grad)


def _tensors(scores: _Given) -> list[torch.Tensor]:
    """Returns the tensors that an objective is given."""
    values = [getattr(scores, each.name) for each in fields(scores)]
    columns = () if isinstance(scores, Embeddings) else scores.by_example.values()
    return [value for value in [*values, *columns] if isinstance(value, torch.Tensor)]


def _examples(scores: _Given) -> int:
    if isinstance(scores, Embeddings):
        return len(scores.queries)
    if isinstance(scores, VectorPairs):
        return len(scores.first)
    return len(scores.values) if isinstance(scores, SequenceScores) else scores.examples
