"""What processes that train together send one another: the bytes of each collective, before anything is sent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from graftkit.model.sharded import part_bytes
from graftkit.training.block_uses import BlockUses

__all__ = ["StepTraffic", "evaluation_bytes", "kept_bytes", "step_traffic"]

_AGREEMENT = 8
"""Bytes that a process gives where those that share weights agree on what each needs."""
_RESTS = 3
"""How often a process waits for the others in a step: for losses or scores, for gradients, and for what comes next."""


@dataclass(frozen=True, slots=True)
class StepTraffic:
    """What one process exchanges with the others in a step.

    Attributes:
        blocks: The bytes of other processes' parts of frozen blocks that it receives, by all-gathers.
        gradients: The bytes of the tensor that the gradients of all processes are added up in, by one all-reduce.
        agreements: The bytes that it receives as those that share weights agree on what each needs, by all-gathers.
    """

    blocks: int
    gradients: int
    agreements: int

    def reduced(self, count: int) -> int:
        """Returns the bytes of the all-reduce that reach a process, of so many, where it goes round in a ring."""
        return 2 * (count - 1) * self.gradients // count


def step_traffic(uses: BlockUses, passes: Sequence[int], sharers: int, *, together: bool = False) -> list[StepTraffic]:
    """Returns what each process exchanges in an optimizer step, in the order of their ranks.

    It holds for every step of a training but the first, which tries besides how logits can be made. The few hundred
    bytes of JSON that go through torchrun's store are not among it.

    Args:
        uses: The model's blocks, and what is trained.
        passes: How many passes each process takes.
        sharers: How many neighbours keep the frozen weights among them; 1 where each process has all of them.
        together: Whether the objective looks at all examples of a step together, so that passes are scored first.
    """
    count = len(passes)
    if count == 1:
        return [StepTraffic(0, 0, 0)]
    parts = [(sharers - 1) * part_bytes(size, sharers) for size in uses.sizes]
    once = together and sum(passes) == 1
    parts_of_step = [_between_rests(number, together=together, once=once) for number in passes]
    used = [[uses.put_together(kinds) for kinds in stretches] for stretches in parts_of_step]
    gradients = 4 * (sum(uses.trained) + len(uses.trained))
    found = []
    for rank in range(count):
        first = rank - rank % sharers
        longest = [max(map(len, stretch)) for stretch in zip(*used[first : first + sharers], strict=True)]
        found.append(
            StepTraffic(
                sum(parts[number] for stretch in used[rank] for number in stretch),
                gradients,
                (sharers - 1) * _AGREEMENT * (sum(longest) + _RESTS),
            )
        )
    return found


def _between_rests(passes: int, *, together: bool, once: bool) -> list[list[str]]:
    """Returns a process's passes of a step, divided where it waits for the others and lets go of its block."""
    if not together:
        return [["learn"] * passes]
    if once:
        return [["forward"] * passes, ["backward"] * passes]
    return [["forward"] * passes, ["learn"] * passes]


def evaluation_bytes(uses: BlockUses, sharers: int) -> int:
    """Returns the bytes of other processes' parts that a pass of an evaluation receives, after another one."""
    numbers = uses.put_together(["forward", "forward"])[len(uses.put_together(["forward"])) :]
    return sum((sharers - 1) * part_bytes(uses.sizes[number], sharers) for number in numbers)


def kept_bytes(uses: BlockUses, sharers: int) -> int:
    """Returns the bytes of frozen blocks that each process keeps."""
    return sum(part_bytes(size, sharers) for size in uses.sizes)
