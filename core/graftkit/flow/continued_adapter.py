"""A recipe that goes on with an adapter: what its folder says takes the place of what the recipe leaves out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftkit.errors import ModelError, RecipeError, RequestError
from graftkit.flow.adapter_folder import AdapterFolder, is_adapter_folder, read_adapter_folder
from graftkit.host.host import PluginHost
from graftkit.host.registry import BUILT_IN
from graftkit.interfaces.peft_adapter import PeftFields
from graftkit.interfaces.tokenizer import Tokenizer
from graftkit.recipe.bind import BoundRecipe
from graftkit.recipe.load import LoadedRecipe
from graftkit.recipe.schema import Recipe

if TYPE_CHECKING:
    from graftkit.flow.run_plan import RunPlan
    from graftkit.model.load import Loader

__all__ = ["check_origin", "check_targets", "filled_from_folder"]


def filled_from_folder(
    loaded: LoadedRecipe, host: PluginHost, kept: Path | None = None
) -> tuple[LoadedRecipe, AdapterFolder | None]:
    """Returns the recipe with method, fields and targets of the adapter that it goes on with, and that adapter.

    Args:
        loaded: The recipe.
        host: The plugins.
        kept: Where the run that goes on keeps a copy of that adapter, which is read where the folder is gone.

    Raises:
        FolderError: The folder can't be read.
        RecipeError: The recipe says a field otherwise than the folder.
        RequestError: The folder holds trained rows of embeddings.
    """
    section = loaded.recipe.adapter
    if section.origin is None:
        return loaded, None
    path, where = Path(section.origin), loaded.document.where
    gone = kept is not None and not is_adapter_folder(path) and is_adapter_folder(kept)
    folder = read_adapter_folder(kept if gone and kept else path, host, section.use or None, kept=gone)
    if folder.rows:
        held = f"trained rows of embeddings ({', '.join(sorted(folder.rows))})"
        raise RequestError(
            f"the adapter holds {held}, with which training can't go on",
            where=where(("adapter", "from")),
            hint="Export it first (toolkit export ADAPTER --to merged), and train a new adapter on that.",
        )
    model: Any = host.registry.config_class(folder.registered)
    free = model.free_fields if isinstance(model, PeftFields) else frozenset()
    said = section.options
    for key, value in folder.options.items():
        if key not in free and said.get(key, value) != value:
            raise RecipeError(
                f"adapter.{key} is {said[key]!r}, the adapter in {folder.path} has {value!r}",
                where=where(("adapter", key)),
                hint="Leave it out: an adapter that is trained on keeps what it has.",
            )
    data = loaded.recipe.model_dump(exclude_unset=True)
    own = {"use": _name(folder), **folder.options, "targets": _targets(folder)}
    data["adapter"] = {**own, **data["adapter"]}
    return LoadedRecipe(Recipe.model_validate(data), replace(loaded.document, data=data)), folder


def _name(folder: AdapterFolder) -> str:
    """Returns the shortest name of the adapter's method that means it alone."""
    registered = folder.registered
    return registered.provider.name if registered.plugin.distribution == BUILT_IN else registered.qualified_name


def _targets(folder: AdapterFolder) -> list[str]:
    return [*folder.layers, *folder.expert_layouts]


def check_origin(folder: AdapterFolder, bound: BoundRecipe, tokenizer: Tokenizer) -> list[str]:
    """Compares what graftkit's manifest says of an adapter with the recipe, and returns what the user should know.

    Raises:
        ModelError: The adapter was trained with another tokenizer.
    """
    manifest, where = folder.manifest, bound.document.where(("adapter", "from"))
    found = [f"training goes on with the adapter in {folder.path}"]
    if manifest is None:
        return found
    if manifest.tokenizer_fingerprint != tokenizer.fingerprint:
        raise ModelError(
            f"the adapter in {folder.path} was trained with another tokenizer than the base model's",
            where=where,
            hint="Name the base model that it was trained on.",
        )
    trained, now = manifest.quantizer, bound.quantizer.facts()
    if (trained.get("name"), trained.get("config")) != (now["name"], now["config"]):
        found.append(
            f"the adapter was trained on weights stored by {trained.get('name')!s:.40}; "
            f"{now['name']} gives others: it computes something a little else on them"
        )
    return found


def check_targets(plan: RunPlan, targets: list[str], planned: Loader) -> None:
    """Makes sure that the layers which are adapted are those that the adapter has tensors for.

    Raises:
        RecipeError: The recipe names others, or changes the rows of a matrix that the adapter holds as a whole.
        ModelError, FolderError: The adapter does not fit the model.
    """
    from graftkit.flow.place_adapter import check_layers
    from graftkit.model.whole import outer_names

    if plan.origin is None:
        return
    odd = sorted(set(check_layers(plan.origin, planned)) ^ set(targets))
    if odd:
        raise RecipeError(
            f"adapter.targets names other layers than the adapter in {plan.origin.path} has tensors for, "
            f"such as {odd[0]}",
            where=plan.bound.document.where(("adapter", "targets")),
            hint="Leave targets out: an adapter that is trained on keeps its layers.",
        )
    matrices = set(outer_names(planned.skeleton) or ()) & plan.origin.saved.keys()
    if matrices and plan.vocabulary:
        raise RecipeError(
            f"tokenizer: the vocabulary changes, and with it the rows of '{min(matrices)}', which the adapter holds as "
            "a whole",
            where=plan.bound.document.where(("tokenizer",)),
            hint="Export the adapter first (toolkit export ADAPTER --to merged), and change that model's vocabulary.",
        )
