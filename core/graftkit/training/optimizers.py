"""A run's optimizers: the recipe's for the adapter, and an Adam of their own for new embedding rows."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from graftkit.errors import TrainingError
from graftkit.recipe.schema.training import TrainingSection
from graftkit.training.muon import HIDDEN
from graftkit.training.optimizer_kinds import kept_of, keys_of, make_optimizer, restore, tells_hidden
from graftkit.training.row_optimizer import RowAdam
from graftkit.training.schedule import rate_of_step

__all__ = ["Optimizers", "RowTraining"]

_AS_PARAMETERS = frozenset(
    {"parameter", "exp_avg", "exp_avg_sq", "exp_avg_sq_row", "exp_avg_sq_col", "momentum_buffer"}
)
"""What of a state has the parameter's type, or is float32."""

_RATE_SCALE = "rate_scale"
"""The key of a group's factor on the learning rate."""


@dataclass(frozen=True, slots=True)
class RowTraining:
    """How new rows of the embeddings are trained beside the adapter.

    Attributes:
        names: Which parameters are such rows.
        learning_rate: Their highest rate.
        first: Steps at the beginning that train them alone.
    """

    names: frozenset[str] = frozenset()
    learning_rate: float = 3e-4
    first: int = 0


class Optimizers:
    """Takes the optimizer's part of a step, and keeps what the next one depends on.

    Args:
        parameters: All that is trained, by name.
        options: The recipe's training section.
        rows: Which of them are new rows, and how those are trained.
        rate_scales: Factors on the adapter's learning rate by the parameter's name; 1 where none is given.
        hidden: Which parameters are matrices of hidden layers, which some optimizers train otherwise.
    """

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        options: TrainingSection,
        rows: RowTraining,
        rate_scales: Mapping[str, float] | None = None,
        hidden: Collection[str] = (),
    ) -> None:
        self._parameters = dict(parameters)
        self._options = options
        self._rows = rows
        adapter = {name: p for name, p in parameters.items() if name not in rows.names}
        new_rows = [p for name, p in parameters.items() if name in rows.names]
        self._hidden = frozenset(hidden if tells_hidden(options) else ())
        groups = _grouped(adapter, rate_scales or {}, self._hidden)
        self._of_adapter = make_optimizer(groups, options)
        self._of_rows = RowAdam(new_rows, lr=rows.learning_rate) if new_rows else None

    def begin(self, step: int, steps: int) -> float:
        """Makes ready for a step: which parameters get a gradient, and the rates.

        In a step that is the new rows' alone the adapter gets no gradient, so its optimizer passes it over; its
        schedule starts where it joins.

        Returns:
            The adapter's rate, or the rows' where they are alone.
        """
        first = self._rows.first
        self.freeze_adapter(step <= first)
        rows = self._rate(step, steps, self._rows.learning_rate)
        adapter = self._rate(step - first, steps - first, self._options.learning_rate) if step > first else rows
        for optimizer, rate in ((self._of_adapter, adapter), (self._of_rows, rows)):
            for group in optimizer.param_groups if optimizer else ():
                group["lr"] = rate * group.get(_RATE_SCALE, 1.0)
        return adapter

    def freeze_adapter(self, frozen: bool) -> None:
        """Says whether the adapter gets a gradient."""
        for name, parameter in self._parameters.items():
            parameter.requires_grad_(name in self._rows.names or not frozen)

    def clip(self) -> float:
        """Clips the adapter's gradient and the rows', each by itself; returns the norm of both as they were."""
        norms = [
            float(nn.utils.clip_grad_norm_(parameters, self._options.max_grad_norm)) for parameters in self._groups()
        ]
        return math.hypot(*norms)

    def _groups(self) -> Iterator[list[nn.Parameter]]:
        for optimizer in (self._of_adapter, self._of_rows):
            if optimizer is not None:
                yield [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]

    def step(self) -> None:
        """Changes every parameter that has a gradient."""
        self._of_adapter.step()
        if self._of_rows:
            self._of_rows.step()

    def forget_gradients(self) -> None:
        """Gives the gradients' memory back."""
        for parameter in self._parameters.values():
            parameter.grad = None

    def state(self) -> dict[str, torch.Tensor]:
        """Returns every tensor that the next step depends on: parameters and moments, by name."""
        state: dict[str, torch.Tensor] = {}
        for name, parameter in self._parameters.items():
            state[f"parameter.{name}"] = parameter.detach()
            for key, moment in kept_of(self._optimizer_of(name), parameter).items():
                state[f"{key}.{name}"] = moment
        return state

    def load_state(self, step: int, state: Mapping[str, torch.Tensor]) -> None:
        """Goes back to where `state` was taken, after `step` steps.

        Raises:
            TrainingError: A tensor is missing, left over, or of another shape or type; nothing is changed then.
        """
        self.load_parameters(step, state)
        for name, parameter in self._parameters.items():
            moments = {key: state[f"{key}.{name}"] for key in self._kept(name) if f"{key}.{name}" in state}
            if moments:
                restore(self._optimizer_of(name), parameter, moments)

    @torch.no_grad()
    def load_parameters(self, step: int, state: Mapping[str, torch.Tensor]) -> None:
        """Takes the parameters alone out of a state.

        Raises:
            TrainingError: As for `load_state`.
        """
        self._check(step, state)
        for name, parameter in self._parameters.items():
            parameter.copy_(state[f"parameter.{name}"])

    def _check(self, step: int, state: Mapping[str, torch.Tensor]) -> None:
        """Compares names, shapes and types. A parameter that never got a gradient has no moments, as an idle expert."""
        expected: dict[str, torch.Size] = {}
        for name, parameter in self._parameters.items():
            expected[f"parameter.{name}"] = parameter.shape
            trained = step > 0 and (name in self._rows.names or step > self._rows.first)
            kept = self._kept(name)
            if trained and any(f"{key}.{name}" in state for key in kept):
                expected |= {f"{key}.{name}": shape for key, shape in kept.items()}
        odd = sorted(expected.keys() ^ state.keys())
        if odd:
            raise TrainingError(f"the checkpoint does not fit the model: {len(odd)} tensors differ, such as {odd[0]}")
        for name, shape in expected.items():
            found, (key, _, of) = state[name], name.partition(".")
            if found.shape != shape:
                raise TrainingError(f"the checkpoint's tensor {name} has shape {list(found.shape)}")
            if key in _AS_PARAMETERS and found.dtype not in (self._parameters[of].dtype, torch.float32):
                raise TrainingError(f"the checkpoint's tensor {name} has numbers of the type {found.dtype}")

    def _kept(self, name: str) -> dict[str, torch.Size]:
        """Returns the shapes of what the optimizer keeps of a parameter, by key."""
        parameter, number = self._parameters[name], torch.Size()
        if name in self._rows.names:
            return {"step": number, "exp_avg": parameter.shape, "exp_avg_sq": number}
        return keys_of(self._options, parameter, hidden=name in self._hidden)

    def _optimizer_of(self, name: str) -> torch.optim.Optimizer:
        if name in self._rows.names:
            assert self._of_rows is not None
            return self._of_rows
        return self._of_adapter

    def _rate(self, step: int, steps: int, peak: float) -> float:
        return rate_of_step(self._options, step, steps, peak)


def _grouped(
    parameters: Mapping[str, nn.Parameter], scales: Mapping[str, float], hidden: Collection[str]
) -> list[dict[str, Any]]:
    """Returns the optimizer's groups, in the order of the parameters.

    There is one for each factor on the learning rate, and of hidden layers another one.
    """
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in parameters.items():
        groups.setdefault((float(scales.get(name, 1.0)), name in hidden), []).append(parameter)
    return [{"params": group, _RATE_SCALE: scale, HIDDEN: inside} for (scale, inside), group in groups.items()]
