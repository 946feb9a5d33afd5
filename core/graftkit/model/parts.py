"""Which parts of a multimodal model compute text: the language model and its output layer, no towers or projectors.

Towers are loaded as the file has them and written into merged exports unchanged; text alone does not run them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch

from graftkit.errors import ModelError
from graftkit.interfaces.block_memory import exact_constants

__all__ = ["compute_in_float32", "empty_towers", "is_text", "move_text", "tower_tensors"]


def is_text(model: Any) -> Callable[[str], bool]:
    """Returns what tells of a module's or a tensor's dotted path whether it belongs to what computes text.

    In a model of text alone that is every one. In a multimodal model it is what is built from `text_config`, and the
    output layer.

    Raises:
        ModelError: No part of a multimodal model is built from its `text_config`.
    """
    config = getattr(model, "config", None)
    if config is None or config.get_text_config() is config:
        return lambda path: True
    roots = _text_roots(model)
    return lambda path: any(path == root or path.startswith(f"{root}.") for root in roots)


def _text_roots(model: Any) -> list[str]:
    from transformers import PreTrainedModel

    kind = type(model.config.get_text_config())
    head = model.get_output_embeddings()
    modules = dict(model.named_modules())
    built = [path for path, m in modules.items() if isinstance(m, PreTrainedModel) and type(m.config) is kind]
    if not built or head is None:
        raise ModelError(f"the language model in this {model.config.model_type} model can't be told from its towers")
    return [*built, *(path for path, module in modules.items() if module is head)]


def tower_tensors(model: Any) -> frozenset[str]:
    """Returns the names of the parameters and stored buffers that computing text does not use."""
    text = is_text(model)
    return frozenset(name for name in model.state_dict() if not text(name))


def move_text(model: Any, device: torch.device) -> None:
    """Moves the text part's parameters and buffers; towers stay where they are, and so does what is there already."""
    _convert(model, lambda tensor: tensor.to(device), towers=False, done=lambda tensor: tensor.device == device)


def empty_towers(model: Any) -> None:
    """Moves everything but the text part to the meta device: towers, projectors, and parameters beside those."""
    _convert(model, lambda tensor: tensor.to("meta"), towers=True)


def compute_in_float32(model: Any) -> None:
    """Converts the text part's parameters and buffers to float32, in place; towers stay as the file has them.

    Constants that the model computes itself have the values that they have in a model in float32.
    """
    text = is_text(model)
    for path, module in model.named_modules():
        for name, constant in exact_constants(module).items() if text(path) else ():
            module._buffers[name] = constant.to(module._buffers[name].device)
    _convert(model, lambda tensor: tensor.float() if tensor.is_floating_point() else tensor, towers=False)


def _convert(
    model: Any,
    function: Callable[[torch.Tensor], torch.Tensor],
    *,
    towers: bool,
    done: Callable[[torch.Tensor], bool] = lambda tensor: False,
) -> None:
    """Puts `function(tensor)` in the place of each parameter and buffer of the towers or of the text part.

    A module all of whose own tensors are `done` is left alone.
    """
    text = is_text(model)
    modules: Iterator[tuple[str, Any]] = model.named_modules()
    for path, module in modules:
        own = [*module._parameters.values(), *module._buffers.values()]
        if text(path) is not towers and not all(tensor is None or done(tensor) for tensor in own):
            module._apply(function, recurse=False)
