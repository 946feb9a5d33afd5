"""What `toolkit plan --devices N` says: what each of several processes takes of memory, and what they send."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from graftkit.errors import RecipeError
from graftkit.flow.planning.describe_plan import size_text
from graftkit.flow.planning.sampled import refuse_sampling_of_parts
from graftkit.interfaces.objective_config import SampledConfig

if TYPE_CHECKING:
    from graftkit.flow.memory.fit_memory import MemoryLimits
    from graftkit.flow.memory.forecast_memory import MemoryRequest
    from graftkit.flow.memory.forecast_processes import Devices, WayForecast
    from graftkit.recipe.bind import BoundRecipe
    from graftkit.report.run_manifest import MemoryForecast
    from graftkit.training.block_uses import BlockUses

__all__ = ["described_processes", "devices_of", "forecast_of_each", "room_of"]


def devices_of(devices: int | None, nodes: int | None, bandwidth: str | None, network: str | None) -> Devices | None:
    """Returns what `--devices`, `--nodes`, `--bandwidth` and `--network` say; None where the first is not given.

    Raises:
        RecipeError: They don't fit one another, or a size is none.
    """
    if devices is None:
        if nodes or bandwidth or network:
            raise RecipeError("--nodes, --bandwidth and --network say more of --devices: say how many those are")
        return None

    from graftkit.flow.memory.fit_memory import parse_size
    from graftkit.flow.memory.forecast_processes import Devices

    speeds = {"bandwidth": bandwidth, "network": network}
    return Devices(devices, nodes or 1, **{name: parse_size(size) for name, size in speeds.items() if size})


def room_of(limits: MemoryLimits | None, device: str) -> int | None:
    """Returns the bytes of a device's memory: what `--device-memory` says, or what the CUDA device here has."""
    if device == "cpu":
        return None
    if limits is not None and limits.device is not None:
        return limits.device

    import torch

    here = device == "cuda" and torch.cuda.is_available()
    return torch.cuda.get_device_properties(device).total_memory if here else None


def forecast_of_each(asked: MemoryRequest, bound: BoundRecipe, devices: Devices, room: int | None) -> MemoryForecast:
    """Forecasts what each of several processes takes of memory, as `forecast_memory` does of one alone.

    Args:
        asked: What is asked of one alone.
        bound: The recipe.
        devices: Where they compute.
        room: The bytes of a device's memory, if that is known.
    """
    from graftkit.flow.memory.forecast_memory import forecast_with_blocks
    from graftkit.flow.memory.forecast_processes import of_each_process, way_of
    from graftkit.flow.memory.parallel import sharers_of

    memory, uses = forecast_with_blocks(asked)
    if uses is None:
        return memory
    way = way_of(bound.recipe.training.parallel, uses, room, devices)
    refuse_sampling_of_parts(bound, way)
    return of_each_process(memory, uses, sharers_of(way, devices.here, devices.count), devices.count)


def described_processes(
    asked: MemoryRequest,
    foreseen: tuple[MemoryForecast, BlockUses | None],
    bound: BoundRecipe,
    devices: Devices,
    room: int | None,
    tokens_per_second: float | None = None,
) -> dict[str, Any]:
    """Returns it as JSON, `text` in words.

    Args:
        asked: What `forecast_with_blocks` was asked of the recipe.
        foreseen: What that returned.
        bound: The recipe.
        devices: Where the processes compute.
        room: The bytes of a device's memory, if that is known.
        tokens_per_second: What one device was timed at, if it was.
    """
    from graftkit.flow.memory.forecast_processes import forecast_ways, way_of
    from graftkit.flow.memory.parallel import sharers_of

    memory, uses = foreseen
    if uses is None:
        return {"ways": [], "text": f"not known: {memory.unknown}"}
    said = bound.recipe.training.parallel
    way = way_of(said, uses, room, devices)
    refuse_sampling_of_parts(bound, way)
    ways = forecast_ways(memory, uses, asked.steps, devices, together=asked.together)
    if isinstance(bound.objective_config, SampledConfig):
        ways = [each for each in ways if each.sharers == 1]
    chosen = sharers_of(way, devices.here, devices.count)
    facts = [_facts(each, devices, tokens_per_second) for each in ways]
    machines = f"{devices.nodes} machine{'s' if devices.nodes > 1 else ''}"
    passes = ways[0].passes
    lines = [
        f"{devices.count} devices on {machines}, parallel: {way}{_why(said, way, asked.device, room)}; "
        f"a step of {sum(passes)} passes, {max(passes)} of one process at most"
    ]
    lines += [_line(each, found, asked.device, sharers=chosen) for each, found in zip(ways, facts, strict=True)]
    lines.append(
        f"seconds at {size_text(devices.bandwidth)}/s within a machine"
        + (f" and {size_text(devices.network)}/s between machines" if devices.nodes > 1 else "")
        + " (--bandwidth, --network)"
    )
    if min(passes) == 0:
        lines.append(
            f"{passes.count(0)} of {devices.count} processes have nothing to do in a step: raise tokens_per_step"
        )
    return {
        "devices": devices.count,
        "nodes": devices.nodes,
        "bandwidth": devices.bandwidth,
        "network": devices.network,
        "parallel": way,
        "settled": said != "auto" or room is not None or asked.device == "cpu",
        "ways": facts,
        "text": "\n".join(lines),
    }


def _why(said: str, way: str, device: str, room: int | None) -> str:
    if said != "auto":
        return ""
    if device == "cpu":
        return " (auto: on a CPU)"
    if room is None:
        return " (auto: it depends on a device's memory, say --device-memory 80GB)"
    fits = "fits a device" if way == "data" else "fits no single device"
    return f" (auto: what is kept for good {fits} of {size_text(room)})"


def _facts(found: WayForecast, devices: Devices, tokens_per_second: float | None) -> dict[str, Any]:
    step, on_device, host = found.busiest, found.memory.on_device, found.memory.host
    computing = found.tokens / tokens_per_second if tokens_per_second else None
    sending = found.seconds(devices)
    return {
        "way": found.way,
        "sharers": found.sharers,
        "memory": {
            "device": on_device.device if on_device else None,
            "host": host.host if host else None,
            "machine": host.host * devices.here if host else None,
            "stages": [stage.model_dump(mode="json") for stage in found.memory.stages],
        },
        "step": {
            "passes": list(found.passes),
            "blocks_received": step.blocks,
            "gradients": step.gradients,
            "gradients_received": step.reduced(devices.count),
            "agreements_received": step.agreements,
            "sending_seconds": round(sending, 4),
            "seconds": round(sending + computing, 4) if computing is not None else None,
        },
        "evaluation_pass_received": found.evaluation,
        "loading_sent": found.loading,
        "trained_sent": found.trained,
    }


def _line(found: WayForecast, facts: Mapping[str, Any], device: str, *, sharers: int) -> str:
    memory, step = facts["memory"], facts["step"]
    taken = (
        f"{size_text(memory['device'])} of each {device} device"
        if memory["device"]
        else f"{size_text(memory['host'])} each"
    )
    blocks = f"{size_text(step['blocks_received'])} of blocks and " if found.sharers > 1 else ""
    took = f", {step['seconds']:.2f} s with computing" if step["seconds"] is not None else ""
    mark = "*" if found.sharers == sharers else " "
    return (
        f"{mark} {found.way}: {taken}, {size_text(memory['machine'])} of a machine's memory; a step receives {blocks}"
        f"{size_text(step['gradients_received'])} of gradients, {step['sending_seconds']:.2f} s{took}"
    )
