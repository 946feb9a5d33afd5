"""Activation checkpointing: of each repeated block only its inputs are kept, and it is computed again for its gradient.

Chen et al., Training Deep Nets with Sublinear Memory Cost, 2016 (https://arxiv.org/abs/1604.06174), by
`torch.utils.checkpoint` without re-entrance: the graph is the one that it would be anyway, so that gradients are the
same bit for bit where a block computes the same twice. Dropout draws the same numbers the second time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

import torch
from torch import nn
from torch.autograd.graph import save_on_cpu
from torch.utils.checkpoint import checkpoint

from graftkit.interfaces.block_memory import repeated_blocks
from graftkit.model.packing import Packing, forward_inputs, use_packing
from graftkit.model.twin import build_twin

__all__ = ["checkpoint_blocks", "why_no_checkpointing"]

_LENGTHS = (20, 9)
"""Tokens of the sequences that recomputation is tried on: a twin's windows are shorter than the first."""
_TOLERANCE = 1e-5
"""How far a gradient may be off, as a share of the largest: a block that computes the same twice makes it no less."""


def checkpoint_blocks(network: nn.Module, *, offload: bool = False) -> None:
    """Has every repeated block of a network keep its inputs alone wherever a gradient is computed.

    Blocks are the items of each outermost `nn.ModuleList`.

    Args:
        network: The model.
        offload: Whether inputs wait in the host's memory, pinned where there is CUDA, until they are needed again.
    """
    for block in repeated_blocks(network)[0].values():
        block.forward = _recomputed(block.forward, offload)


def _recomputed(forward: Callable[..., Any], offload: bool) -> Callable[..., Any]:
    def recomputed(*inputs: Any, **keywords: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*inputs, **keywords)
        # `checkpoint` itself saves the inputs, and these hooks see nothing else: what the block saves it leaves out.
        with save_on_cpu(pin_memory=torch.cuda.is_available()) if offload else nullcontext():
            return checkpoint(forward, *inputs, use_reentrant=False, **keywords)

    return recomputed


def why_no_checkpointing(config: Mapping[str, Any], packing: Packing, most_weights: int | None = None) -> str:
    """Returns why a model's blocks can't be computed twice, found out on a shrunken twin; "" where they can.

    The twin's gradients with activation checkpointing must be those without.

    Args:
        config: The model's config.json.
        packing: How sequences share a pass.
        most_weights: How many weights the model has, which a twin may not exceed; None where that is not known.
    """
    try:
        twin = build_twin(config, most_weights=most_weights)
        if not repeated_blocks(twin)[0]:
            return "it has no repeated blocks"
        use_packing(twin, packing)
        expected = _gradients(twin, packing)
        checkpoint_blocks(twin)
        found = _gradients(twin, packing)
    except Exception as error:
        return " ".join(str(error).split())[:200] or type(error).__name__
    largest = max((float(gradient.abs().max()) for gradient in expected.values()), default=0.0)
    off = [name for name, gradient in expected.items() if not _is_near(found.get(name), gradient, largest)]
    return f"its blocks compute something else the second time: the gradient of {off[0]} differs" if off else ""


def _gradients(network: Any, packing: Packing) -> dict[str, torch.Tensor]:
    """Returns the gradient of the sum of random multiples of what the network gives by each parameter that has one."""
    random = torch.Generator().manual_seed(0)
    vocabulary = int(network.get_input_embeddings().weight.shape[0])
    sequences = [torch.randint(3, vocabulary, (length,), generator=random) for length in _LENGTHS]
    parameters = {name: p for name, p in network.named_parameters() if not p.is_meta and p.is_floating_point()}
    for parameter in parameters.values():
        parameter.grad = None
        parameter.requires_grad_()
    for group in [sequences] if packing.packed else [[ids] for ids in sequences]:
        found = network(**forward_inputs(group, packed=packing.packed))
        given = found.logits if hasattr(found, "logits") else found.last_hidden_state
        given.backward(torch.randn(given.shape, generator=random))
    return {name: p.grad for name, p in parameters.items() if p.grad is not None}


def _is_near(found: torch.Tensor | None, expected: torch.Tensor, largest: float) -> bool:
    return found is not None and bool((found - expected).abs().max() <= _TOLERANCE * largest)
