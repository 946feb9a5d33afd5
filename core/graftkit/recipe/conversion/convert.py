"""A recipe of what a file tells Axolotl, LLaMA-Factory, TRL, mlx-lm or ms-swift.

What their keys mean is read from their own documentation and argument classes. A key is converted where the recipe has
one of the same meaning, or one whose difference can be said in a sentence; every other key that is set is named with
the reason. What the file leaves out is graftkit's own choice, not the other program's default.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from graftkit.errors import RecipeError
from graftkit.recipe.conversion.data import converted_data
from graftkit.recipe.conversion.draft import Draft, Program, program_of, split_at_commas
from graftkit.recipe.conversion.evaluation import convert_evaluation, measure_nothing
from graftkit.recipe.conversion.method import convert_adapter, convert_method, convert_whole_modules
from graftkit.recipe.conversion.mlx_lm import rename_mlx_lm
from graftkit.recipe.conversion.ms_swift import rename_ms_swift
from graftkit.recipe.conversion.objective import convert_objective
from graftkit.recipe.conversion.rate import convert_optimizer, convert_rate
from graftkit.recipe.conversion.steps import (
    convert_batch,
    convert_duration,
    convert_length,
    convert_memory,
    convert_precision,
)
from graftkit.recipe.conversion.tracking import convert_tracking
from graftkit.recipe.conversion.unconverted import changes_nothing, why_not

__all__ = ["Conversion", "convert"]


@dataclass(frozen=True, slots=True)
class Conversion:
    """What became of another program's file.

    Attributes:
        program: Whose it is.
        recipe: The recipe's sections.
        told: Where a key's meaning differs, and what was chosen.
        left: Keys that are not converted -> why.
        without_effect: Keys that change nothing of what is learnt.
        examples_per_step: How many examples an optimizer step has, where the file counts examples; the recipe's
            `training.tokens_per_step`, which counts tokens, is left out then.
        an_epoch: Keys of the recipe that count steps, such as `evaluation.every`, where the file says how often an
            epoch: which of its keys does, and how often. They are left out of the recipe then.
    """

    program: Program
    recipe: Mapping[str, Any]
    told: Sequence[str]
    left: Mapping[str, str]
    without_effect: Sequence[str]
    examples_per_step: int | None
    an_epoch: Mapping[str, tuple[str, int]]


def convert(
    settings: Mapping[str, Any],
    data_sets: Mapping[str, Any] | None = None,
    *,
    is_there: Callable[[str], bool] = lambda path: False,
) -> Conversion:
    """Makes a recipe of another program's settings.

    Args:
        settings: What its file says.
        data_sets: What LLaMA-Factory's dataset_info.json says.
        is_there: Whether a path leads to something; other names of data sets are looked for on the hub.

    Raises:
        RecipeError: The settings are of no program that is known, or name no model or no records.

    Example:
        >>> found = convert({"base_model": "org/model", "datasets": [{"path": "org/data"}], "learning_rate": 2e-4})
        >>> found.recipe["training"]
        {'learning_rate': 0.0002}
    """
    program = program_of(settings)
    if program is None:
        raise RecipeError(
            "these are no settings of Axolotl (base_model), LLaMA-Factory or TRL (model_name_or_path), mlx-lm or "
            "ms-swift (model)",
            hint="toolkit init --model MODEL --train FILE writes a recipe from a model and records.",
        )
    draft = Draft(program, dict(settings))
    if draft.program in _RENAMES:
        _RENAMES[draft.program](draft)
    for part in _PARTS:
        part(draft)
    draft.recipe["data"] = converted_data(draft, data_sets or {}, is_there) | draft.recipe.get("data", {})
    if draft.recipe["data"].get("holdout") == 0:
        measure_nothing(draft)
    without_effect = {name: draft.take(name) for name in sorted(draft.settings) if changes_nothing(name)}
    for name in list(draft.settings):
        draft.leave(name, draft.take(name), why_not(name))
    return Conversion(
        draft.program,
        {name: draft.recipe[name] for name in _ORDER if name in draft.recipe},
        draft.told,
        draft.left,
        [name for name, value in without_effect.items() if value is not None],
        draft.examples_per_step,
        draft.an_epoch,
    )


def _model(draft: Draft) -> None:
    model = draft.take("base_model", "model_name_or_path")
    if not isinstance(model, str):
        raise RecipeError(f"the settings of {draft.program} name no model")
    draft.put("model", model)


def _words(draft: Draft) -> None:
    added = draft.take("tokens", "added_tokens", "add_tokens", "new_special_tokens", "add_special_tokens")
    words = split_at_commas(added) if isinstance(added, str) else added
    if isinstance(words, list) and all(isinstance(word, str) for word in words):
        draft.put("tokenizer", {"extend": {"tokens": 0, "words": words}})
    else:
        draft.leave("tokens", added, "tokenizer.extend.words takes a list of texts")
    special = draft.take("special_tokens")
    if isinstance(special, dict):
        special = {name: text for name, text in special.items() if name != "pad_token"}  # nothing is padded
    draft.leave("special_tokens", special, "the base's own special tokens stay")


def _template(draft: Draft) -> None:
    """Converts what the chat template is given. Thinking is on where nothing is said, there and in templates."""
    given = draft.take("chat_template_kwargs")
    arguments = dict(given) if isinstance(given, dict) and all(isinstance(name, str) for name in given) else {}
    if not arguments:
        draft.leave("chat_template_kwargs", given, "data.template_arguments is a mapping of names to values")
    if draft.is_off("enable_thinking"):
        arguments["enable_thinking"] = False
    draft.take("enable_thinking")
    if arguments:
        draft.put("data.template_arguments", arguments)
        draft.told.append(
            f"data.template_arguments says {', '.join(arguments)}: leave out what the model's chat template has not"
        )


def _learnt(draft: Draft) -> None:
    """Tells of a key that is on where nothing is said."""
    if draft.is_off("completion_only_loss"):
        draft.take("completion_only_loss")
        draft.left["completion_only_loss"] = "of prompts and completions only the completions are learnt"


def _plugins(draft: Draft) -> None:
    """Names the plugins that do more than to compute the same with other kernels."""
    said = draft.take("plugins")
    named = said if isinstance(said, list) else [said]
    others = [name for name in named if name is not None and not str(name).endswith(_KERNELS)]
    draft.leave("plugins", others, "plugins of graftkit are installed packages")


def _export(draft: Draft) -> None:
    whole, on_mlx = draft.recipe["adapter"]["use"] == "full", draft.program == "mlx-lm"
    draft.put("export", [("mlx" if whole else "mlx-lora") if on_mlx else "merged" if whole else "peft"])


_PARTS: Sequence[Callable[[Draft], None]] = (
    _model,
    convert_method,
    convert_adapter,
    convert_length,
    convert_duration,
    convert_batch,
    convert_rate,
    convert_optimizer,
    convert_precision,
    convert_memory,
    convert_evaluation,
    convert_objective,
    _words,
    convert_whole_modules,
    convert_tracking,
    _template,
    _learnt,
    _plugins,
    _export,
)

_KERNELS = ("LigerPlugin", "CutCrossEntropyPlugin")

_RENAMES: Mapping[Program, Callable[[Draft], None]] = {"mlx-lm": rename_mlx_lm, "ms-swift": rename_ms_swift}

_ORDER = (
    "model",
    "tokenizer",
    "data",
    "quantizer",
    "adapter",
    "objective",
    "training",
    "memory",
    "evaluation",
    "export",
    "plugins",
)
