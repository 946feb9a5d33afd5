"""What makes a few scores of hidden states: a head, which is trained fully beside the adapter.

What a head is, transformers' `*ForSequenceClassification` and `*ForTokenClassification` classes say: everything of such
a model that is not its body, and the body's pooler where it has one. Of a sequence decoders score their last token that
is no padding, BERT its first one through the pooler, ModernBERT perhaps the mean of all. Core computes the body once
for all sequences of a pass, and has the class itself score their hidden states, so that whatever it does is done.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from graftkit.interfaces.architecture import EMBEDDING_POOLING, SCORING, head_of
from graftkit.interfaces.forward import pooled
from graftkit.store.fingerprint import derived_seed

__all__ = [
    "body_gives",
    "embeddings",
    "head_modules",
    "head_parameters",
    "head_scores",
    "is_of_head",
    "sequence_scores",
    "start_head",
    "token_scores",
]

_POOLER = "pooler"
_DEVIATION = 0.02
"""Of a new matrix's numbers, where the configuration says none."""


def head_modules(model: Any) -> list[str]:
    """Returns the dotted paths of the modules that are the head of a model which gives scores; none of another model.

    Args:
        model: A transformers model; its weights may be on the meta device.
    """
    if head_of({"architectures": model.config.architectures}) not in SCORING:
        return []
    prefix, body = model.base_model_prefix, model.base_model
    pooler = getattr(body, _POOLER, None)
    found = {f"{prefix}.{_POOLER}": pooler} if isinstance(pooler, nn.Module) else {}
    found |= {name: module for name, module in model.named_children() if module is not body}
    return [name for name, module in found.items() if any(True for _ in module.parameters())]


def is_of_head(name: str, modules: Iterable[str]) -> bool:
    """Tells whether a module or a parameter of this name is a part of a head.

    Args:
        name: Its name in the model.
        modules: The paths that `head_modules` gave.
    """
    return any(name == path or name.startswith(f"{path}.") for path in modules)


def head_parameters(model: nn.Module, modules: Iterable[str]) -> dict[str, nn.Parameter]:
    """Returns the parameters of a head by their names in the model.

    Args:
        model: The model.
        modules: The paths that `head_modules` gave.
    """
    return {
        f"{path}.{name}": parameter
        for path in modules
        for name, parameter in model.get_submodule(path).named_parameters()
    }


@torch.no_grad()
def start_head(model: Any, names: Sequence[str], seed: int) -> None:
    """Draws the parameters of a head that the base model's files lack, as transformers draws a new linear layer's.

    Matrices are normal with the configuration's `initializer_range`, biases 0 and scales 1. Each parameter draws from a
    generator of its own, made from the seed and its name.

    Args:
        model: The model.
        names: The parameters.
        seed: The run's.
    """
    deviation = getattr(model.config.get_text_config(), "initializer_range", None) or _DEVIATION
    for name in names:
        parameter = model.get_parameter(name)
        if parameter.ndim > 1:
            generator = torch.Generator().manual_seed(derived_seed(seed, "head", name))
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * deviation)
        else:
            parameter.fill_(float(name.endswith(".weight")))


def head_scores(network: Any, sequences: Sequence[torch.Tensor], inputs: Mapping[str, Any]) -> torch.Tensor:
    """Returns what a head scores: each sequence, `[sequences, outputs]`, or each token, `[tokens, outputs]`.

    Of a model that embeds sequences it returns their vectors, `[sequences, hidden]`.

    Args:
        network: A transformers model with a head on sequences, or on tokens, or without one.
        sequences: As for `sequence_scores`.
        inputs: As for `sequence_scores`.
    """
    head = head_of({"architectures": network.config.architectures})
    by_head = {"token": token_scores, "embedding": embeddings}
    return by_head.get(head, sequence_scores)(network, sequences, inputs)


def embeddings(network: Any, sequences: Sequence[torch.Tensor], inputs: Mapping[str, Any]) -> torch.Tensor:
    """Returns the vectors of sequences, `[sequences, hidden]`, float32; they are not brought to a length of 1.

    Args:
        network: A transformers model without a head, whose configuration says how hidden states are pooled.
        sequences: As for `sequence_scores`.
        inputs: As for `sequence_scores`.
    """
    parts = torch.split(_states(network, inputs), [len(ids) for ids in sequences])
    by = getattr(network.config, EMBEDDING_POOLING)
    return torch.stack([pooled(part, by) for part in parts])


def sequence_scores(network: Any, sequences: Sequence[torch.Tensor], inputs: Mapping[str, Any]) -> torch.Tensor:
    """Returns the head's scores of sequences, `[sequences, outputs]`, float32.

    The head computes in float32 whatever the body computes in.

    Args:
        network: A transformers model with a head on sequences.
        sequences: Token ids, each `[tokens]`.
        inputs: The keywords of the body's pass over them, as `graftkit.model.packing.forward_inputs` gives them.
    """
    parts = torch.split(_states(network, inputs), [len(ids) for ids in sequences])
    found = []
    for ids, part in zip(sequences, parts, strict=True):
        with body_gives(network.base_model, part.unsqueeze(0)):
            found.append(network(input_ids=ids.unsqueeze(0)).logits)
    return torch.cat(found).float()


def token_scores(network: Any, sequences: Sequence[torch.Tensor], inputs: Mapping[str, Any]) -> torch.Tensor:
    """Returns the head's scores of each token of sequences, `[tokens, outputs]`, float32.

    Args:
        network: A transformers model with a head on tokens.
        sequences: As for `sequence_scores`.
        inputs: As for `sequence_scores`.
    """
    with body_gives(network.base_model, _states(network, inputs).unsqueeze(0)):
        scores: torch.Tensor = network(input_ids=torch.cat(list(sequences)).unsqueeze(0)).logits[0]
    return scores.float()


def _states(network: Any, inputs: Mapping[str, Any]) -> torch.Tensor:
    """Returns what a model's body gives the tokens of a pass, `[tokens, hidden]`, float32."""
    with _without_pooler(network.base_model):
        states: torch.Tensor = network.base_model(**inputs).last_hidden_state[0].float()
    return states


@contextmanager
def _without_pooler(body: Any) -> Iterator[None]:
    """Leaves a body's pooler out of its forward pass, which would pool the first sequence of several alone."""
    pooler = getattr(body, _POOLER, None)
    if not isinstance(pooler, nn.Module):
        yield
        return
    body.pooler = None
    try:
        yield
    finally:
        body.pooler = pooler


@contextmanager
def body_gives(body: Any, states: torch.Tensor) -> Iterator[None]:
    """Has a model's body give these hidden states, `[1, tokens, hidden]`, in place of computing any."""
    from transformers.modeling_outputs import BaseModelOutputWithPoolingAndCrossAttentions

    pooler = getattr(body, _POOLER, None)

    def forward(*args: Any, **others: Any) -> Any:
        pooled = pooler(states) if isinstance(pooler, nn.Module) else None
        return BaseModelOutputWithPoolingAndCrossAttentions(last_hidden_state=states, pooler_output=pooled)

    former = vars(body).get("forward")
    body.forward = forward
    try:
        yield
    finally:
        if former is None:
            del body.forward
        else:
            body.forward = former
