"""What `toolkit plan --time` says: how fast a training will be here, by passes that are timed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from graftkit.host.guard import brief
from graftkit.host.host import PluginHost
from graftkit.interfaces.objective_config import SampledConfig
from graftkit.recipe.bind import BoundRecipe
from graftkit.report.figure_text import about_time

if TYPE_CHECKING:
    import torch

    from graftkit.flow.forecast_time import TimedPass
    from graftkit.flow.memory.forecast_memory import MemoryRequest

__all__ = ["described_time", "timed"]


def timed(
    bound: BoundRecipe, host: PluginHost, ask: Callable[[BoundRecipe], MemoryRequest], device: torch.device
) -> TimedPass | str:
    """Times the largest pass of a training, and returns why that can't be done where it can't.

    Args:
        bound: The recipe, of which no key says `auto` any more.
        host: The plugins.
        ask: As for a forecast of memory.
        device: Where it is computed.
    """
    from graftkit.flow.forecast_time import time_a_pass

    if bound.quantizer.use == "stored":
        return "weights that stay as their file stores them are not timed"
    if isinstance(bound.objective_config, SampledConfig):
        return "sampling answers takes most of the time, and how long they become is not known before"
    try:
        dry = ask(bound).dry
        return time_a_pass(bound, host, dry.config, dry.packing, device, dry.largest)
    except Exception as error:
        return f"{type(error).__name__}: {brief(error)}"


def described_time(found: TimedPass | str, bound: BoundRecipe, training: Mapping[str, Any] | None) -> dict[str, Any]:
    """Returns it as JSON, `text` in words.

    Args:
        found: What was timed.
        bound: The recipe.
        training: What the training comes to; None where no record is known.
    """
    if isinstance(found, str):
        return {"seconds": None, "text": f"not timed: {found}"}
    speed = found.tokens_per_second
    a_step = bound.recipe.training.tokens_per_step / speed
    facts: dict[str, Any] = {"tokens_per_second": round(speed, 1), "seconds": None, "timed_layers": list(found.layers)}
    total = ""
    if training:
        tokens = training["tokens"] * training["epochs"]
        took = tokens / speed
        a_step = took / max(1, training["steps"])
        facts["seconds"] = round(took)
        total = f"{about_time(took)} of training: "
    facts["seconds_a_step"] = round(a_step, 3)
    layers = " and ".join(map(str, found.layers))
    once = bound.objective_config.minimizes == "likelihood"
    objective = "" if once else "; passes that the objective runs twice count once"
    text = (
        f"{total}about {speed:,.0f} tokens/s, {a_step:.2f} s a step, by passes of {found.tokens:,} tokens through "
        f"{layers} layers with random weights{objective}; loading, evaluations, exports and proofs come besides"
    )
    return facts | {"text": text}
