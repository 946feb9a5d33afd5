"""Refuses a device that is not here before records are read, and without torch where its build alone tells."""

from __future__ import annotations

import importlib.util
from typing import Any

from graftkit.errors import RecipeError

__all__ = ["refuse_device"]


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


def _torch_build() -> Any:
    """Returns torch's module `version`, without importing torch: its version and what it was built for; or None."""
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
