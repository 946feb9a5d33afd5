"""What each of several processes will take of memory, and what they will send one another, for each way of sharing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from graftkit.errors import RecipeError
from graftkit.flow.memory.parallel import WAYS, choose_way, sharers_of
from graftkit.report.run_manifest import MemoryForecast, StageMemory
from graftkit.training.block_uses import BlockUses
from graftkit.training.processes import shares
from graftkit.training.traffic import StepTraffic, evaluation_bytes, kept_bytes, step_traffic

__all__ = ["Devices", "WayForecast", "forecast_ways", "of_each_process", "way_of"]

_UNLABELLED = "working"
_STAYS = ("other_weights", "adapter", "gradients", "optimizer", "start", "program", "freed", "kernels")
"""Parts that are held between two passes, too, besides the frozen weights."""


@dataclass(frozen=True, slots=True)
class Devices:
    """Where processes compute, one on each device.

    Attributes:
        count: How many there are.
        nodes: On how many machines; each has as many.
        bandwidth: The bytes a second that reach a device from those of its machine.
        network: The bytes a second that reach a machine from the others.

    Raises:
        RecipeError: They can't be divided so.
    """

    count: int
    nodes: int = 1
    bandwidth: int = 25 * 10**9
    network: int = 12_500_000_000

    def __post_init__(self) -> None:
        if self.count % self.nodes:
            raise RecipeError(
                f"{self.count} devices are not as many on each of {self.nodes} machines",
                hint="--devices is of all machines together.",
            )

    @property
    def here(self) -> int:
        """How many each machine has."""
        return self.count // self.nodes

    def slowest(self, processes: int) -> int:
        """Returns the bytes a second that a ring of so many neighbours carries: it enters each machine once."""
        return self.bandwidth if processes <= self.here else min(self.bandwidth, self.network)


@dataclass(frozen=True, slots=True)
class WayForecast:
    """What a way of holding the frozen weights comes to.

    Attributes:
        way: What `training.parallel` says for it.
        sharers: How many processes keep the frozen weights among them.
        memory: What each process takes of memory.
        passes: How many passes each takes in a step of the middle size.
        tokens: The most tokens that one of them computes of that step.
        step: What each exchanges in that step.
        evaluation: The bytes that a pass of an evaluation receives.
        loading: The bytes of frozen layers that are sent to all as the model is loaded.
        trained: The bytes of trained parameters, which are sent to all as a training starts, and before an evaluation
            and the scores of a reference.
    """

    way: str
    sharers: int
    memory: MemoryForecast
    passes: Sequence[int]
    tokens: int
    step: Sequence[StepTraffic]
    evaluation: int
    loading: int
    trained: int

    @property
    def busiest(self) -> StepTraffic:
        """What the process exchanges that receives most."""
        return max(self.step, key=lambda own: own.blocks)

    def seconds(self, devices: Devices) -> float:
        """Returns how long a step's bytes are under way; nothing is computed meanwhile."""
        blocks = self.busiest.blocks / devices.slowest(self.sharers)
        return blocks + self.busiest.reduced(devices.count) / devices.slowest(devices.count)


def way_of(said: str, uses: BlockUses, room: int | None, devices: Devices) -> str:
    """Returns how processes hold the frozen weights.

    Args:
        said: What `training.parallel` says.
        uses: The model's blocks, and what is trained.
        room: The bytes of a device's memory; None where the model computes on the CPU, or that is not known.
        devices: Where they compute.
    """
    if said != "auto":
        return said
    if room is None:
        return "data"
    return choose_way(uses.frozen, sum(uses.trained), room, devices.here, devices.count)


def forecast_ways(
    memory: MemoryForecast, uses: BlockUses, steps: Sequence[Sequence[int]], devices: Devices, *, together: bool = False
) -> list[WayForecast]:
    """Returns what each way comes to that differs from the others on so many devices.

    Args:
        memory: What a process takes that is the only one.
        uses: The model's blocks, and what is trained.
        steps: The tokens of each pass of some steps.
        devices: Where the processes compute.
        together: Whether the objective looks at all examples of a step together.
    """
    step = sorted(steps, key=len)[len(steps) // 2]
    own = shares(step, devices.count)
    passes, tokens = [len(numbers) for numbers in own], max(sum(step[number] for number in numbers) for numbers in own)
    found: dict[int, WayForecast] = {}
    for way in ("data", "shard", "hybrid"):
        sharers = sharers_of(way, devices.here, devices.count)
        if sharers not in found:
            shared = sharers > 1
            found[sharers] = WayForecast(
                way,
                sharers,
                of_each_process(memory, uses, sharers, devices.count),
                passes,
                tokens,
                step_traffic(uses, passes, sharers, together=together),
                evaluation_bytes(uses, sharers),
                sum(uses.sizes) if shared else 0,
                4 * sum(uses.trained) if devices.count > 1 else 0,
            )
    return sorted(found.values(), key=lambda each: WAYS.index(each.way))


def of_each_process(memory: MemoryForecast, uses: BlockUses, sharers: int, count: int) -> MemoryForecast:
    """Returns what each of several processes takes of memory.

    Of the frozen weights a process keeps its part, and one block that is whole; as the model is loaded, the blocks that
    it reads, and one block twice. Between two passes the gradients of all processes are added up in a tensor of their
    own.

    Args:
        memory: What a process takes that is the only one.
        uses: The model's blocks, and what is trained.
        sharers: How many processes keep the frozen weights among them.
        count: How many there are.
    """
    if count == 1:
        return memory
    reduced = 4 * (sum(uses.trained) + len(uses.trained))
    stages = [_shared(stage, uses, sharers) for stage in memory.stages]
    return memory.model_copy(update={"stages": [_with_sum(stage, reduced) for stage in stages]})


def _shared(stage: StageMemory, uses: BlockUses, sharers: int) -> StageMemory:
    """Returns a stage of a process that keeps a part of the frozen weights."""
    if sharers == 1 or stage.stage == "teacher" or not uses.sizes:
        return stage
    parts, kept, block = dict(stage.parts), kept_bytes(uses, sharers), max(uses.sizes)
    if stage.stage == "base model":
        whole = -(-len(uses.sizes) // sharers) * block
        kept, block = max(kept, whole), 2 * block
    frozen = parts.pop("weights", 0) + parts.pop("quantization", 0)
    rest = uses.frozen - frozen  # what is not labelled yet while the model is loaded
    parts[_UNLABELLED] = max(0, parts.get(_UNLABELLED, 0) - rest)
    return _of_parts(stage, parts | {"weight_parts": kept, "whole_block": block})


def _with_sum(stage: StageMemory, reduced: int) -> StageMemory:
    """Returns a training's peak: in its passes, or where gradients are added up."""
    if stage.stage != "training":
        return stage
    kept = {part: size for part, size in stage.parts.items() if part in (*_STAYS, *_FROZEN)}
    summed = _of_parts(stage, kept | {"gradients_of_all": reduced})
    return max(stage, summed, key=lambda found: found.host if found.device is None else found.device)


_FROZEN = ("weights", "quantization", "weight_parts")


def _of_parts(stage: StageMemory, parts: Mapping[str, int]) -> StageMemory:
    """Returns a stage that consists of other parts."""
    known = {part: size for part, size in parts.items() if size}
    total = sum(known.values())
    where = {"host": total} if stage.device is None else {"device": total}
    return stage.model_copy(update={**where, "parts": known})
