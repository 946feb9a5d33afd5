"""What a run says of the memory that it takes: as forecast, and as measured."""

from __future__ import annotations

from graftkit.report.run_manifest.facts import Facts

__all__ = [
    "MemoryFacts",
    "MemoryForecast",
    "MemoryMeasured",
    "StageMemory",
]


class StageMemory(Facts):
    """The most that a stage holds at once, in bytes.

    Attributes:
        stage: The run's stage.
        host: Of the machine's memory, what files are mapped to left out.
        device: Of the device's, where the model computes on one of its own.
        parts: What the peak consists of, by part; see `graftkit.training.dry_run.Peak`. On the CPU `program` is among
            them: the interpreter and its libraries.
    """

    stage: str
    host: int
    device: int | None = None
    parts: dict[str, int] = {}


class MemoryForecast(Facts):
    """What a run will take of memory, as far as can be told before a weight is loaded.

    Attributes:
        device: The type of the device that it is for: "cpu", "cuda", ...
        pass_tokens: Tokens of the largest pass.
        pass_sequences: How many sequences those are.
        stages: The peak of each stage.
        unknown: Why there is no forecast; "" where there is one.
    """

    device: str
    pass_tokens: int = 0
    pass_sequences: int = 0
    stages: list[StageMemory] = []
    unknown: str = ""

    @property
    def host(self) -> StageMemory | None:
        """The stage that takes most of the machine's memory."""
        return max(self.stages, key=lambda stage: stage.host, default=None)

    @property
    def on_device(self) -> StageMemory | None:
        """The stage that takes most of the device's; None where the model computes on the CPU."""
        known = [stage for stage in self.stages if stage.device is not None]
        return max(known, key=lambda stage: stage.device or 0, default=None)


class MemoryMeasured(Facts):
    """What stages were measured to take at most, in bytes, by stage.

    Attributes:
        host: Of the machine's memory, the run's process and those that it started, what files are mapped to left out.
        device: Of the device's memory, what torch held; empty where the model computes on the CPU.
    """

    host: dict[str, int] = {}
    device: dict[str, int] = {}


class MemoryFacts(Facts):
    """A run's memory."""

    forecast: MemoryForecast | None = None
    measured: MemoryMeasured = MemoryMeasured()
