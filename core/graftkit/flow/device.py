"""Refuses a device that is not here before records are read, and without torch where its build alone tells."""

from __future__ import annotations

import importlib.util
import sys
from typing import Any

from graftkit.errors import RecipeError, RequestError

__all__ = ["refuse_device", "refuse_torch_settings"]


def refuse_device(name: str) -> None:
    """Refuses a device that can't be used here; `auto` and `cpu` always can.

    Args:
        name: What the recipe says: `training.device`.

    Raises:
        RecipeError: There is no such device here.
    """
    if name in ("auto", "cpu"):
        return
    build = _torch_build()
    if name.partition(":")[0] == "cuda" and build is not None and not (build.cuda or build.hip):
        raise RecipeError(
            f"device '{name}' can't be used here: torch {build.__version__} is built without CUDA",
            where="training.device",
            hint="Leave training.device out to take what is here, or install a build of torch with CUDA.",
        )
    from graftkit.flow.preparation.check_model import pick_device

    pick_device(name)


def refuse_torch_settings(what: str = "a run", *, learns: bool = True) -> None:
    """Refuses settings of torch's in the calling program with which something else would be computed, or fail late.

    Args:
        what: What computes.
        learns: Whether it takes gradients.

    Raises:
        RequestError: Tensors are of another dtype or on another device by default, or autocast is on, or there are no
            gradients where those are taken.
    """
    if "torch" not in sys.modules:
        return
    import torch  # which another thread may be importing

    others = {
        f"torch.set_default_dtype({torch.get_default_dtype()})": torch.get_default_dtype() != torch.float32,
        f"torch.set_default_device({str(torch.get_default_device())!r})": torch.get_default_device().type != "cpu",
        "torch.no_grad() or torch.inference_mode()": learns and not torch.is_grad_enabled(),
        "torch.autocast('cpu')": torch.is_autocast_enabled("cpu"),
        "torch.autocast('cuda')": torch.is_autocast_enabled("cuda"),
    }
    for setting, holds in others.items():
        if holds:
            hint = "Call it without; the recipe says in which type it computes, and where."
            raise RequestError(f"{what} in this program would compute something else", where=setting, hint=hint)


def _torch_build() -> Any:
    """Returns torch's module `version`, without importing torch: its version and what it was built for; or None."""
    if "torch" in sys.modules:
        return sys.modules["torch"].version
    torch = importlib.util.find_spec("torch")
    places = torch.submodule_search_locations if torch else None
    if not places:
        return None
    spec = importlib.util.spec_from_file_location("torch_version", f"{places[0]}/version.py")
    if spec is None or spec.loader is None:
        return None
    module: Any = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        return module if {"cuda", "hip", "__version__"} <= vars(module).keys() else None
    except (OSError, ImportError, AttributeError):
        return None
