"""Finds what to change in a recipe so that its run fits in so much memory, what does least harm first."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from graftkit.errors import RecipeError
from graftkit.flow.memory.forecast_memory import MemoryRequest, forecast_memory
from graftkit.host.host import PluginHost
from graftkit.interfaces.layer import LayerInfo
from graftkit.recipe.bind import BoundRecipe, bind
from graftkit.recipe.load import load_recipe
from graftkit.report.run_manifest import MemoryForecast

__all__ = ["Change", "FittedRecipe", "MemoryLimits", "fit_memory", "parse_size"]

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}
_SIZE = re.compile(r"(\d{1,15}(?:\.\d{1,15})?)\s*([kmgt]i?)?b?", re.IGNORECASE)
_LEAST = 10**6
"""Bytes that every memory has, and every connection sends in a second."""
_WORTH = 0.01
"""The share of memory that a change has to save at least."""
_SMALLEST = {"training.microbatch_tokens": 64, "evaluation.batch_size": 1, "adapter.rank": 4, "data.max_length": 128}


@dataclass(frozen=True, slots=True)
class MemoryLimits:
    """How many bytes there are; None where that does not matter.

    Attributes:
        host: Of the machine's memory.
        device: Of the device's.
    """

    host: int | None = None
    device: int | None = None

    def missing(self, forecast: MemoryForecast) -> int:
        """Returns how many bytes a run takes beyond them: 0 where it fits."""
        host, device = forecast.host, forecast.on_device
        over = [host.host - self.host] if host and self.host is not None else []
        over += [(device.device or 0) - self.device] if device and self.device is not None else []
        return max([0, *over])


@dataclass(frozen=True, slots=True)
class Change:
    """A key of the recipe that is set anew.

    Attributes:
        key: Its dotted name.
        before: What it was.
        after: What it becomes.
        saved: The bytes that this saves at the peak, after the changes before it.
    """

    key: str
    before: Any
    after: Any
    saved: int

    @property
    def override(self) -> str:
        """What `--set` takes for it."""
        return f"{self.key}={_written(self.after)}"


@dataclass(frozen=True, slots=True)
class FittedRecipe:
    """What was found.

    Attributes:
        changes: What is changed, in the order in which it was tried.
        missing: The bytes that are still missing; 0 where the recipe fits.
        forecast: What the changed recipe takes.
        recipe: The changed recipe, with the keys that a file has; its paths are absolute.
    """

    changes: Sequence[Change]
    missing: int
    forecast: MemoryForecast
    recipe: Mapping[str, Any] = field(default_factory=dict)


_MOST_MEANT = 10_000
"""Numbers without a unit below which gigabytes are probably meant."""


def parse_size(text: str) -> int:
    """Returns the bytes that a text says.

    Raises:
        RecipeError: It says none, or one that no memory has.

    Example:
        >>> parse_size("8GB"), parse_size("1.5 GiB")
        (8000000000, 1610612736)
    """
    found = _SIZE.fullmatch(text.strip())
    if not found or not float(found[1]):
        raise RecipeError(f"'{text}' is no size of a memory", hint="Write it as 8GB, 24GiB or 900MB.")
    size = int(float(found[1]) * _UNITS[(found[2] or "").lower()])
    if size < _LEAST:
        raise RecipeError(
            f"'{text}' is a size of {size:,} bytes",
            hint="Write it with its unit, as 8GB, 24GiB or 900MB."
            if found[2] or float(found[1]) >= _MOST_MEANT
            else f"Did you mean {found[1]}GB?",
        )
    return size


def fit_memory(
    source: Any,
    overrides: Sequence[str],
    host: PluginHost,
    ask: Callable[[BoundRecipe], MemoryRequest],
    limits: MemoryLimits,
    forecast_of: Callable[[MemoryRequest, BoundRecipe], MemoryForecast] | None = None,
) -> FittedRecipe:
    """Changes a recipe until its run fits.

    In this order, each only as far as is needed, and only where it saves a hundredth:

    1. `training.microbatch_tokens`, halved: the result is the same but for rounding, a step takes a little longer.
    2. `evaluation.batch_size`, halved: the same answers.
    3. `memory.checkpoint: blocks`: the same result, in up to a third more time.
    4. `training.dtype`, the other one: in bfloat16 products are rounded to 8 bits, what is trained stays float32; in
       float32 a CPU may be slower, and keeps no kernels, which small models in bfloat16 take most memory for.
    5. `quantizer`, the one that stores most of those that store less: the frozen weights are rounded.
    6. `adapter.rank`, halved: less can be learnt.
    7. `data.max_length`, halved: long records lose what is beyond it.

    Args:
        source: The recipe, as `load_recipe` takes it.
        overrides: As for `load_recipe`.
        host: The plugins.
        ask: Makes of a changed recipe what `forecast_memory` is asked.
        limits: How much there is.
        forecast_of: Forecasts what a changed recipe takes; `forecast_memory` when left out.

    Raises:
        RecipeError: The recipe is wrong, or what it takes can't be told.
    """
    loaded = load_recipe(source, overrides)
    bound = bind(loaded, host)
    forecast_of = forecast_of or _of_one_process
    forecast = _forecast(ask, bound, forecast_of)
    changes: dict[str, Change] = {}
    for key, values in _knobs(bound, host):
        for value in values:
            missing = limits.missing(forecast)
            if not missing:
                break
            own = [change.override for name, change in changes.items() if name != key]
            tried = load_recipe(source, [*overrides, *own, f"{key}={_written(value)}"])
            tried_bound = bind(tried, host)
            found = _forecast(ask, tried_bound, forecast_of)
            saved = _peak(forecast, limits) - _peak(found, limits)
            if saved < _WORTH * _peak(forecast, limits):
                break
            earlier = changes.get(key)
            before = earlier.before if earlier else _value(bound, key)
            changes[key] = Change(key, before, value, saved + (earlier.saved if earlier else 0))
            loaded, forecast = tried, found
    return FittedRecipe(list(changes.values()), limits.missing(forecast), forecast, dict(loaded.document.data))


def _of_one_process(asked: MemoryRequest, bound: BoundRecipe) -> MemoryForecast:
    return forecast_memory(asked)


def _forecast(
    ask: Callable[[BoundRecipe], MemoryRequest],
    bound: BoundRecipe,
    forecast_of: Callable[[MemoryRequest, BoundRecipe], MemoryForecast],
) -> MemoryForecast:
    found = forecast_of(ask(bound), bound)
    if found.unknown:
        raise RecipeError(f"what the run takes of memory can't be told: {found.unknown}")
    return found


def _peak(forecast: MemoryForecast, limits: MemoryLimits) -> int:
    """Returns the bytes at the peak of that memory of which most is missing."""
    device, host = forecast.on_device, forecast.host
    over_device = device and limits.device is not None and (device.device or 0) > limits.device
    return (device.device or 0) if device and over_device else host.host if host else 0


def _knobs(bound: BoundRecipe, host: PluginHost) -> Iterator[tuple[str, Sequence[Any]]]:
    """Yields each key that may be changed with its values, the least harmful first."""
    recipe = bound.recipe
    yield "training.microbatch_tokens", _halves("training.microbatch_tokens", recipe.training.pass_tokens)
    if recipe.evaluation.answers:
        yield "evaluation.batch_size", _halves("evaluation.batch_size", recipe.evaluation.batch_size)
    if recipe.memory.checkpoint == "none":
        yield "memory.checkpoint", ["blocks"]
    yield "training.dtype", ["bfloat16" if recipe.training.dtype == "float32" else "float32"]
    yield "quantizer", _quantizers(bound, host)
    if isinstance(rank := getattr(bound.adapter.config, "rank", None), int):
        yield "adapter.rank", _halves("adapter.rank", rank)
    length = recipe.data.max_length or min(1024, recipe.training.pass_tokens)
    yield "data.max_length", _halves("data.max_length", length)


def _halves(key: str, value: int) -> list[int]:
    found = []
    while value // 2 >= _SMALLEST[key]:
        value //= 2
        found.append(value)
    return found


def _quantizers(bound: BoundRecipe, host: PluginHost) -> list[dict[str, Any]]:
    """Returns the sections of quantizers that store a layer in fewer bytes than the recipe's, most bytes first.

    Each provider is taken with the defaults of its fields, and with each switch among them that saves more.
    """
    layer = LayerInfo("layers.0.proj", "linear", 4096, 4096)
    now = bound.quantizer.config.stored_bytes(layer, 2)
    sizes: list[tuple[int, dict[str, Any]]] = []
    for registered in host.registry.providers("quantizer"):
        kind, name = host.registry.config_class(registered), registered.provider.name
        switches = [key for key, info in kind.model_fields.items() if info.annotation is bool and info.default is False]
        for section in ({}, *({key: True} for key in switches)):
            size = kind(**section).stored_bytes(layer, 2)
            if size is not None and now is not None and size < now:
                sizes.append((size, {"use": name} | section))
    return [section for _, section in sorted(sizes, key=lambda found: -found[0])]


def _value(bound: BoundRecipe, key: str) -> Any:
    """Returns what a recipe says under a dotted key, defaults filled in."""
    value: Any = bound.resolved()
    for part in key.split("."):
        value = value[part]
    return value


def _written(value: Any) -> str:
    """Returns a value as YAML writes it on one line."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_written(inner)}" for key, inner in value.items()) + "}"
    return str(value).lower() if isinstance(value, bool) else str(value)
