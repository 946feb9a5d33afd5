"""What `toolkit plan` says of memory, and the recipe that it writes so that a run fits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftkit.cli.plan_time import described_time, timed
from graftkit.flow.plan import RunPlan
from graftkit.host.host import PluginHost
from graftkit.recipe.bind import BoundRecipe, bind
from graftkit.recipe.load import load_recipe
from graftkit.report.run_manifest import MemoryForecast, SettledKey, StageMemory

if TYPE_CHECKING:
    from graftkit.flow.fit_memory import MemoryLimits

__all__ = [
    "described_memory",
    "fitted",
    "forecast_of",
    "forecast_of_config",
    "limits_of",
    "time_of_config",
    "with_memory_settled",
]


def forecast_of(plan: RunPlan) -> MemoryForecast | None:
    """Forecasts a plan's memory; None where that needs what a quick check does not look at.

    Model, quantizer and adapter compute without contents for it, and what they keep for good may be made so: nothing
    else may be computed in this process after it.
    """
    if plan.ask_memory is None:
        return None

    from graftkit.flow.forecast_memory import forecast_memory

    return forecast_memory(plan.ask_memory(plan.bound))


def forecast_of_config(
    recipe: str, overrides: Sequence[str], host: PluginHost, limits: MemoryLimits | None
) -> tuple[MemoryForecast, Mapping[str, SettledKey]]:
    """Forecasts a recipe's memory from a config.json alone; returns what keys that say `auto` come to, too."""
    from graftkit.flow.config_memory import ConfigModel, request_from_config, settle_from_config
    from graftkit.flow.forecast_memory import forecast_memory
    from graftkit.flow.unsettled import settled_recipe

    bound = bind(load_recipe(recipe, overrides), host)
    model = ConfigModel.read(bound.recipe.model.path)
    settled = settle_from_config(bound, host, model, limits)
    return forecast_memory(request_from_config(settled_recipe(bound, settled), host, model)), settled


def time_of_config(
    recipe: str, overrides: Sequence[str], host: PluginHost, limits: MemoryLimits | None
) -> dict[str, Any]:
    """Times passes of a recipe's training by the model's config.json alone, and returns `time` as JSON."""
    from graftkit.flow.config_memory import ConfigModel, device_of, request_from_config, settle_from_config
    from graftkit.flow.unsettled import settled_recipe

    bound = bind(load_recipe(recipe, overrides), host)
    model = ConfigModel.read(bound.recipe.model.path)
    bound = settled_recipe(bound, settle_from_config(bound, host, model, limits))
    found = timed(bound, host, lambda bound: request_from_config(bound, host, model), device_of(bound.recipe))
    return {"time": described_time(found, bound, None)}


def limits_of(memory: str | None, device_memory: str | None) -> MemoryLimits | None:
    """Returns what `--memory` and `--device-memory` say; None where neither is given.

    Raises:
        RecipeError: A size is none.
    """
    if not memory and not device_memory:
        return None

    from graftkit.flow.fit_memory import MemoryLimits, parse_size

    return MemoryLimits(*(parse_size(size) if size else None for size in (memory, device_memory)))


def with_memory_settled(plan: RunPlan, limits: MemoryLimits | None) -> RunPlan:
    """Returns the plan with what keys come to that leave it to the memory, where that could be looked at."""
    found = plan.settle_memory(limits) if plan.settle_memory else {}
    notices = [key.describe(name) for name, key in found.items()]
    return replace(plan.with_settled(found), notices=[*plan.notices, *notices]) if found else plan


def described_memory(forecast: MemoryForecast | None) -> dict[str, Any]:
    """Returns a forecast as JSON, `text` in words."""
    if forecast is None:
        return {"stages": [], "text": "not forecast: it takes torch, and records that can be encoded"}
    facts = forecast.model_dump(mode="json")
    if forecast.unknown or not forecast.host:
        return {**facts, "text": f"not known: {forecast.unknown}"}
    host, device = forecast.host, forecast.on_device
    peak = {"host": host.host, "host_stage": host.stage}
    largest = f"a pass of {forecast.pass_tokens:,} tokens in {forecast.pass_sequences:,} sequences"
    text = f"about {_size(host.host)} at its peak, in {host.stage}, with {largest}"
    if device:
        peak |= {"device": device.device or 0, "device_stage": device.stage}
        on = f"about {_size(device.device or 0)} of the {forecast.device} device at its peak, in {device.stage}"
        text = f"{on}, with {largest}; {_size(host.host)} of the machine's"
    return {**facts, "peak": peak, "text": f"{text}\n{_parts(device or host)}"}


def _parts(stage: StageMemory) -> str:
    parts = sorted(stage.parts.items(), key=lambda part: -part[1])
    return ", ".join(f"{part.replace('_', ' ')} {_size(size)}" for part, size in parts if size >= 50_000)


def _size(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def fitted(
    recipe: str,
    overrides: Sequence[str],
    host: PluginHost,
    plan: RunPlan | None,
    settled: Mapping[str, SettledKey],
    limits: MemoryLimits,
    out: str | None,
) -> dict[str, Any]:
    """Finds what to change in a recipe so that it fits, and writes that where it does; returns it as JSON.

    Args:
        recipe: The recipe's path.
        overrides: As for `load_recipe`.
        host: The plugins.
        plan: The recipe's plan; None where its model's config.json alone is looked at.
        settled: What keys that say `auto` come to, which are among what is written.
        limits: How much there is.
        out: Where the recipe goes.

    Raises:
        RecipeError: What the run takes can't be told.
    """
    from graftkit.errors import RecipeError
    from graftkit.flow.config_memory import ConfigModel, request_from_config
    from graftkit.flow.fit_memory import fit_memory

    chosen = [*overrides, *(f"{key}={found.value}" for key, found in settled.items())]
    ask: Callable[[BoundRecipe], Any]
    if plan is None:
        model = ConfigModel.read(bind(load_recipe(recipe, overrides), host).recipe.model.path)

        def ask(bound: BoundRecipe) -> Any:
            return request_from_config(bound, host, model)

    elif plan.head:
        raise RecipeError(
            f"no memory is forecast of the objective {plan.bound.objective.use}: its head is not computed"
        )
    elif plan.ask_memory is None:
        raise RecipeError("of the records that were looked at none can be encoded: what a run takes can't be told")
    else:
        ask = plan.ask_memory
        chosen += [f"training.{key}={value}" for key, value in plan.chosen.items()]
    found = fit_memory(recipe, chosen, host, ask, limits)
    lines = [
        f"{change.key}: {_told(change.before)} -> {_told(change.after)} saves {_size(change.saved)}"
        for change in found.changes
    ]
    if found.missing:
        lines.append(f"no recipe was found that fits: {_size(found.missing)} are missing after all of these")
    elif not lines:
        lines.append("it fits as it is")
    if out and not found.missing:
        lines.append(f"wrote {_write(found.recipe, Path(out))}")
    told = [
        {"key": c.key, "before": c.before, "after": c.after, "saved": c.saved, "set": c.override} for c in found.changes
    ]
    return {
        "fits": not found.missing,
        "missing": found.missing,
        "changes": told,
        "memory": described_memory(found.forecast),
        "text": "\n".join([*lines, f"then {described_memory(found.forecast)['text']}"]),
    }


def _told(value: Any) -> str:
    if isinstance(value, dict):
        switches = ", ".join(key for key, switch in value.items() if switch is True)
        return f"{value.get('use')}{f' with {switches}' if switches else ''}"
    return str(value)


def _write(recipe: Any, out: Path) -> str:
    import yaml

    from graftkit.store.files import write_text

    write_text(out, yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True))
    return str(out)
