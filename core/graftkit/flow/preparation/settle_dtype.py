"""What `training.dtype: auto` comes to: the type that the device multiplies faster."""

from __future__ import annotations

import time

import torch

from graftkit.flow.planning.run_plan import RunPlan
from graftkit.flow.planning.unsettled import DTYPE, unsettled
from graftkit.flow.preparation.check_model import pick_device
from graftkit.report.run_manifest import SettledKey

__all__ = ["faster_dtype", "settle_dtype"]

_SHAPE = (512, 1024, 1024)
"""Rows, and a matrix of a small model's size: one product takes some hundredths of a second on a core."""
_ROUNDS = 5
_WORTH = 1.3
"""How many times as fast products in bfloat16 have to be: what a step does besides products gains nothing by them."""


def settle_dtype(plan: RunPlan) -> RunPlan:
    """Returns the plan with the type of the products for this machine, where the recipe leaves that to it.

    Raises:
        RecipeError: There is no such device here.
    """
    if DTYPE not in unsettled(plan.bound.recipe):
        return plan
    return plan.with_settled({DTYPE: faster_dtype(pick_device(plan.bound.recipe.training.device))})


def faster_dtype(device: torch.device) -> SettledKey:
    """Returns the type whose products take less time on a device.

    A CPU is timed, on as many threads as torch has there. On CUDA it is bfloat16 from compute capability 8.0 on, and
    float32 below; on other devices float32.
    """
    if device.type == "cuda" and not torch.cuda.is_available():
        return SettledKey(value="bfloat16", reason="a CUDA device of compute capability 8.0 or more is assumed")
    if device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(device)
        reason = f"the CUDA device has compute capability {major}.{minor}"
        return SettledKey(value="bfloat16" if major >= 8 else "float32", reason=reason)
    if device.type != "cpu":
        return SettledKey(value="float32", reason=f"on {device.type} no other type has been tried")
    seconds = {dtype: _seconds_of_a_product(dtype) for dtype in (torch.float32, torch.bfloat16)}
    ratio = seconds[torch.float32] / seconds[torch.bfloat16]
    threads = torch.get_num_threads()
    return SettledKey(
        value="bfloat16" if ratio >= _WORTH else "float32",
        reason=f"products in bfloat16 are {ratio:.2g} times as fast as in float32, measured on {threads} "
        f"{'thread' if threads == 1 else 'threads'}",
    )


@torch.no_grad()
def _seconds_of_a_product(dtype: torch.dtype) -> float:
    """Returns the shortest time that `x W^T` took, of some; the first, which warms up, left out."""
    rows, inner, outer = _SHAPE
    x, weight = torch.full((rows, inner), 0.5, dtype=dtype), torch.full((outer, inner), 0.5, dtype=dtype)
    times = []
    for _ in range(1 + _ROUNDS):
        start = time.perf_counter()
        torch.nn.functional.linear(x, weight)
        times.append(time.perf_counter() - start)
    return min(times[1:])
