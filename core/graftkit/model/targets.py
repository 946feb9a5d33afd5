"""Which layers an adapter goes on. Judged from tensors' names and shapes alone: no torch.

What the layers of a model really are says `graftkit.model.layers`, once torch is there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from graftkit.errors import TargetError
from graftkit.interfaces.config import ProviderConfig
from graftkit.interfaces.layer import LayerInfo, LayerKind
from graftkit.interfaces.model_source import TensorInfo
from graftkit.suggest import nearest
from graftkit.wildcards import matches

__all__ = [
    "ALL_LINEAR",
    "likely_embedding",
    "likely_layers",
    "likely_output",
    "match_targets",
    "names_are_certain",
    "refusal_of",
]

ALL_LINEAR = "all-linear"

_IN_A_BLOCK = re.compile(r"(^|\.)\d+\.")
_ROUTER = re.compile(r"(gate|router|\.router\.\w+)$")
_EXPERTS = ".experts."
_OUTPUT = "lm_head"
"""What nearly all architectures call their output layer."""
_OUTPUTS = {_OUTPUT: _OUTPUT, "embed_out": _OUTPUT, "output_projection": "output_projection"}
"""What files call it, and what it is called in the model, as far as that is known from the name."""
_EMBEDDINGS = ("embed_tokens", "wte", "word_embeddings", "embed_in", "tok_embeddings", "embeddings")
"""What architectures, and their files, call the embedding of the tokens."""
_PREFIXLESS = re.compile(r"(h|layers?|blocks?)\.\d+\.")

_KINDS: Mapping[LayerKind, str] = {
    "linear": "a linear layer",
    "conv1d": "a linear layer of GPT-2's kind",
    "experts": "a stack of experts",
    "embedding": "an embedding",
}


def likely_layers(tensors: Mapping[str, TensorInfo]) -> dict[str, tuple[int, int]]:
    """Returns what a file's names and shapes say are linear layers inside the repeated blocks, each with its shape.

    Embeddings and the output layer lie outside the blocks and are not among them. Of a mixture of experts, what
    chooses between them is not among them either.

    Example:
        >>> likely_layers({"model.layers.0.mlp.up_proj.weight": TensorInfo((64, 16), "F32")})
        {'model.layers.0.mlp.up_proj': (64, 16)}
    """
    mixtures = {name.partition(_EXPERTS)[0] for name in tensors if _EXPERTS in name}
    return {
        path: (info.shape[0], info.shape[1])
        for name, info in tensors.items()
        for path in [name.removesuffix(".weight")]
        if name.endswith(".weight") and len(info.shape) == 2 and _IN_A_BLOCK.search(name)
        if not (_ROUTER.search(path) and _owner(path) in mixtures)
    }


def _owner(path: str) -> str:
    return path.partition(".router.")[0] if ".router." in path else path.rpartition(".")[0]


def names_are_certain(tensors: Mapping[str, TensorInfo]) -> bool:
    """Tells whether a file's names are those of the model's layers, as far as can be told from them.

    Of experts transformers makes one tensor and gives what is around them other names; an older file's names lack the
    prefix of the model.
    """
    return not any(_EXPERTS in name or _PREFIXLESS.match(name) for name in tensors)


def likely_output(tensors: Mapping[str, TensorInfo]) -> tuple[str, tuple[int, int]] | None:
    """Returns what a file's names and shapes say is the output layer, and its shape; None where they don't say it.

    One that is tied to the embedding has no tensor of its own, and the embedding's shape.
    """
    outside = _outside(tensors)
    for path, shape in outside.items():
        owner, dot, last = path.rpartition(".")
        if last in _OUTPUTS:
            return f"{owner}{dot}{_OUTPUTS[last]}", shape
    largest = max(outside.values(), default=None)
    return None if largest is None else (_OUTPUT, largest)


def likely_embedding(tensors: Mapping[str, TensorInfo]) -> tuple[str, tuple[int, int]] | None:
    """Returns what a file's names say is the embedding of the tokens, and its shape; None where they don't say it."""
    named = {path: shape for path, shape in _outside(tensors).items() if path.rpartition(".")[2] in _EMBEDDINGS}
    return max(named.items(), key=lambda item: item[1], default=None)


def _outside(tensors: Mapping[str, TensorInfo]) -> dict[str, tuple[int, int]]:
    """Returns the shape of each matrix outside the repeated blocks."""
    return {
        name.removesuffix(".weight"): (info.shape[0], info.shape[1])
        for name, info in tensors.items()
        if name.endswith(".weight") and len(info.shape) == 2 and not _IN_A_BLOCK.search(name)
    }


def match_targets(
    patterns: Sequence[str],
    layers: Sequence[str],
    where: str = "",
    *,
    experts: Sequence[str] = (),
    outer: Sequence[str] = (),
) -> list[str]:
    """Returns the layers that the patterns name, in the model's order, those outside its blocks, and stacks of experts.

    A pattern is `all-linear`, a layer's last name (`q_proj`), the end of its path (`self_attn.q_proj`), its whole
    path, or any of these with `*` and `?`. A stack of experts is meant by the name of what holds it (`experts`), or by
    more of its path than its last name (`experts.down_proj`); the embedding and the output layer by their names alone
    (`embed_tokens`, `lm_head`). None of these is ever meant by `all-linear`.

    Args:
        patterns: What layers to choose.
        layers: The dotted paths of the linear layers in the model's blocks, in its order.
        where: The recipe's key, for errors.
        experts: The dotted paths of the stacks of experts.
        outer: Those of the embedding and the output layer.

    Raises:
        TargetError: A pattern matches no layer.
    """
    chosen: set[str] = set()
    for pattern in patterns:
        found = {layer for layer in layers if _matches(pattern, layer)}
        found |= {stack for stack in experts if _means_experts(pattern, stack)}
        found |= {layer for layer in outer if pattern and f".{layer}".endswith(f".{pattern}")}
        if not found:
            names = sorted({layer.rpartition(".")[2] for layer in (*layers, *outer)})
            owners = sorted({_owner_name(stack) for stack in experts})
            meant = nearest(pattern, [*names, *owners, ALL_LINEAR]) if layers else ""
            other = f", or {', '.join(owners)} for the layers of its experts" if owners else ""
            every = "; or say all-linear" if layers else "; its blocks have no linear layers"
            raise TargetError(
                f"the target '{pattern}' matches no layer of the model",
                where=where,
                hint=f"{meant}Its layers end in: {', '.join(names) or 'nothing'}{other}{every}.",
            )
        chosen |= found
    return [layer for layer in (*layers, *outer, *experts) if layer in chosen]


def _owner_name(stack: str) -> str:
    return stack.split(".")[-2]


def _means_experts(pattern: str, stack: str) -> bool:
    if "." not in pattern:
        return matches(_owner_name(stack), pattern) and pattern.strip("*?") != ""
    return matches(stack, pattern) or matches(stack, f"*.{pattern}")


def _matches(pattern: str, layer: str) -> bool:
    return (
        pattern == ALL_LINEAR
        or matches(layer, pattern)
        or matches(layer, f"*.{pattern}")
        or matches(layer.rpartition(".")[2], pattern)
    )


def refusal_of(config: ProviderConfig, layer: LayerInfo) -> str | None:
    """Says why an adapter can't go on a layer, as its config model has it; None where it can."""
    if layer.kind not in config.layer_kinds:
        return f"it is {_KINDS[layer.kind]}, on which this adapter does not go"
    return config.refusal(layer)
