"""What `microbatch_tokens: auto` and `checkpoint: auto` come to: what fits into the memory that is free."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from graftkit.flow.memory.fit_memory import MemoryLimits
from graftkit.flow.memory.free_memory import available_memory
from graftkit.flow.planning.unsettled import CHECKPOINT, MICROBATCH, unsettled
from graftkit.recipe.schema.recipe import Recipe
from graftkit.report.run_manifest import MemoryForecast, SettledKey

__all__ = ["SettledMemory", "available", "pass_sizes", "settle_memory"]

_SIZES = (8192, 4096, 2048, 1024)
"""Tokens of a pass, the largest first: fewer take longer for each, more gain next to nothing."""
_SHARE = 0.9
"""The share of the free memory that is planned with: a forecast is off by about the rest."""


@dataclass(frozen=True, slots=True)
class SettledMemory:
    """What was found.

    Attributes:
        keys: What each key that said `auto` came to.
        forecast: What a run takes with that; None where nothing had to be forecast.
    """

    keys: dict[str, SettledKey]
    forecast: MemoryForecast | None = None


def available(device: torch.device) -> MemoryLimits:
    """Returns how much of the machine's and of a CUDA device's memory a run may take; None where that is not told."""
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else None
    return MemoryLimits(available_memory(), free)


def pass_sizes(recipe: Recipe, longest: int) -> list[int]:
    """Returns the tokens of a pass that may be chosen from, the most first; what the recipe says where it does.

    Args:
        recipe: The recipe, which says `training.tokens_per_step`: no pass has more than a step.
        longest: Tokens of the longest example: no pass has room for fewer.
    """
    said = recipe.training.microbatch_tokens
    if isinstance(said, int):
        return [said]
    sizes = list(dict.fromkeys(max(size, longest) for size in _SIZES))
    enough = min((size for size in sizes if size >= recipe.training.tokens_per_step), default=sizes[0])
    return [size for size in sizes if size <= enough]


def settle_memory(
    recipe: Recipe,
    longest: int,
    forecast: Callable[[Mapping[str, Any]], MemoryForecast],
    limits: MemoryLimits,
    no_checkpointing: str = "",
) -> SettledMemory:
    """Finds the largest passes that fit; blocks are computed again for their gradient where not even the smallest do.

    Where nothing fits, or that can't be told, passes are the smallest, and blocks are computed again only where it is
    known to be needed.

    Args:
        recipe: The recipe; the type of its products is settled.
        longest: Tokens of the longest example.
        forecast: What a run takes with other values of these keys.
        limits: How much there is.
        no_checkpointing: Why blocks can't be computed twice; "" where they can.
    """
    open_keys = [key for key in (MICROBATCH, CHECKPOINT) if key in unsettled(recipe)]
    if not open_keys:
        return SettledMemory({})
    candidates: Sequence[Mapping[str, Any]] = list(_candidates(recipe, longest, no_checkpointing))
    planned = MemoryLimits(*(size and int(size * _SHARE) for size in (limits.host, limits.device)))
    tried: list[tuple[Mapping[str, Any], MemoryForecast]] = []
    for values in candidates:
        tried.append((values, forecast(values)))
        if _why_unknown(tried[-1][1], limits) or not planned.missing(tried[-1][1]):
            break
    values, found = tried[-1]
    why = _why_unknown(found, limits)
    if why:
        values = [v for v in candidates if v[CHECKPOINT] == candidates[0][CHECKPOINT]][-1]
        reasons = dict.fromkeys(open_keys, why)
    else:
        fits = "" if not planned.missing(found) else ", which does not fit, and nothing smaller was found"
        reasons = dict.fromkeys(open_keys, f"a run takes {_told(found, limits)}{fits}")
        if values[CHECKPOINT] == "blocks":
            without = [other for v, other in tried if v[CHECKPOINT] == "none"]
            reasons[CHECKPOINT] += f"; without it {_told(without[-1], limits)}" if without else ""
        elif no_checkpointing:
            reasons[CHECKPOINT] = f"its blocks can't be computed twice: {no_checkpointing}"
    return SettledMemory({key: SettledKey(value=values[key], reason=reasons[key]) for key in open_keys}, found)


def _why_unknown(forecast: MemoryForecast, limits: MemoryLimits) -> str:
    """Returns why it can't be told whether a run fits; "" where it can."""
    if forecast.unknown:
        return f"what a run takes can't be told: {forecast.unknown}"
    return "how much memory is free is not told here" if limits == MemoryLimits() else ""


def _candidates(recipe: Recipe, longest: int, no_checkpointing: str) -> Iterator[dict[str, Any]]:
    """Yields values of both keys, those that take least time first."""
    said = recipe.memory.checkpoint
    for checkpoint in [said] if said != "auto" else ["none"] if no_checkpointing else ["none", "blocks"]:
        for size in pass_sizes(recipe, longest):
            yield {MICROBATCH: size, CHECKPOINT: checkpoint}


def _told(forecast: MemoryForecast, limits: MemoryLimits) -> str:
    device, host = forecast.on_device, forecast.host
    taken, free = (device.device, limits.device) if device else (host.host if host else 0, limits.host)
    there = "" if free is None else f" of {free / 1e9:.2f} GB"
    return f"about {(taken or 0) / 1e9:.2f}{there or ' GB'}"
