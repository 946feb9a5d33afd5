"""Writes a recipe of what another program is told."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from graftkit.articles import counted
from graftkit.errors import DataError, ProviderError, RecipeError, RequestError
from graftkit.flow.records.starting_point import StartingPoint, find_starting_point
from graftkit.host.host import PluginHost
from graftkit.interfaces.json_file import read_json_object
from graftkit.recipe.bind import bind
from graftkit.recipe.conversion.convert import Conversion, convert
from graftkit.recipe.document import read_document
from graftkit.recipe.load import load_recipe
from graftkit.recipe.paths import anchored_reference, seen_from
from graftkit.store.files import check_new_file, write_new_text
from graftkit.visible import one_line

__all__ = ["write_converted_recipe"]

_NEEDS_EVERY = ("patience", "exported")
"""Keys of `evaluation` that `every` must be said beside."""

_MOST_KEYS = 100
"""How many keys that are not converted are named."""


def write_converted_recipe(source: Path, path: str, host: PluginHost) -> list[str]:
    """Writes a recipe of what another program is told: Axolotl, LLaMA-Factory, TRL, mlx-lm or ms-swift.

    Args:
        source: That program's file.
        path: The recipe's file, which is not there yet.
        host: The plugins.

    Returns:
        What the user should know of it.

    Raises:
        FolderError: There is such a file already.
        RecipeError: The other file can't be read, is of no program that is known, or says what no recipe can.
    """
    target = Path(path)
    check_new_file(target)
    text, told = _converted(source, target, host)
    write_new_text(target, text)
    return told


def _converted(source: Path, target: Path, host: PluginHost) -> tuple[str, list[str]]:
    """Returns the text of a recipe, whose relative paths start at its file's folder, and what its writer is told."""
    settings = read_document(source).data
    try:
        found = convert(settings, _data_sets(settings), is_there=os.path.lexists)
    except RecipeError as error:
        raise RecipeError(error.message, where=error.where or str(source), hint=error.hint) from None
    told = [*found.told]
    recipe = {name: dict(value) if isinstance(value, dict) else value for name, value in found.recipe.items()}
    start = _look_at_records(recipe, host) if found.examples_per_step or found.an_epoch else None
    if found.examples_per_step:
        told.append(_count_tokens(recipe, found.examples_per_step, start))
    left = dict(found.left)
    for key, (name, times) in found.an_epoch.items():
        if start:
            told.append(_count_steps(recipe, key, name, times, start))
        else:
            left[name] = _without_count(recipe, key)
    try:
        bind(load_recipe(recipe), host)
    except (RecipeError, ProviderError) as error:
        raise RecipeError(
            f"what it says makes no recipe: {error.message}", where=str(source), hint=error.hint or "Mend it there."
        ) from None
    _see_from(target.parent, recipe)
    lines = [*_named(told, replace(found, left=left))]
    head = [
        f"# A graftkit recipe, converted from {one_line(source.name)} of {found.program}.",
        f"# `toolkit plan {one_line(str(target))}` checks it. What that file leaves out is graftkit's own choice.",
        *(f"# {line}" for line in lines),
    ]
    return "\n".join([*head, "", _yaml(recipe)]), lines


def _data_sets(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what LLaMA-Factory's dataset_info.json says; nothing where there is none."""
    folder = Path(str(settings.get("dataset_dir") or "data"))
    if "dataset" not in settings or not (folder / "dataset_info.json").is_file():
        return {}
    return read_json_object(folder / "dataset_info.json", 4 << 20, DataError)


def _look_at_records(recipe: Mapping[str, Any], host: PluginHost) -> StartingPoint | None:
    """Looks at the lengths of the records; returns None where records or model are not here, or can't be read."""
    train, model = recipe["data"]["train"], recipe["model"]
    train = train.get("path") if isinstance(train, dict) else train
    if not isinstance(train, str) or not os.path.lexists(train) or not os.path.lexists(model):
        return None
    with suppress(RequestError):
        return find_starting_point(host, anchored_reference(model, Path.cwd()), train)
    return None


def _count_tokens(recipe: dict[str, Any], examples: int, found: StartingPoint | None) -> str:
    """Says `training.tokens_per_step` by the records' lengths, where they are known; returns what is told of it."""
    said = f"training.tokens_per_step counts tokens: {examples} examples a step"
    if found is None:
        return f"{said}; left out, a sample of the records chooses about eight"
    tokens = max(1, math.ceil(found.tokens_per_step * examples / 8))
    longest = recipe["data"].get("max_length", 0)
    recipe.setdefault("training", {})["tokens_per_step"] = max(tokens, longest)
    if tokens < longest:
        return f"{said} are about {tokens:,} tokens here, and it is no less than data.max_length: lower both for so few"
    return f"{said}, by the records' lengths about {tokens:,} tokens"


def _count_steps(recipe: dict[str, Any], key: str, name: str, times: int, found: StartingPoint) -> str:
    """Says in steps what the file says as so many times an epoch; returns what is told of it."""
    section, _, own = key.partition(".")
    held = recipe["data"].get("holdout", 0.05)
    learnt = (1 - held if isinstance(held, float) else 1.0) / (1 - found.holdout)
    tokens = recipe.get("training", {}).get("tokens_per_step", found.tokens_per_step)
    an_epoch = found.steps / found.epochs * found.tokens_per_step / tokens * learnt
    every = max(1, round(an_epoch / times))
    recipe.setdefault(section, {})[own] = every
    return f"{key}: {every} is {name}: {times}, since an epoch has about {counted(round(an_epoch) or 1, 'step')}"


def _without_count(recipe: dict[str, Any], key: str) -> str:
    """Leaves out what needs a key that can't be said; returns why it can't."""
    section, _, own = key.partition(".")
    needing = [other for other in _NEEDS_EVERY if key == "evaluation.every" and other in recipe.get(section, {})]
    also = "".join(f", {other}: {recipe[section].pop(other)}" for other in needing)
    if not recipe.get(section, True):
        del recipe[section]
    return f"how many steps an epoch has is known where model and records are; say {section}: {{{own}: STEPS{also}}}"


def _see_from(folder: Path, recipe: dict[str, Any]) -> None:
    """Names paths that lead to something from a recipe's own folder instead of the current one."""

    def seen(path: Any) -> Any:
        return seen_from(folder, path, anchored_reference(path, Path.cwd())) if isinstance(path, str) else path

    def of_data(said: Any) -> Any:
        if isinstance(said, list):
            return [of_data(each) for each in said]
        return {**said, "path": seen(said["path"])} if isinstance(said, dict) else seen(said)

    recipe["model"] = seen(recipe["model"])
    recipe["data"] = {
        key: of_data(value) if key in ("train", "holdout") else value for key, value in recipe["data"].items()
    }


def _named(told: Iterable[str], found: Conversion) -> Iterator[str]:
    yield from map(one_line, told)
    for name, why in list(found.left.items())[:_MOST_KEYS]:
        yield f"not converted: {one_line(name)[:100]}: {why}"
    if len(found.left) > _MOST_KEYS:
        yield f"not converted: {len(found.left) - _MOST_KEYS:,} more"
    if found.without_effect:
        yield f"without effect on what is learnt: {', '.join(found.without_effect[:_MOST_KEYS])}"


def _yaml(recipe: dict[str, Any]) -> str:
    import yaml

    return yaml.safe_dump(recipe, sort_keys=False, default_flow_style=None, allow_unicode=True, width=110)
