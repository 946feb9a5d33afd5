"""What a base model's files hold of its architecture: settled from names and shapes, before a weight is read."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from graftkit.errors import ModelError
from graftkit.interfaces.architecture import head_of
from graftkit.interfaces.counts import count_weights
from graftkit.interfaces.layer import LayerInfo
from graftkit.interfaces.model_source import INTEGERS, PLAIN, BaseModelFiles
from graftkit.model.experts import StackInfo, compute_one_by_one, expert_stacks
from graftkit.model.head import head_modules, head_parameters, is_of_head
from graftkit.model.layers import linear_layers
from graftkit.model.outer_layers import outer_layers
from graftkit.model.skeleton import build_skeleton, leave_out_pooler
from graftkit.model.weight_names import PlannedWeight, WeightPlan, plan_weights
from graftkit.visible import first_of

__all__ = ["ModelPlan", "check_base_model", "plan_base_model"]

_MOST_NEEDLESS = 1 << 28
"""Numbers of tensors without use that a file may hold in any case: the masks of small models are larger than these."""


def check_base_model(files: BaseModelFiles) -> list[LayerInfo]:
    """Makes sure, from names and shapes alone, that the files' weights are those of an architecture that can be loaded.

    Returns:
        The layers that an adapter can go on.

    Raises:
        ModelError: A tensor is missing, left over or of another shape, or the architecture is not supported.
    """
    return plan_base_model(files).layers


def plan_base_model(files: BaseModelFiles, dtype: torch.dtype = torch.float32) -> ModelPlan:
    """Returns what the model will be made of, its layers and stacks of experts known.

    Args:
        files: The opened base model.
        dtype: What the model computes in, which nothing but loading it depends on.

    Raises:
        ModelError: As for `check_base_model`.
    """
    skeleton: Any = build_skeleton(files.config, files.reference, dtype, len(files.tensors))
    leave_out_pooler(skeleton, files)
    head = head_modules(skeleton)
    layers = [layer for layer in linear_layers(skeleton) if not is_of_head(layer.path, head)]
    outer = outer_layers(skeleton)
    stacks = expert_stacks(skeleton, files.config, count_weights(files.tensors))
    if stacks:
        compute_one_by_one(skeleton)
    weights = plan_weights(skeleton, files.tensors, files.reference)
    headed = head_of(files.config) != "language"
    plan = ModelPlan(
        files,
        dtype,
        skeleton,
        weights,
        _names_by_tensor(skeleton),
        {f"{layer.path}.weight": layer for layer in layers},
        {stack.path: stack for stack in stacks},
        outer,
        head,
        new=[name for name in head_parameters(skeleton, head) if name not in weights.shapes],
        unused=[name for name in weights.left_over if headed and not _is_of_body(skeleton, name)],
    )
    _check_names(plan)
    _check_needless(plan)
    _check_shapes(plan)
    _check_types(plan)
    return _with_stored_sizes(plan)


@dataclass(frozen=True, slots=True)
class ModelPlan:
    """The model without its weights, and which of the files' tensors those will be made of.

    Attributes:
        files: The opened base model.
        dtype: What the model computes in.
        skeleton: The transformers model, whose weights are on the meta device until they are read.
        tensors: What becomes of each of the files' tensors.
        names: For each of the model's tensors the names of the same tensor: one, or several where weights are tied.
        linear: The linear layers that are frozen and can be adapted, by the names of their weights.
        experts: The stacks of experts that are frozen and can be adapted, each matrix by itself, by their names.
        outer: The embedding and the output layer, as far as they can be adapted; they are never quantized.
        head: The modules of a head that gives scores, which are no layers of these, and float32; else none.
        new: Its parameters that the files lack: they are zeros until somebody draws them.
        unused: The files' tensors that a model with such a head has no use for.
    """

    files: BaseModelFiles
    dtype: torch.dtype
    skeleton: Any
    tensors: WeightPlan
    names: Mapping[str, tuple[str, ...]]
    linear: Mapping[str, LayerInfo]
    experts: Mapping[str, StackInfo]
    outer: list[LayerInfo]
    head: list[str]
    new: list[str]
    unused: list[str]

    @property
    def layers(self) -> list[LayerInfo]:
        """The linear layers that are frozen and can be adapted."""
        return list(self.linear.values())

    @property
    def stacks(self) -> list[StackInfo]:
        """The experts that are frozen and can be adapted, each matrix by itself."""
        return list(self.experts.values())

    @property
    def dense_experts(self) -> list[str]:
        """The experts' tensors that stay as they are, since the architecture's code does not take them one by one."""
        named = self.skeleton.named_parameters()
        return [name for name, p in named if p.ndim == 3 and ".experts." in name and name not in self.experts]

    def quantized_in_files(self) -> dict[str, str]:
        """Returns the layers, and stacks of experts, whose weights the files hold quantized, with their stored type."""
        targets = {layer.path: target for target, layer in self.linear.items()}
        targets |= {path: path for path in self.experts}
        stored = {
            path: [self.files.tensors[name].dtype for name in self.tensors.makers[target].sources]
            for path, target in targets.items()
        }
        return {path: dtypes[0] for path, dtypes in stored.items() if not PLAIN.issuperset(dtypes)}

    def layers_of(self, target: str) -> list[LayerInfo]:
        """Returns the layers whose weights one of the model's tensors holds; none where it is of no such layer."""
        if target in self.linear:
            return [self.linear[target]]
        return self.experts[target].layers() if target in self.experts else []

    def adoptable(self, weight: PlannedWeight) -> list[LayerInfo]:
        """Returns the layers whose weights the file has as they are, which a quantizer may take over."""
        if weight.operation is not None:
            return []
        layer, stack = self.linear.get(weight.target), self.experts.get(weight.target)
        if layer is not None and layer.kind == "linear":
            return [layer]
        return stack.layers() if stack and all(self.files.tensors[name].by_matrix for name in weight.sources) else []


def _names_by_tensor(model: nn.Module) -> dict[str, tuple[str, ...]]:
    """Returns for each tensor of a model the names of the same tensor: one, or several where weights are tied."""
    own = {name: id(tensor) for name, tensor in model.state_dict(keep_vars=True).items()}
    shared: dict[int, list[str]] = {}
    for name, tensor in own.items():
        shared.setdefault(tensor, []).append(name)
    return {name: tuple(shared[tensor]) for name, tensor in own.items()}


def _is_of_body(model: Any, name: str) -> bool:
    """Tells whether a tensor's name is one of the body's, but for a pooler, which not all models have."""
    prefix = f"{model.base_model_prefix}."
    return name.startswith(prefix) and not name.removeprefix(prefix).startswith("pooler.")


def _check_names(plan: ModelPlan) -> None:
    """Refuses files that lack a tensor, or hold one that nobody knows."""
    there = {*plan.tensors.shapes, *plan.tensors.optional, *plan.new}
    missing = [names[0] for names in set(plan.names.values()) if there.isdisjoint(names)]
    left_over = [name for name in plan.tensors.left_over if name not in plan.unused]
    for problem, odd in (("lacks", missing), ("has, unknown to the architecture,", left_over)):
        if odd:
            raise ModelError(
                f"it {problem} {len(odd)} tensors: {first_of(sorted(odd))}",
                where=plan.files.reference,
                hint="The weights and config.json do not belong together, or the files are incomplete.",
            )


def _check_needless(plan: ModelPlan) -> None:
    """Refuses a file most of which is of no use: it would be read to its end, for its hash, and may be endless."""
    needless = {*plan.tensors.ignored, *plan.unused}
    counts = {name: math.prod(info.shape) for name, info in plan.files.tensors.items()}
    count = sum(counts[name] for name in needless)
    if count > max(_MOST_NEEDLESS, sum(counts.values()) - count):
        raise ModelError(
            f"most of it is of no use to the architecture, such as {max(needless, key=lambda name: counts[name])}",
            where=plan.files.reference,
            hint="The weights and config.json do not belong together.",
        )


def _check_shapes(plan: ModelPlan) -> None:
    """Refuses tensors of other shapes than the model's."""
    own = plan.skeleton.state_dict()
    for name, shape in plan.tensors.shapes.items():
        if tuple(own[name].shape) != shape and is_of_head(name, plan.head):
            raise ModelError(
                f"it has a head of its own, whose '{name}' has shape {list(shape)}, where this run's has "
                f"{list(own[name].shape)}",
                where=plan.files.reference,
                hint="It was trained for other labels: give the model that it was made of, or name its labels.",
            )
        if tuple(own[name].shape) != shape:
            raise ModelError(
                f"tensor '{name}' has shape {list(shape)}; config.json says {list(own[name].shape)}",
                where=plan.files.reference,
            )


def _check_types(plan: ModelPlan) -> None:
    """Refuses integers where the architecture has weights."""
    parameters = dict(plan.skeleton.named_parameters(remove_duplicate=False))
    for weight in plan.tensors.weights:
        for name in weight.sources:
            info = plan.files.tensors[name]
            if info.dtype in INTEGERS and weight.target in parameters:
                raise ModelError(
                    f"tensor '{name}' is of type {info.dtype}: the weights are already quantized",
                    where=plan.files.reference,
                    hint="Give the unquantized model.",
                )


def _with_stored_sizes(plan: ModelPlan) -> ModelPlan:
    """Has each layer whose weight a quantizer may take over know how many bytes the file stores it in."""
    linear, experts = dict(plan.linear), dict(plan.experts)
    for weight in plan.tensors.weights:
        size = plan.files.tensors[next(iter(weight.sources))].given_bytes if plan.adoptable(weight) else None
        if size is None:
            continue
        if weight.target in linear:
            linear[weight.target] = replace(linear[weight.target], file_bytes=size)
        else:
            stack = experts[weight.target]
            experts[weight.target] = replace(stack, file_bytes=size // stack.experts)
    return replace(plan, linear=linear, experts=experts)
