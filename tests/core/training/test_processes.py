"""What processes that train together share out and exchange."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
from graftkit.errors import TrainingError
from graftkit.training.processes import ALONE, shares
from graftkit.training.together import check_same, receive_state, send_state, sum_gradients
from hypothesis import given
from hypothesis import strategies as st
from torch import nn


class Pair:
    """One of two processes: what the other does is given beforehand, and what this one sends is kept."""

    def __init__(self, rank: int, others: Sequence[torch.Tensor] = (), digest: str = "") -> None:
        self.rank, self.count = rank, 2
        self.sent: list[torch.Tensor] = []
        self.commands: list[str] = []
        self._others, self._digest = list(others), digest

    def sum_(self, tensor: torch.Tensor) -> None:
        self.sent.append(tensor.clone())
        tensor += self._others.pop(0)

    def broadcast_(self, tensor: torch.Tensor) -> None:
        if self.rank:
            tensor.copy_(self._others.pop(0))
        else:
            self.sent.append(tensor.clone())

    def gather(self, value: Any) -> list[Any]:
        return [value, self._digest or value]

    def announce(self, command: Mapping[str, Any]) -> None:
        self.commands.append(json.dumps(command))

    def next_command(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.commands.pop(0))
        return found


@given(st.lists(st.integers(1, 5000), max_size=40), st.integers(1, 9))
def test_everything_is_shared_out_once_and_evenly(costs: list[int], count: int) -> None:
    found = shares(costs, count)
    assert sorted(number for own in found for number in own) == list(range(len(costs)))
    assert all(own == sorted(own) for own in found)
    sums = [sum(costs[number] for number in own) for own in found]
    assert max(sums) - min(sums) <= max(costs, default=0)


def test_gradients_are_added_in_one_sum_of_what_the_formula_says() -> None:
    used, idle, elsewhere = (nn.Parameter(torch.zeros(shape)) for shape in ((2, 3), (4,), (2,)))
    used.grad = torch.full((2, 3), 2.0)
    other = torch.tensor([1, 0, 1, *[1.0] * 6, *[0.0] * 4, *[5.0] * 2])
    processes = Pair(0, [other])
    sum_gradients([used, idle, elsewhere], processes)
    assert torch.equal(used.grad, torch.full((2, 3), 3.0))
    assert idle.grad is None  # an optimizer keeps no moments of what never had one
    assert elsewhere.grad is not None and torch.equal(elsewhere.grad, torch.full((2,), 5.0))
    (sent,) = processes.sent
    assert sent.nbytes == 4 * (6 + 4 + 2 + 3)  # docs/scale.md: a number for each that is trained, and one a tensor


def test_one_process_sends_nothing() -> None:
    parameter = nn.Parameter(torch.zeros(2))
    sum_gradients([parameter], ALONE)
    assert parameter.grad is None


def test_a_state_arrives_as_it_was_sent() -> None:
    state = {"a": torch.randn(2, 3), "step": torch.tensor(4.0), "codes": torch.arange(5, dtype=torch.uint8)}
    first = Pair(0)
    send_state(first, 7, state)
    second = Pair(1, first.sent)
    second.commands = first.commands
    step, found = receive_state(second, second.next_command())
    assert step == 7 and found.keys() == state.keys()
    assert all(torch.equal(found[name], state[name]) and found[name].dtype == state[name].dtype for name in state)


def test_states_that_came_apart_are_refused() -> None:
    check_same(Pair(0), {"a": torch.zeros(2), "step": torch.tensor(1.0)})
    with pytest.raises(TrainingError, match="rank 1 differs from rank 0"):
        check_same(Pair(0, digest="another"), {"a": torch.zeros(2)})
