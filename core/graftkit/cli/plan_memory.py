"""What `toolkit plan` says of memory, and the recipe that it writes so that a run fits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftkit.cli.plan_processes import forecast_of_each, room_of
from graftkit.cli.plan_time import described_time, timed
from graftkit.errors import RecipeError
from graftkit.flow.planning.describe_plan import described_memory, size_text
from graftkit.flow.planning.run_plan import RunPlan
from graftkit.host.host import PluginHost
from graftkit.recipe.bind import BoundRecipe, bind
from graftkit.recipe.load import load_recipe
from graftkit.report.run_manifest import MemoryForecast, SettledKey

if TYPE_CHECKING:
    from graftkit.flow.config_memory import ConfigModel
    from graftkit.flow.memory.fit_memory import MemoryLimits
    from graftkit.flow.memory.forecast_memory import MemoryRequest
    from graftkit.flow.memory.forecast_processes import Devices
    from graftkit.training.block_uses import BlockUses

__all__ = [
    "ConfigPlan",
    "check_limits",
    "fitted",
    "foreseen_of",
    "limits_of",
    "with_memory_settled",
]


def foreseen_of(plan: RunPlan | ConfigPlan) -> tuple[MemoryForecast | None, BlockUses | None]:
    """Forecasts a plan's memory, and what processes would exchange; None where that needs more than was looked at.

    Model, quantizer and adapter compute without contents for it, and what they keep for good may be made so: nothing
    else may be computed in this process after it.
    """
    if plan.ask_memory is None:
        return None, None

    from graftkit.flow.memory.forecast_memory import forecast_with_blocks

    return forecast_with_blocks(plan.ask_memory(plan.bound))


@dataclass(frozen=True)
class ConfigPlan:
    """A recipe of whose base model the config.json alone is looked at, and of whose records nothing.

    Attributes:
        host: The plugins.
        bound: The recipe, of which no key says `auto` any more.
        model: The base model.
        settled: What the keys came to that did.
    """

    host: PluginHost
    bound: BoundRecipe
    model: ConfigModel
    settled: Mapping[str, SettledKey]

    @classmethod
    def read(cls, recipe: str, overrides: Sequence[str], host: PluginHost, limits: MemoryLimits | None) -> ConfigPlan:
        """Reads a recipe and the config.json that it names.

        Args:
            recipe: The recipe's path.
            overrides: As for `load_recipe`.
            host: The plugins.
            limits: How much memory there is; what is free here when left out.

        Raises:
            RequestError: Something in them is wrong.
        """
        from graftkit.flow.config_memory import ConfigModel, settle_from_config
        from graftkit.flow.planning.unsettled import settled_recipe

        bound = bind(load_recipe(recipe, overrides), host)
        model = ConfigModel.read(bound.recipe.model.path).for_objective(bound)
        settled = settle_from_config(bound, host, model, limits)
        return cls(host, settled_recipe(bound, settled), model, settled)

    def ask_memory(self, bound: BoundRecipe) -> MemoryRequest:
        """Returns what to ask of a recipe's memory on this model."""
        from graftkit.flow.config_memory import request_from_config

        return request_from_config(bound, self.host, self.model)

    def time(self) -> dict[str, Any]:
        """Times passes of its training, and returns `time` as JSON."""
        from graftkit.flow.config_memory import device_of

        found = timed(self.bound, self.host, self.ask_memory, device_of(self.bound.recipe))
        return {"time": described_time(found, self.bound, None)}


def limits_of(memory: str | None, device_memory: str | None) -> MemoryLimits | None:
    """Returns what `--memory` and `--device-memory` say; None where neither is given.

    Raises:
        RecipeError: A size is none.
    """
    if not memory and not device_memory:
        return None

    from graftkit.flow.memory.fit_memory import MemoryLimits, parse_size

    return MemoryLimits(*(parse_size(size) if size else None for size in (memory, device_memory)))


def check_limits(limits: MemoryLimits | None, foreseen: MemoryForecast | None) -> None:
    """Refuses the limit of a device's memory where a run would take none of it, so that anything would fit.

    Raises:
        RecipeError: It would.
    """
    if limits is None or limits.device is None or foreseen is None or foreseen.unknown or foreseen.on_device:
        return
    raise RecipeError(
        f"--device-memory is of a GPU, and training would compute on {foreseen.device}",
        hint="Say --memory of this machine's. Without a GPU, --from-config --set training.device=cuda forecasts what "
        "one would hold.",
    )


def with_memory_settled(plan: RunPlan, limits: MemoryLimits | None) -> RunPlan:
    """Returns the plan with what keys come to that leave it to the memory, where that could be looked at."""
    found = plan.settle_memory(limits) if plan.settle_memory else {}
    notices = [key.describe(name) for name, key in found.items()]
    return replace(plan.with_settled(found), notices=[*plan.notices, *notices]) if found else plan


def fitted(
    recipe: str,
    overrides: Sequence[str],
    host: PluginHost,
    plan: RunPlan | ConfigPlan,
    limits: MemoryLimits,
    out: str | None,
    devices: Devices | None = None,
) -> dict[str, Any]:
    """Finds what to change in a recipe so that it fits, and writes that where it does; returns it as JSON.

    Args:
        recipe: The recipe's path.
        overrides: As for `load_recipe`.
        host: The plugins.
        plan: The recipe's plan. What its keys came to that say `auto` is among what is written.
        limits: How much there is.
        out: Where the recipe goes.
        devices: Where several processes compute, each of which is to fit; None for one alone.

    Raises:
        RecipeError: What the run takes can't be told.
    """
    from graftkit.flow.memory.fit_memory import fit_memory

    chosen = [*overrides, *(f"{key}={found.value}" for key, found in plan.settled.items())]
    if isinstance(plan, RunPlan):
        if plan.ask_memory is None:
            raise RecipeError("of the records that were looked at none can be encoded: what a run takes can't be told")
        chosen += [f"training.{key}={value}" for key, value in plan.chosen.items()]
    ask = plan.ask_memory
    assert ask is not None
    found = fit_memory(recipe, chosen, host, ask, limits, _forecast_of_each(devices, limits) if devices else None)
    lines = [
        f"{change.key}: {_told(change.before)} -> {_told(change.after)} saves {size_text(change.saved)}"
        for change in found.changes
    ]
    if found.missing:
        after = "after all of these" if lines else "and nothing is left to change"
        lines.append(f"no recipe was found that fits: {size_text(found.missing)} are missing {after}")
    elif not lines:
        lines.append("it fits as it is")
    if out and not found.missing:
        lines.append(f"wrote {_write(found.recipe, Path(out))}")
    lines.append(f"then {described_memory(found.forecast)['text']}")
    if plan.bound.exports:
        lines.append("each export is proved after that in a process of its own, whose memory is not forecast")
    told = [
        {"key": c.key, "before": c.before, "after": c.after, "saved": c.saved, "set": c.override} for c in found.changes
    ]
    return {
        "fits": not found.missing,
        "missing": found.missing,
        "changes": told,
        "memory": described_memory(found.forecast),
        "text": "\n".join(lines),
    }


def _forecast_of_each(devices: Devices, limits: MemoryLimits) -> Callable[[MemoryRequest, BoundRecipe], MemoryForecast]:
    return lambda asked, bound: forecast_of_each(asked, bound, devices, room_of(limits, asked.device))


def _told(value: Any) -> str:
    if isinstance(value, dict):
        switches = ", ".join(key for key, switch in value.items() if switch is True)
        return f"{value.get('use')}{f' with {switches}' if switches else ''}"
    return str(value)


def _write(recipe: Any, out: Path) -> str:
    import yaml

    from graftkit.store.files import write_new_text

    write_new_text(out, yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True))
    return str(out)
