"""Experts that an architecture keeps as one tensor a layer, stored as one frozen weight an expert.

transformers' eager code takes an expert's matrix out of the stack and multiplies by it: `linear(x, self.up[i])`, or
`x @ self.up[i]` where matrices are stored as `[in, out]`. A stack of layers in the parameter's place gives that code an
object instead, whose product is the layer's. Activations, clamps and biases stay the architecture's own. An
architecture that does anything else with a stack keeps it as a parameter, dense and frozen.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from torch import nn

from graftkit.interfaces.layer import LayerInfo
from graftkit.model.parts import is_text
from graftkit.model.source_code import class_definition
from graftkit.model.twin import build_twin

__all__ = ["ExpertStack", "StackInfo", "compute_one_by_one", "expert_stacks", "put_stack"]

_TOLERANCE = 1e-5
"""How far the logits of a small model may be off in float32, as a share of the largest."""


@dataclass(frozen=True, slots=True)
class StackInfo:
    """The matrices of a layer's experts.

    Attributes:
        path: The parameter's dotted path.
        experts: How many there are.
        out_features: Numbers that each gives.
        in_features: Numbers that each takes.
        transposed: Whether they are stored as `[experts, in, out]`, not `[experts, out, in]`.
        file_bytes: As `LayerInfo.file_bytes`, of each matrix.
    """

    path: str
    experts: int
    out_features: int
    in_features: int
    transposed: bool
    file_bytes: int | None = field(default=None, compare=False)

    def layers(self) -> list[LayerInfo]:
        """Returns each expert's matrix as a layer, `[out, in]` whatever the stack holds."""
        sizes = (self.out_features, self.in_features, False, self.file_bytes)
        return [LayerInfo(f"{self.path}.{expert}", "experts", *sizes) for expert in range(self.experts)]


class ExpertStack(nn.ModuleList):
    """One layer an expert, in the place of a parameter `[experts, out, in]`, or `[experts, in, out]`.

    Args:
        layers: Each computes `x W^T`.
        transposed: Whether the architecture stores `[in, out]` and multiplies from the left.
    """

    def __init__(self, layers: Sequence[nn.Module], transposed: bool) -> None:
        super().__init__(layers)
        self.transposed = transposed

    def stacked(self, matrix: Callable[[Any], torch.Tensor]) -> torch.Tensor:
        """Returns the parameter's tensor, made of each layer's `matrix(layer)`, `[out, in]`."""
        return torch.stack([matrix(layer).T if self.transposed else matrix(layer) for layer in self]).contiguous()

    def __getitem__(self, index: Any) -> Any:
        return _ExpertMatrix(super().__getitem__(int(index)), self.transposed)


class _ExpertMatrix:
    """What an architecture's code takes for an expert's matrix; it can do no more than be multiplied by."""

    def __init__(self, layer: nn.Module, transposed: bool) -> None:
        self._layer = layer
        self._transposed = transposed

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        own = args[1] if len(args) > 1 else None
        if isinstance(own, cls) and isinstance(args[0], torch.Tensor):
            if func is nn.functional.linear and not own._transposed:
                bias = args[2] if len(args) > 2 else (kwargs or {}).get("bias")
                y = own._layer(args[0])
                return y if bias is None else y + bias
            if func in (torch.matmul, torch.Tensor.matmul, torch.Tensor.__matmul__) and own._transposed:
                return own._layer(args[0])
        return NotImplemented


def expert_stacks(model: Any, config: Mapping[str, Any], most_weights: int | None = None) -> list[StackInfo]:
    """Returns the stacks that a model's code computes with as told above, found out on a small twin.

    Args:
        model: The model as transformers builds it; its weights may be on the meta device.
        config: Its config.json.
        most_weights: How many weights the twin may have, such as the model's own; None for any number.
    """
    found = _candidates(model)
    return found if found and _computes(json.dumps(config, sort_keys=True, default=str), most_weights) else []


def compute_one_by_one(model: Any) -> None:
    """Has transformers run its eager code for experts, which takes their matrices one by one."""
    model.set_experts_implementation("eager")


def put_stack(model: nn.Module, info: StackInfo, layers: Sequence[nn.Module]) -> None:
    """Puts layers in the place of a parameter.

    Args:
        model: The model.
        info: Which parameter it is, and whether its matrices lie transposed.
        layers: A layer for each expert.
    """
    owner, _, name = info.path.rpartition(".")
    module = model.get_submodule(owner)
    delattr(module, name)
    module.add_module(name, ExpertStack(layers, info.transposed))


def _candidates(model: Any) -> list[StackInfo]:
    text = is_text(model)
    return [
        StackInfo(f"{path}.{name}", experts, *((inner, outer) if transposed else (outer, inner)), transposed)
        for path, module in model.named_modules()
        if text(path)
        for name, transposed in _multiplied_in(type(module).__module__, type(module).__name__).items()
        if isinstance(parameter := module._parameters.get(name), nn.Parameter) and parameter.ndim == 3
        for experts, outer, inner in [parameter.shape]
    ]


@cache
def _computes(config: str, most_weights: int | None) -> bool:
    """Tells whether a small model computes the same with layers in the place of its stacks."""
    try:
        twin = build_twin(json.loads(config), most_weights=most_weights)
        compute_one_by_one(twin)
        ids = torch.arange(3, 35).unsqueeze(0) % twin.get_input_embeddings().weight.shape[0]
        with torch.no_grad():
            expected = twin(input_ids=ids, use_cache=False).logits
            for info in _candidates(twin):
                put_stack(twin, info, [_as_linear(matrix, info) for matrix in twin.get_parameter(info.path)])
            found = twin(input_ids=ids, use_cache=False).logits
    except Exception:
        return False
    return bool((found - expected).abs().max() <= _TOLERANCE * expected.abs().max())


def _as_linear(matrix: torch.Tensor, info: StackInfo) -> nn.Linear:
    layer = nn.Linear(info.in_features, info.out_features, bias=False)
    layer.weight = nn.Parameter(matrix.T if info.transposed else matrix, requires_grad=False)
    return layer


@cache
def _multiplied_in(module: str, name: str) -> Mapping[str, bool]:
    """Returns the stacks that a class multiplies by, expert by expert and in no other way: name -> transposed."""
    definition = class_definition(module, name)
    return _plain_products(definition) if definition else {}


def _plain_products(node: ast.ClassDef) -> dict[str, bool]:
    methods = [m for m in node.body if isinstance(m, ast.FunctionDef) and "init" not in m.name]
    products = [(name, t) for method in methods for name, t in _products(method)]
    reads = [name for method in methods for name in _reads(method)]
    return {name: t for name, t in dict(products).items() if [n for n, _ in products].count(name) == reads.count(name)}


def _products(method: ast.FunctionDef) -> Iterator[tuple[str, bool]]:
    """Yields each `linear(x, self.NAME[i])`, and each `x @ self.NAME[i]`, which is the transposed one."""
    for node in ast.walk(method):
        if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] == "linear" and len(node.args) > 1:
            yield from ((name, False) for name in _stack(node.args[1]))
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.MatMult):
            yield from ((name, True) for name in _stack(node.right))


def _stack(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Subscript):
        yield from _own(node.value)


def _reads(method: ast.FunctionDef) -> Iterator[str]:
    return (name for node in ast.walk(method) for name in _own(node))


def _own(node: ast.AST) -> Iterator[str]:
    """Yields NAME of `self.NAME`."""
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self":
        yield node.attr
