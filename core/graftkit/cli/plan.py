"""`toolkit plan`: what a recipe would do, without loading a weight."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from graftkit.cli.options import disable_option, host_of, json_option, offline_option, recipe_arguments
from graftkit.cli.plan_memory import ConfigPlan, check_limits, fitted, foreseen_of, limits_of, with_memory_settled
from graftkit.cli.plan_processes import described_processes, devices_of, room_of
from graftkit.cli.plan_time import described_time, timed
from graftkit.cli.streams import output_to_stderr
from graftkit.cli.terminal import ending_with, json_line
from graftkit.errors import FolderError, RecipeError
from graftkit.flow.folders.folder import default_folder
from graftkit.flow.plan_of_run import plan
from graftkit.flow.planning.describe_plan import describe, described_memory, described_training
from graftkit.flow.planning.run_plan import RunPlan
from graftkit.host.host import PluginHost
from graftkit.recipe.load import recipe_name
from graftkit.report.run_manifest import MemoryForecast, RunManifest
from graftkit.store.files import check_new_file
from graftkit.visible import further_lines_indented

if TYPE_CHECKING:
    from graftkit.flow.memory.fit_memory import MemoryLimits
    from graftkit.flow.memory.forecast_processes import Devices
    from graftkit.training.block_uses import BlockUses

__all__ = ["command"]


@click.command("plan")
@recipe_arguments
@click.option(
    "--quick", is_flag=True, help="Check recipe, files and records alone: not device, architecture and exports."
)
@click.option("--from-config", is_flag=True, help="Forecast memory alone, from the model's config.json and no files.")
@click.option("--memory", metavar="SIZE", help="Find what to change so that it fits in so much memory, such as 8GB.")
@click.option("--device-memory", metavar="SIZE", help="The same of a GPU's memory.")
@click.option("--time", "timing", is_flag=True, help="Time passes through some layers, and tell how long it will take.")
@click.option(
    "--devices",
    type=click.IntRange(1),
    help="Forecast so many processes, one a device: memory of each, bytes of a step.",
)
@click.option("--nodes", type=click.IntRange(1), help="On how many machines those devices are; 1 when left out.")
@click.option(
    "--bandwidth", metavar="SIZE", help="Bytes a second into a device from others of its machine; 25GB when left out."
)
@click.option("--network", metavar="SIZE", help="Bytes a second into a machine from others; 12.5GB when left out.")
@click.option("--out", type=click.Path(dir_okay=False), metavar="FILE", help="Write the recipe that fits to FILE.")
@disable_option
@offline_option
@json_option
def command(
    recipe: str,
    overrides: tuple[str, ...],
    quick: bool,
    from_config: bool,
    memory: str | None,
    device_memory: str | None,
    timing: bool,
    devices: int | None,
    nodes: int | None,
    bandwidth: str | None,
    network: str | None,
    out: str | None,
    disable: tuple[str, ...],
    as_json: bool,
) -> None:
    """Check a RECIPE as `run` does before it encodes a record, and say what it would do.

    Like `run` it imports torch, looks for the device, and makes a new vocabulary where the recipe asks for one.
    It forecasts the memory that the run takes, with --devices that of each of several processes, and what they send.
    Where no recipe is found that fits in --memory, it ends with 1.
    """
    among = devices_of(devices, nodes, bandwidth, network)
    if out and not (memory or device_memory):
        raise RecipeError("--out writes the recipe that fits: say in how much, with --memory or --device-memory")
    if quick and (memory or device_memory or from_config):
        raise RecipeError("--quick forecasts no memory", hint="Leave it out.")
    if quick and devices:
        raise RecipeError("--quick forecasts nothing of several processes", hint="Leave it out.")
    if quick and timing:
        raise RecipeError("--quick loads no torch, which --time needs", hint="Leave one of them out.")
    if out:
        check_new_file(Path(out))
    with output_to_stderr():
        host, limits = host_of(recipe, overrides, disable), limits_of(memory, device_memory)
        if from_config:
            alone = ConfigPlan.read(recipe, overrides, host, limits)
            planned: RunPlan | ConfigPlan = alone
            time = alone.time() if timing else {}  # before the forecast, which computes without contents
            told = [settled.describe(key) for key, settled in alone.settled.items()]
            foreseen = foreseen_of(alone)
            facts: dict[str, Any] = {"memory": described_memory(foreseen[0]), "notices": told, **time}
        else:
            planned = whole = with_memory_settled(
                plan(recipe, overrides=overrides, host=host, as_run=not quick), limits
            )
            time = time_of_plan(whole, host) if timing else {}
            foreseen = foreseen_of(whole)
            facts = describe(whole, _earlier(recipe), foreseen[0]) | time
        check_limits(limits, foreseen[0])
        if among:
            speed = time.get("time", {}).get("tokens_per_second")
            facts |= {"processes": processes_of(planned, foreseen, among, limits, speed)}
        if limits:
            facts |= {"fit": fitted(recipe, overrides, host, planned, limits, out, among)}
    # plugins' are among the plan's, but for those that came up since
    facts["notices"] = [*dict.fromkeys([*facts["notices"], *host.take_notices()])]
    shown = [f"{key:12}{facts[key]['text']}" for key in _SHOWN if key in facts]
    shown += [f"note: {notice}" for notice in facts["notices"]]
    with ending_with(0 if facts.get("fit", {"fits": True})["fits"] else 1):
        click.echo(json_line(facts) if as_json else "\n".join(map(further_lines_indented, shown)))


_SHOWN = (
    "model",
    "tokenizer",
    "quantizer",
    "adapter",
    "records",
    "objective",
    "teacher",
    "training",
    "time",
    "memory",
    "processes",
    "exports",
    "checked",
    "fit",
)
"""What is told, in this order."""


def _earlier(recipe: str) -> RunManifest | None:
    """Returns the manifest of the run that a recipe's runs go to when nothing else is said, if there is a whole one."""
    with suppress(FolderError):
        return RunManifest.read(default_folder(recipe_name(recipe)))
    return None


def processes_of(
    plan: RunPlan | ConfigPlan,
    foreseen: tuple[MemoryForecast | None, BlockUses | None],
    devices: Devices,
    limits: MemoryLimits | None,
    tokens_per_second: float | None,
) -> dict[str, Any]:
    """Returns what several processes take and exchange, as JSON."""
    memory, uses = foreseen
    if plan.ask_memory is None or memory is None:
        return {"ways": [], "text": "not forecast: it takes torch, and records that can be encoded"}
    asked = plan.ask_memory(plan.bound)
    room = room_of(limits, asked.device)
    return described_processes(asked, (memory, uses), plan.bound, devices, room, tokens_per_second)


def time_of_plan(plan: RunPlan, host: PluginHost) -> dict[str, Any]:
    """Times passes of a plan's training, and returns `time` as JSON."""
    if plan.ask_memory is None or plan.checked is None:
        return {"time": described_time("no record can be encoded", plan.bound, None)}
    import torch

    corpus = plan.estimate()
    found = timed(plan.bound, host, plan.ask_memory, torch.device(str(plan.checked["device"])))
    return {"time": described_time(found, plan.bound, described_training(plan, corpus))}
