"""A memory forecast from a recipe and a config.json: no weights, no tokenizer, no records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from graftkit.errors import ModelError
from graftkit.flow.base_files.own_head import refuse_head
from graftkit.flow.memory.fit_memory import MemoryLimits
from graftkit.flow.memory.forecast_memory import (
    MemoryRequest,
    Sizes,
    TeacherModel,
    forecast_memory,
    request_of,
    teacher_model,
)
from graftkit.flow.planning.head import config_of_objective, own_labels
from graftkit.flow.planning.settle_memory import available, settle_memory
from graftkit.flow.planning.targets import chosen_targets
from graftkit.flow.planning.unsettled import DTYPE, settled_recipe, unsettled
from graftkit.flow.preparation.settle_dtype import faster_dtype
from graftkit.host.host import PluginHost
from graftkit.interfaces.architecture import with_head
from graftkit.interfaces.counts import check_layers
from graftkit.interfaces.json_file import read_json_object, special_float
from graftkit.interfaces.model_source import TensorInfo
from graftkit.interfaces.objective_config import SampledConfig, TeacherConfig
from graftkit.interfaces.regular_file import MOST_BYTES
from graftkit.model.activation_checkpointing import why_no_checkpointing
from graftkit.model.model_plan import ModelPlan, plan_base_model
from graftkit.model.packing import Packing, choose_packing
from graftkit.model.skeleton import build_skeleton
from graftkit.recipe.bind import BoundRecipe
from graftkit.recipe.schema.recipe import Recipe
from graftkit.report.run_manifest import MemoryForecast, SettledKey

__all__ = ["ConfigModel", "device_of", "request_from_config", "settle_from_config"]

_ASSUMED_LABELS = ("LABEL_0", "LABEL_1")
_STORED = {"bfloat16": "BF16", "float16": "F16"}


@dataclass(frozen=True)
class ConfigModel:
    """A base model of which the configuration alone is known.

    Attributes:
        reference: What the recipe said.
        config: Its config.json.
    """

    reference: str
    config: Mapping[str, Any]

    @classmethod
    def read(cls, reference: str, key: str = "model") -> ConfigModel:
        """Reads a config.json.

        Args:
            reference: The file, or the folder that it lies in.
            key: The recipe's key that names it, for errors.

        Raises:
            ModelError: There is none, or it is damaged.
        """
        path = Path(reference)
        path = path / "config.json" if path.is_dir() else path
        missing = f"`{key}` names its folder, or the file itself."
        config = read_json_object(path, MOST_BYTES, ModelError, missing=missing, object_hook=special_float)
        if not isinstance(config.get("model_type"), str):
            raise ModelError("it does not say 'model_type'", where=str(path))
        check_layers(config, str(path))
        return cls(reference, config)

    def for_objective(self, bound: BoundRecipe) -> ConfigModel:
        """Returns the model with the head that a recipe's objective learns by.

        Of labels that neither the recipe nor the configuration lists two are assumed: each takes a row of the head.

        Raises:
            ModelError: The objective trains another kind of model, or no head can be put on this one.
        """
        config = config_of_objective(bound, self)  # type: ignore[arg-type]
        if bound.objective_config.names_labels:
            said = getattr(bound.objective_config, "labels", None) or own_labels(self.config)
            several = bound.objective_config.learns_from == "label_sets"
            config = with_head(config, bound.objective_config.head, said or _ASSUMED_LABELS, several=several)
        return replace(self, config=config)

    @cached_property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """The tensors that the architecture has, in the type that the configuration says, or else float32."""
        stored = _STORED.get(str(self.config.get("dtype") or self.config.get("torch_dtype")), "F32")
        skeleton = build_skeleton(self.config, self.reference)
        return {name: TensorInfo(tuple(p.shape), stored) for name, p in skeleton.named_parameters()}

    @cached_property
    def planned(self) -> ModelPlan:
        """What it will be made of."""
        return plan_base_model(self)  # type: ignore[arg-type]

    @cached_property
    def packing(self) -> Packing:
        """How sequences share a pass."""
        return choose_packing(self.config, self.reference)


def request_from_config(bound: BoundRecipe, host: PluginHost, model: ConfigModel) -> MemoryRequest:
    """Returns what to ask of a recipe whose records are not known: each is as long as the recipe allows, and learnt.

    So are both sequences of an example that has two; where answers are sampled all of it is the prompt.

    Raises:
        TargetError: A target matches no layer.
        ModelError: The architecture can't be built.
    """
    recipe, planned = bound.recipe, model.planned
    targets = chosen_targets(bound, planned.layers, planned.stacks, planned.outer)
    longest, sequences = _record_length(recipe), bound.objective_config.sequences
    length = longest * sequences
    many = max(1, recipe.training.pass_tokens // length, recipe.training.tokens_per_step // length)
    learnt = 0 if isinstance(bound.objective_config, SampledConfig) else length
    sizes = Sizes((length,) * many, (learnt,) * many, longest, sequences=sequences)
    device = device_of(recipe).type
    asked = request_of(bound, host, model.config, model.tensors, model.reference, targets, model.packing, device, sizes)
    return asked.with_teacher(_teacher_model(bound, host))


def _teacher_model(bound: BoundRecipe, host: PluginHost) -> TeacherModel | None:
    """Returns the teacher that a recipe's objective names, by its config.json.

    Raises:
        ModelError: There is none where it says, or it is no language model's.
    """
    said = bound.objective_config
    if not isinstance(said, TeacherConfig):
        return None
    teacher = ConfigModel.read(said.teacher, "objective.teacher")
    refuse_head(teacher.config, teacher.reference, "a teacher is a language model")
    return teacher_model(bound, host, teacher.config, teacher.tensors, teacher.reference, teacher.packing)


def settle_from_config(
    bound: BoundRecipe, host: PluginHost, model: ConfigModel, limits: MemoryLimits | None
) -> Mapping[str, SettledKey]:
    """Returns what the keys come to that say `auto`, in a recipe whose records are not known.

    Args:
        bound: The recipe.
        host: The plugins.
        model: The base model.
        limits: How much memory there is; what is free here when left out.
    """
    found: dict[str, SettledKey] = {}
    device = device_of(bound.recipe)
    if DTYPE in unsettled(bound.recipe):
        found[DTYPE] = faster_dtype(device)
        bound = settled_recipe(bound, found)
    if unsettled(bound.recipe):
        why = why_no_checkpointing(model.config, model.packing)
        here = device.type != "cuda" or torch.cuda.is_available()
        limits = limits or (available(device) if here else MemoryLimits())

        def forecast(values: Mapping[str, Any]) -> MemoryForecast:
            return forecast_memory(request_from_config(bound.with_values(values), host, model))

        longest = _record_length(bound.recipe) * bound.objective_config.sequences
        found |= settle_memory(bound.recipe, longest, forecast, limits, why).keys
    return found


def _record_length(recipe: Recipe) -> int:
    """Returns the tokens that each record is taken to have."""
    passes = recipe.training.microbatch_tokens
    return recipe.data.max_length or (1024 if passes == "auto" else min(1024, passes))


def device_of(recipe: Recipe) -> torch.device:
    """Returns the device that the recipe names; the CPU where it names none."""
    name = recipe.training.device
    return torch.device("cpu" if name == "auto" else name)
