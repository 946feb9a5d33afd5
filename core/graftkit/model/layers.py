"""The linear layers of a model: what is frozen, quantized and adapted."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from typing import Any

import torch
from torch import nn
from torch.nn.functional import linear

from graftkit.interfaces.layer import LayerInfo
from graftkit.model.parts import is_text
from graftkit.model.row_scale import row_scale
from graftkit.model.source_code import class_definition

__all__ = ["embedding_layer", "linear_layers", "output_layer"]

_IN_A_BLOCK = re.compile(r"(^|\.)\d+\.")
_ROUTERS = re.compile(r"router|top_?k|gating", re.IGNORECASE)
"""Classes that choose between experts."""
_GATES = re.compile(r"gate$|router")
"""Names of layers that do, beside the experts themselves."""


def linear_layers(model: nn.Module) -> list[LayerInfo]:
    """Returns the linear layers inside the repeated blocks of a transformers model, in the model's order.

    The embedding and the output layer (`output_layer`) lie outside the blocks and are not among them. Neither is what
    chooses between experts: a score that is a little off sends a token somewhere else. Nor are layers whose matrix the
    architecture multiplies by itself, as state-space models do: what is put on them would not be computed.
    Nor are those that share their matrix with another layer, nor the towers of a multimodal model.

    Args:
        model: The model as transformers builds it; its weights may be on the meta device.
    """
    excluded = {*_routers(model), *_read_past_the_layer(model), *_shared(model)}
    outside = {id(_output_layer(model))}
    text = is_text(model)
    return [
        info
        for path, module in model.named_modules()
        if _IN_A_BLOCK.search(path) and text(path) and id(module) not in outside and not _below(path, excluded)
        for info in [_described(path, module)]
        if info is not None
    ]


def output_layer(model: nn.Module) -> LayerInfo | None:
    """Returns the layer that makes the logits, or None where it is no linear layer, or read past by the code around it.

    Args:
        model: As for `linear_layers`.
    """
    head = _output_layer(model)
    found = next((path for path, module in model.named_modules() if module is head), None) if head else None
    if head is None or found is None or found in _read_past_the_layer(model):
        return None
    return _described(found, head)


def embedding_layer(model: Any) -> LayerInfo | None:
    """Returns the layer that looks the tokens' rows up, or None where it does more than that and scaling them.

    Args:
        model: As for `linear_layers`.
    """
    own = model.get_input_embeddings() if hasattr(model, "get_input_embeddings") else None
    found = next((path for path, module in model.named_modules() if module is own), None)
    if own is None or found is None or row_scale(own, torch.float32) is None or found in _read_past_the_layer(model):
        return None
    return LayerInfo(found, "embedding", own.embedding_dim, own.num_embeddings)


def _output_layer(model: Any) -> nn.Module | None:
    found: nn.Module | None = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    return found


def _routers(model: nn.Module) -> Iterator[str]:
    """Yields the path of every module that chooses between experts."""
    for path, module in model.named_modules():
        if _ROUTERS.search(type(module).__name__):
            yield path
        children = dict(module.named_children())
        if "experts" in children:
            yield from (f"{path}.{name}" for name in children if _GATES.search(name))


def _read_past_the_layer(model: nn.Module) -> Iterator[str]:
    """Yields the path of every layer whose weight the code around it takes and multiplies by itself."""
    for path, module in model.named_modules():
        names = _weights_read_in(type(module).__module__, type(module).__name__)
        yield from (f"{path}.{name}" for name in names if name in module._modules)


@cache
def _weights_read_in(module: str, name: str) -> set[str]:
    """Returns the layers whose `weight` a class of one of transformers' architectures reads itself."""
    definition = class_definition(module, name)
    return _WeightReads.of(definition) if definition else set()


class _WeightReads(ast.NodeVisitor):
    """Collects the names in `self.NAME.weight`, but not what is only asked for its type or its device."""

    def __init__(self) -> None:
        self.found: set[str] = set()

    @classmethod
    def of(cls, node: ast.ClassDef) -> set[str]:
        """Returns the names in a class."""
        reads = cls()
        reads.visit(node)
        return reads.found

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        if "init" not in node.name:
            self.generic_visit(node)

    def visit_If(self, node: ast.If) -> None:
        taken = node.orelse if "slow_but_exact" in ast.unparse(node.test) else [*node.body, *node.orelse]
        for part in taken:
            self.visit(part)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        if node.attr in ("dtype", "device"):
            return
        owner = node.value
        if node.attr == "weight" and isinstance(owner, ast.Attribute) and isinstance(owner.value, ast.Name):
            self.found.add(owner.attr)
        self.generic_visit(node)


def _shared(model: nn.Module) -> Iterator[str]:
    """Yields the path of every layer whose weight another one has, too."""
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    modules = {id(module): path for path, module in model.named_modules()}
    for shared in names.values():
        owners = {id(model.get_submodule(name.rpartition(".")[0])) for name in shared}
        if len(owners) > 1:
            yield from (modules[owner] for owner in owners)


def _below(path: str, roots: set[str]) -> bool:
    parts = path.split(".")
    return any(".".join(parts[:end]) in roots for end in range(1, len(parts) + 1))


def _described(path: str, module: nn.Module) -> LayerInfo | None:
    from transformers.pytorch_utils import Conv1D

    if isinstance(module, nn.Linear) and _computes_as_linear(type(module)):
        return LayerInfo(path, "linear", module.out_features, module.in_features, module.bias is not None)
    if type(module) is Conv1D:
        size_in, size_out = module.get_parameter("weight").shape
        return LayerInfo(path, "conv1d", size_out, size_in, bias=True)
    return None


def _computes_as_linear(kind: type[nn.Linear]) -> bool:
    """Tells whether a class of layers computes `x W^T + b`, whatever else it is."""
    if kind.forward is nn.Linear.forward:
        return True
    try:
        layer, x = kind(3, 2, bias=True), torch.eye(3)
        with torch.no_grad():
            y = layer(x)
            return isinstance(y, torch.Tensor) and torch.allclose(y, linear(x, layer.weight, layer.bias))
    except Exception:
        return False
