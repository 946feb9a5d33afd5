"""A recipe that goes on with an adapter: what its folder says takes the place of what the recipe leaves out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from graftkit.errors import ModelError, RecipeError
from graftkit.flow.base_files.find_tokenizer import FoundTokenizer
from graftkit.flow.base_files.open_model import embedding_rows
from graftkit.flow.folders.adapter_folder import AdapterFolder, is_adapter_folder, read_adapter_folder
from graftkit.flow.planning.adapter_vocabulary import (
    change_of_folder,
    check_rows_fit,
    first_moved_id,
    tokenizer_beside,
    told_of_tokenizer,
)
from graftkit.flow.planning.vocabulary import VocabularyRequest, carrying
from graftkit.flow.records.chat import template_hash
from graftkit.host.host import PluginHost
from graftkit.host.records import RegisteredProvider
from graftkit.host.registry import BUILT_IN
from graftkit.interfaces.architecture import EMBEDDING_POOLING, EMBEDDING_PROMPTS
from graftkit.interfaces.model_source import BaseModelFiles
from graftkit.interfaces.peft_adapter import PeftFields
from graftkit.interfaces.tokenizer import Tokenizer
from graftkit.interfaces.vocabulary import VocabularyChange
from graftkit.recipe.bind import BoundRecipe
from graftkit.recipe.load import LoadedRecipe
from graftkit.recipe.schema.recipe import Recipe
from graftkit.recipe.schema.tokenizer import TokenizerSection

if TYPE_CHECKING:
    from graftkit.flow.planning.run_plan import RunPlan
    from graftkit.model.model_plan import ModelPlan

__all__ = ["check_targets", "filled_from_folder", "folder_vocabulary", "other_tokenizer", "told_of_origin"]


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
    """
    section = loaded.recipe.adapter
    if section.origin is None:
        return loaded, None
    path, where = Path(section.origin), loaded.document.where
    gone = kept is not None and not is_adapter_folder(path) and is_adapter_folder(kept)
    folder = read_adapter_folder(kept if gone and kept else path, host, section.use or None, kept=gone)
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


def other_tokenizer(folder: AdapterFolder, host: PluginHost, base: Tokenizer) -> FoundTokenizer | None:
    """Returns the tokenizer in an adapter's folder, or None where none lies there, or the base model's by its manifest.

    Args:
        folder: The adapter.
        host: The plugins.
        base: The base model's tokenizer.

    Raises:
        ModelError, PluginError: As for `tokenizer_beside`.
    """
    same = folder.manifest is not None and folder.manifest.tokenizer_fingerprint == base.fingerprint
    return None if same else tokenizer_beside(folder, host)


def folder_vocabulary(
    folder: AdapterFolder,
    bound: BoundRecipe,
    files: BaseModelFiles,
    backend: RegisteredProvider,
    base: Tokenizer,
    beside: FoundTokenizer | None,
    template: str | None,
) -> VocabularyRequest | None:
    """Returns the vocabulary that an adapter brings, on which training goes on: its tokenizer, and its trained rows.

    Args:
        folder: The adapter.
        bound: The recipe.
        files: The base model.
        backend: The backend of the base model's tokenizer.
        base: That tokenizer.
        beside: What `other_tokenizer` gave.
        template: The recipe's chat template, or None.

    Returns:
        It, or None where it is the base model's, or the recipe makes another of that.

    Raises:
        RecipeError: The recipe changes a vocabulary that the adapter brings, or says how to train rows that it lacks.
        ModelError: Ids of the base model's tokenizer mean something else in the adapter's, or it has rows of ids that
            no tokenizer has.
        FolderError: What it says of its rows is damaged.
    """
    where = bound.document.where
    tokenizer, registered = base, backend
    if beside and beside.tokenizer.fingerprint != base.fingerprint:
        if moved := first_moved_id(base, beside.tokenizer):
            raise ModelError(
                f"the adapter in {folder.path} was trained with another tokenizer than the base model's: {moved}",
                where=where(("adapter", "from")),
                hint="Name the base model that it was trained on.",
            )
        tokenizer, registered = carrying(template, beside.tokenizer), beside.registered
    change = change_of_folder(folder, embedding_rows(files))
    section = bound.recipe.tokenizer
    if section and section.changes_vocabulary:
        if change or tokenizer.vocab_size > base.vocab_size:
            _refuse_second_vocabulary(folder, bound, tokenizer, change)
        return None
    if section and not change:
        raise RecipeError(
            f"tokenizer: the adapter in {folder.path} has no rows of new tokens that could be trained so",
            where=where(("tokenizer",)),
            hint="Leave the section out, or say one of extend, train and replace.",
        )
    if change and beside is None and change.ids[-1] >= tokenizer.vocab_size:
        raise ModelError(
            f"the adapter in {folder.path} has trained rows of tokens up to the id {change.ids[-1]:,}, and the base "
            f"model's tokenizer has {tokenizer.vocab_size:,} ids",
            where=where(("adapter", "from")),
            hint="Put the tokenizer that it was trained with into its folder: tokenizer.json and what belongs to it.",
        )
    if change is None and tokenizer is base:
        return None
    check_rows_fit(folder, files, tokenizer, change)
    return VocabularyRequest(None, registered, None, tokenizer, change=change)


def _refuse_second_vocabulary(
    folder: AdapterFolder, bound: BoundRecipe, tokenizer: Tokenizer, change: VocabularyChange | None
) -> NoReturn:
    rows = f" and {len(change.ids):,} trained rows" if change else ""
    raise RecipeError(
        f"tokenizer: the recipe changes the vocabulary, and the adapter in {folder.path} brings one of its own, of "
        f"{tokenizer.vocab_size:,} ids{rows}",
        where=bound.document.where(("tokenizer",)),
        hint="Leave extend, train and replace out. Or export the adapter first (toolkit export ADAPTER --to merged), "
        "and change that model's vocabulary.",
    )


def told_of_origin(
    folder: AdapterFolder,
    bound: BoundRecipe,
    files: BaseModelFiles,
    base: Tokenizer,
    beside: FoundTokenizer | None,
    brought: VocabularyRequest | None,
) -> list[str]:
    """Returns what the user should know of an adapter that training goes on with.

    Args:
        folder: The adapter.
        bound: The recipe.
        files: The base model.
        base: Its tokenizer.
        beside: What `other_tokenizer` gave.
        brought: The vocabulary that the adapter brings, if any.
    """
    found = [f"training goes on with the adapter in {folder.path}"]
    if brought and brought.replacement:
        if brought.replacement.fingerprint != base.fingerprint:
            found.append(told_of_tokenizer(base, brought.replacement, brought.change))
        if brought.change:
            rate = (bound.recipe.tokenizer or TokenizerSection()).embedding_learning_rate
            found.append(
                f"its {len(brought.change.ids):,} trained rows of {', '.join(sorted(folder.rows))} are trained on, at "
                f"tokenizer.embedding_learning_rate, {rate:.1e}"
            )
        found += check_rows_fit(folder, files, brought.replacement, brought.change)
    in_use = brought.replacement if brought and brought.replacement else base
    if bound.objective_config.lays_out and _other_template(folder, beside, in_use):
        found.append(
            "the adapter was trained with another chat template than conversations are laid out by now; "
            "data.chat_template says which"
        )
    if folder.manifest is None:
        return found
    own = folder.manifest.head
    if own is not None and own.kind == "embedding":
        made = own.pooled_by, own.prompts or {}
        if made != (files.config.get(EMBEDDING_POOLING), files.config.get(EMBEDDING_PROMPTS) or {}):
            found.append(
                "the adapter was trained with vectors that are made otherwise: objective.pooling was "
                f"{own.pooled_by}, and put before texts was {made[1] or 'nothing'!s:.200}"
            )
    trained, now = folder.manifest.quantizer, bound.quantizer.facts()
    if (trained.get("name"), trained.get("config")) != (now["name"], now["config"]):
        found.append(
            f"the adapter was trained on weights stored by {trained.get('name')!s:.40}; "
            f"{now['name']} gives others: it computes something a little else on them"
        )
    return found


def _other_template(folder: AdapterFolder, beside: FoundTokenizer | None, in_use: Tokenizer) -> bool:
    """Tells whether an adapter was trained with another chat template, as far as its folder says with which."""
    if folder.manifest:
        return folder.manifest.chat_template != template_hash(in_use)
    own = beside.tokenizer.chat_template if beside else None
    return own is not None and own != in_use.chat_template


def check_targets(plan: RunPlan, targets: list[str], planned: ModelPlan) -> None:
    """Makes sure that the layers which are adapted are those that the adapter has tensors for.

    Raises:
        RecipeError: The recipe names others.
        ModelError, FolderError: The adapter does not fit the model.
    """
    from graftkit.flow.planning.check_adapter import check_layers

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
