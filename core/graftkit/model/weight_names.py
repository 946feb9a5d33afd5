"""Which tensors of a file become which of the model's: what transformers knows of the names that files have had.

Everything that depends on how transformers describes that is in this file.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch

from graftkit.errors import ModelError
from graftkit.interfaces.model_source import TensorInfo

__all__ = ["PlannedWeight", "WeightPlan", "plan_weights", "published_tensors", "remember_conversions"]

_MASK = re.compile(r"attn\.(attention\.)?(bias|masked_bias|causal_mask)$|attention\.(bias|masked_bias)$")


@dataclass(frozen=True, slots=True)
class PlannedWeight:
    """One or more of the file's tensors, and what the model has instead of them.

    Attributes:
        sources: The file's tensors, each with the part that it has in the operation.
        target: The model's tensor, or the first of several.
        operation: What transformers does with them, or None where a tensor is taken as it is.
    """

    sources: Mapping[str, str]
    target: str
    operation: Any = None

    def make(self, tensors: Mapping[str, torch.Tensor], model: Any) -> dict[str, torch.Tensor]:
        """Returns the model's tensors by name.

        Args:
            tensors: All of `sources` by name.
            model: The model that they are made for.
        """
        if self.operation is None:
            return {self.target: next(iter(tensors.values()))}
        operation = deepcopy(self.operation)
        for name, part in self.sources.items():
            operation.add_tensor(self.target, name, part, lambda tensor=tensors[name]: tensor)
        made = operation.convert(self.target, model=model, config=model.config)
        return {name: value[0] if isinstance(value, list) else value for name, value in made.items()}


@dataclass(frozen=True, slots=True)
class WeightPlan:
    """What becomes of every tensor of a file.

    Attributes:
        weights: What the model's tensors are made of.
        shapes: The shape that each of the model's tensors will have.
        makers: What each of them is made by.
        ignored: The file's tensors that the architecture has no use for, as transformers knows.
        left_over: Those that nobody knows.
        optional: The model's tensors that a file may lack.
        conversions: What transformers says of the file's names and shapes where they are others than the model's.
    """

    weights: tuple[PlannedWeight, ...]
    shapes: Mapping[str, tuple[int, ...]]
    makers: Mapping[str, PlannedWeight]
    ignored: frozenset[str]
    left_over: tuple[str, ...]
    optional: frozenset[str]
    conversions: Sequence[Any]


def plan_weights(model: Any, tensors: Mapping[str, TensorInfo], where: str) -> WeightPlan:
    """Finds out from names and shapes what a file's tensors are to the model; nothing is read.

    Args:
        model: The transformers model, its weights on the meta device.
        tensors: What the file holds.
        where: The model's reference, for errors.

    Raises:
        ModelError: Tensors can't be put together as the architecture needs them.
    """
    weights, unknown, conversions = _sort(model, tensors)
    shapes: dict[str, tuple[int, ...]] = {}
    makers: dict[str, PlannedWeight] = {}
    for weight in weights:
        empty = {name: torch.empty(tensors[name].shape, device="meta") for name in weight.sources}
        try:
            made = weight.make(empty, model)
        except Exception as error:
            raise ModelError(
                f"'{weight.target}' can't be made of {len(empty)} tensors such as {next(iter(empty))}: {error}",
                where=where,
                hint="The weights and config.json do not belong together, or the files are incomplete.",
            ) from error
        shapes |= {name: tuple(tensor.shape) for name, tensor in made.items()}
        makers = dict.fromkeys(made, weight) | makers  # of several, the first that is read
    ignored = frozenset([*_matching(unknown, _needless(model)), *(n for n in unknown if _is_mask(n, tensors[n]))])
    optional = frozenset(_matching(dict(model.named_buffers()), model._keys_to_ignore_on_load_missing or ()))
    left_over = tuple(name for name in unknown if name not in ignored)
    return WeightPlan(tuple(weights), shapes, makers, ignored, left_over, optional, conversions)


def remember_conversions(model: Any, plan: WeightPlan) -> None:
    """Has a model know under which names its files have its tensors, where transformers' own loader keeps that.

    Args:
        model: The transformers model.
        plan: What its files were planned to become.
    """
    model._weight_conversions = list(plan.conversions) or None


def published_tensors(
    model: Any, loaded: Any, tensors: Iterable[tuple[str, torch.Tensor]]
) -> Iterator[tuple[str, torch.Tensor]]:
    """Yields a model's tensors by the names, and in the shapes, that published files of its architecture have.

    They are those of the files that it was loaded from, else transformers' default ones: what `save_pretrained` writes.
    Other programs know no others, such as a tensor of all experts. What is made of several tensors waits until these
    have come.

    Args:
        model: The architecture's skeleton.
        loaded: The model that was loaded, which may have other modules in the place of the architecture's, and what
            `remember_conversions` kept.
        tensors: The model's tensors by the architecture's names. A tensor of another name is yielded as it is.

    Raises:
        ModelError: A tensor is not there that is one with others.
    """
    from transformers.core_model_loading import revert_weight_conversion

    model._weight_conversions = getattr(loaded, "_weight_conversions", None)
    empty = {name: torch.empty_like(tensor, device="meta") for name, tensor in model.state_dict().items()}
    names = {id(tensor): name for name, tensor in revert_weight_conversion(model, empty).items()}
    groups = _made_together(model, [name for name, tensor in empty.items() if id(tensor) not in names])
    waiting: dict[str, torch.Tensor] = {}
    for name, tensor in tensors:
        if name not in groups:
            yield names[id(empty[name])] if name in empty else name, tensor
            continue
        waiting[name] = tensor
        if waiting.keys() >= groups[name]:
            yield from revert_weight_conversion(model, {part: waiting.pop(part) for part in groups[name]}).items()
    if waiting:
        raise ModelError(f"'{next(iter(waiting))}' is stored with other tensors of the model, which are missing")


def _made_together(model: Any, names: Iterable[str]) -> dict[str, frozenset[str]]:
    """Returns for each of a model's tensors those that published files have as one with it, itself among them."""
    from transformers.core_model_loading import WeightConverter, apply_converters

    converters = [one.reverse_transform() for one in reversed(_kept(model)) if isinstance(one, WeightConverter)]
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(apply_converters(name, converters)[0], []).append(name)
    return {name: frozenset(group) for group in groups.values() for name in group}


def _kept(model: Any) -> list[Any]:
    """Returns how a model's tensors differ from those of published files."""
    from transformers.conversion_mapping import get_model_conversion_mapping

    kept: list[Any] | None = model._weight_conversions
    return get_model_conversion_mapping(model, add_legacy=False) if kept is None else kept


def _sort(model: Any, tensors: Iterable[str]) -> tuple[list[PlannedWeight], list[str], list[Any]]:
    """Tells which tensors make which of the model's, which are none of the model's, and by which conversions.

    Names of long ago are read, but no part of the conversions.
    """
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightConverter, WeightRenaming, dot_natural_key, rename_source_key

    transforms = get_model_conversion_mapping(model)
    renamings = [transform for transform in transforms if isinstance(transform, WeightRenaming)]
    converters = [transform for transform in transforms if isinstance(transform, WeightConverter)]
    by_pattern = {pattern: converter for converter in converters for pattern in converter.source_patterns}
    own, prefix = model.state_dict(), model.base_model_prefix
    found: dict[str, tuple[Any, dict[str, str]]] = {}
    unknown = []
    for name in sorted(tensors, key=dot_natural_key):
        target, part = rename_source_key(name, renamings, converters, prefix, own)
        if target not in own and name in own:
            target, part = name, None
        if target not in own:
            unknown.append(name)
        elif part is None:
            found[f"{target} {name}" if target in found else target] = (None, {name: name})
        else:
            found.setdefault(target, (by_pattern[part], {}))[1][name] = part
    weights = [PlannedWeight(sources, key.partition(" ")[0], op) for key, (op, sources) in found.items()]
    current = [_patterns(transform) for transform in get_model_conversion_mapping(model, add_legacy=False)]
    used = [one for one in transforms if one.was_used() and _patterns(one) in current]
    return weights, unknown, used


def _patterns(transform: Any) -> tuple[list[str], list[str]]:
    return list(transform.source_patterns), list(transform.target_patterns)


def _needless(model: Any) -> Iterator[str]:
    """Yields the patterns of what files may hold and the architecture no longer does."""
    yield from model._keys_to_ignore_on_load_unexpected or ()
    yield r"rotary_emb\.inv_freq$"
    yield r"(^|\.)position_ids$"


def _is_mask(name: str, info: TensorInfo) -> bool:
    """Recognizes the causal masks that layers of attention used to keep in their files, and what they masked with."""
    return _MASK.search(name) is not None and (info.shape[:2] == (1, 1) or not info.shape)


def _matching(names: Iterable[str], patterns: Iterable[str]) -> list[str]:
    every = [re.compile(pattern) for pattern in patterns]
    return [name for name in names if any(pattern.search(name) for pattern in every)]
