"""Parameters that are trained as wholes beside an adapter, in the place of the base model's: PEFT's `modules_to_save`.

They are float32 whatever the model computes in, as an adapter's are, so that small steps add up; their module computes
with them in its own type. Where the base model ties output layer and embedding, a whole one of the two is a matrix of
its own, as in PEFT, unless both are whole and stay tied (`ensure_weight_tying`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from functools import partial
from typing import Any

import torch
from torch import nn

__all__ = ["outer_names", "put_whole", "whole_parameters"]


_WITNESS = "computes_in"
"""A buffer of the type that a module computes in: what makes a model compute in another one changes it with others."""

_Substituted = tuple[nn.Module, ...]
"""Modules that compute with copies of their own parameters, in the type of the computation."""


def outer_names(network: Any) -> tuple[str, str] | None:
    """Returns the names of the weights of a model's embedding and its output layer; None where it has no output layer.

    Args:
        network: A transformers model; its weights may be on the meta device.
    """
    embedding, head = network.get_input_embeddings(), network.get_output_embeddings()
    if embedding is None or head is None:
        return None
    names = {id(module): path for path, module in network.named_modules()}
    return f"{names[id(embedding)]}.weight", f"{names[id(head)]}.weight"


@torch.no_grad()
def put_whole(network: Any, names: Collection[str], *, tied: bool) -> bool:
    """Gives a model trainable parameters of its own in the place of the base model's, with the same numbers, float32.

    Args:
        network: The model, its weights loaded; it is changed.
        names: The parameters.
        tied: Whether embedding and output layer stay one matrix where both are named and the base model ties them.

    Returns:
        Whether that unties the two.
    """
    if not names:
        return False
    outer = outer_names(network)
    one = outer is not None and network.get_parameter(outer[0]) is network.get_parameter(outer[1])
    shared = outer if one and tied and outer is not None and set(outer) <= set(names) else ()
    owners: dict[str, nn.Module] = {}
    for name in names:
        path, _, key = name.rpartition(".")
        owner = network.get_submodule(path)
        old = owner.get_parameter(key)
        if old.dtype != torch.float32:
            owner.register_buffer(_WITNESS, torch.zeros(1, dtype=old.dtype, device=old.device), persistent=False)
            owners[path] = owner
        if name not in shared[1:]:
            setattr(owner, key, nn.Parameter(old.detach().to(torch.float32, copy=True)))
    if shared:
        network.get_output_embeddings().weight = network.get_input_embeddings().weight
    _compute_with_copies(network, owners)
    unties = one and not shared and outer is not None and not set(outer).isdisjoint(names)
    if unties:
        network.config.get_text_config().tie_word_embeddings = False
    return unties


def whole_parameters(network: nn.Module, names: Iterable[str]) -> dict[str, nn.Parameter]:
    """Returns parameters by their names; one that two names share, under the first."""
    found: dict[int, tuple[str, nn.Parameter]] = {}
    for name in names:
        parameter = network.get_parameter(name)
        found.setdefault(id(parameter), (name, parameter))
    return dict(found.values())


def _compute_with_copies(network: Any, owners: Mapping[str, nn.Module]) -> None:
    """Has modules compute with copies of their own parameters, which are float32, in the type of the computation.

    Inside a block the module around one does so, too: some read a parameter rather than call its module, such as
    Mamba's of its convolution.

    Args:
        network: The model.
        owners: The modules, by their dotted paths.
    """
    found: dict[str, _Substituted] = {}
    for path, owner in owners.items():
        found[path] = (*found.get(path, ()), owner)
        around = path.rpartition(".")[0]
        if any(part.isdigit() for part in around.split(".")):
            found[around] = (*found.get(around, ()), owner)
    for path, substituted in found.items():
        module: Any = network.get_submodule(path)
        plain = type(module).forward is nn.Embedding.forward
        module.forward = partial(_looked_up, module) if plain else partial(_computed, module, substituted)


def _looked_up(module: nn.Embedding, ids: torch.Tensor) -> torch.Tensor:
    """Looks rows up in float32, and gives them in the type of the computation: no other copy of the matrix is made."""
    rows: torch.Tensor = nn.Embedding.forward(module, ids)
    return rows.to(module.get_buffer(_WITNESS).dtype)


def _computed(module: nn.Module, substituted: _Substituted, *args: Any, **keywords: Any) -> Any:
    """Computes with copies of parameters in the type of the computation, through which gradients go.

    What a linear layer is given is of that type, too: Mamba's body gives its output layer what its weight is of.
    """
    if isinstance(module, nn.Linear):
        args = tuple(each.to(module.get_buffer(_WITNESS).dtype) for each in args)
    kept = [(each._parameters, dict(each._parameters), each.get_buffer(_WITNESS).dtype) for each in substituted]
    try:
        for own, parameters, dtype in kept:
            copies: dict[str, Any] = {name: each.to(dtype) for name, each in parameters.items() if each is not None}
            own.update(copies)
        return type(module).forward(module, *args, **keywords)
    finally:
        for own, parameters, _ in kept:
            own.update(parameters)
