"""Whether sequences may share a forward pass: decided by computing both ways, before a row is encoded.

A packed pass is right where each sequence gets the logits that the model's own code gives it alone. Attention can be
kept apart (`graftkit.model.attention`); layers that mix tokens otherwise, such as convolutions and state spaces, or
attention that transformers does not dispatch, can't. There sequences run one by one, which is right for every model.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import cache
from inspect import signature
from itertools import accumulate
from typing import Any

import torch

from graftkit.errors import ModelError, named
from graftkit.interfaces.architecture import WITHOUT_LOGITS, head_of, is_multimodal
from graftkit.interfaces.forward import logits_at
from graftkit.interfaces.quiet import errors_alone
from graftkit.model.attention import PACKED, native_attention, register_packed_attention, remember_bounds
from graftkit.model.context import context_length
from graftkit.model.head import head_scores
from graftkit.model.rope_lengths import forget_longest
from graftkit.model.twin import ANY_WEIGHTS, LONGEST, ONE_TRIAL, build_twin, relative_difference
from graftkit.model.windows import hidden_pasts

__all__ = [
    "Packing",
    "attention_as",
    "choose_packing",
    "forward_inputs",
    "use_packing",
]

_LENGTHS = (LONGEST, 7, 1, 23)
"""Sequences that are tried: longer and shorter than a twin's windows, and one without a past."""
_LONG = 1 << 17
"""Tokens of the longest sequence whose masks are looked at."""
_OTHER_HEADS = "Models of other architectures can be given such a head: docs/objectives.md names some."
_TOLERANCE = 1e-4
"""How far float32 logits may differ, as a share of the largest: rounding differs, the function doesn't."""


@dataclass(frozen=True, slots=True)
class Packing:
    """How a model computes sequences in training.

    Attributes:
        packed: Whether several sequences share a pass.
        reason: Why not, where they don't.
        sees_padding: Whether the tokens of a sequence get other states where padding stands after them, though it is
            masked; told of models that give sequences, or their tokens, scores or vectors, and compute one by one.
    """

    packed: bool
    reason: str = ""
    sees_padding: bool = False


def choose_packing(config: Mapping[str, Any], where: str = "", most_weights: int | None = None) -> Packing:
    """Tries packed sequences on a shrunken twin of the model against the model's own code, sequence by sequence.

    A configuration is tried once a process.

    Args:
        config: The model's config.json.
        where: The model's reference, for errors.
        most_weights: How many weights the model has, which a twin may not exceed; None where that is not known.

    Raises:
        ModelError: A token's logits depend on later tokens: the model can't be trained to predict the next one. Or a
            multimodal model doesn't compute text without its towers. Or a head that gives scores computes from
            something else than the body's last hidden states.
    """
    text = json.dumps(config, sort_keys=True, default=str)
    with named(where), ONE_TRIAL, errors_alone("transformers"):  # its remarks on a twin
        return _of_configuration(text, None if most_weights is None else max(most_weights, ANY_WEIGHTS))


@cache
def _of_configuration(text: str, most_weights: int | None) -> Packing:
    config: dict[str, Any] = json.loads(text)
    scores = head_of(config) in WITHOUT_LOGITS
    any_order = head_of(config) != "language"
    try:
        twin = build_twin(config, most_weights=most_weights)
        sequences = _sequences(int(twin.get_input_embeddings().weight.shape[0]))
        with attention_as(twin, "eager") if _lets_choose(twin) else nullcontext():
            expected = [_own_logits(twin, ids) for ids in sequences]
            if scores:
                alone = torch.cat([_logits(twin, [ids], packed=False) for ids in sequences])
            causal = any_order or _is_causal(twin, sequences[0])
        with attention_as(twin, native_attention(twin)):  # where a model makes no mask, its layers decide
            causal = any_order or (causal and _is_causal(twin, sequences[0]))
    except Exception as error:
        if is_multimodal(config):
            raise ModelError(
                f"this {config['model_type']} model could not be tried on text alone: {_reason(error)}",
                hint="Give its language model alone, as transformers saves it.",
            ) from error
        if any_order:
            raise ModelError(
                f"no such head could be tried on this {config['model_type']} model: {_reason(error)}",
                hint=_OTHER_HEADS,
            ) from error
        return Packing(
            False,
            f"no small model could be made to try packed sequences, and whether it is causal, on: {_reason(error)}",
        )
    if not causal:
        raise ModelError(
            f"this {config['model_type']} model is not causal: the logits of a token depend on later tokens",
            hint="Only models that predict the next token are trained; for some, config.json has is_decoder.",
        )
    if scores and not relative_difference(alone, torch.cat(expected)) <= _TOLERANCE:
        raise ModelError(
            f"{type(twin).__name__} makes its scores of something else than its body's last hidden states",
            hint=_OTHER_HEADS,
        )
    packing = _tried(twin, sequences, torch.cat(expected))
    if scores and not packing.packed:
        return replace(packing, sees_padding=_sees_padding(twin, sequences[1]))
    return _beyond_windows(config, twin, most_weights) if packing.packed else packing


@torch.no_grad()
def _sees_padding(network: Any, ids: torch.Tensor) -> bool:
    """Tells whether a sequence's last hidden states are others with padding after it, as programs batch sequences.

    The embedding of the padding token is filled: a twin's is zero, which a trained model's need not be.
    """
    pad = getattr(network.config.get_text_config(), "pad_token_id", None) or 0
    network.get_input_embeddings().weight[pad].normal_(generator=torch.Generator().manual_seed(0))
    padded = torch.cat([ids, torch.full_like(ids, pad)]).unsqueeze(0)
    states = []
    for row in (ids.unsqueeze(0), padded):
        given = {"input_ids": row, "attention_mask": (torch.arange(row.shape[1]) < len(ids)).long().unsqueeze(0)}
        taken = signature(network.base_model.forward).parameters
        try:
            found = network.base_model(**{name: value for name, value in given.items() if name in taken})
        except Exception:  # no program gives it such a batch
            return False
        states.append(found.last_hidden_state[0, : len(ids)])
    return relative_difference(states[1], states[0]) > _TOLERANCE


def _lets_choose(network: Any) -> bool:
    """Tells whether an architecture lets its attention be chosen."""
    try:
        with attention_as(network, "eager"):
            return True
    except ValueError:
        return False


def _tried(network: Any, sequences: Sequence[torch.Tensor], expected: torch.Tensor) -> Packing:
    register_packed_attention()
    _number_from_padding(network)
    try:
        with attention_as(network, PACKED):
            found = _logits(network, sequences, packed=True)
    except Exception as error:
        return Packing(False, _reason(error))
    difference = relative_difference(found, expected)
    if difference > _TOLERANCE:
        return Packing(False, f"packed sequences see one another: logits differ by {difference:.1g} of the largest")
    return Packing(True)


def _beyond_windows(config: Mapping[str, Any], twin: Any, most_weights: int | None) -> Packing:
    """Makes sure that what was tried was longer than every window of the configuration.

    A twin's windows are shortened by the names that configurations have for them; a window by another name would be
    longer than the sequences that were tried. It shows in the masks of a model that has the windows as they are.
    """
    try:
        tried = hidden_pasts(twin, LONGEST)
        full = build_twin(config, short_windows=False, most_weights=most_weights)
        longest = min(context_length(full.config.to_dict()) or _LONG, _LONG)
        windows = hidden_pasts(full, longest, masks=len(tried))
        uncrossed = any(window and not crossed for window, crossed in zip(windows, tried, strict=True))
    except Exception as error:
        return Packing(False, f"whether it has windows could not be found out: {_reason(error)}")
    if uncrossed:
        return Packing(False, "it has windows longer than the sequences that could be tried")
    return Packing(True)


def use_packing(network: Any, packing: Packing) -> None:
    """Sets the attention that training computes with, and lets no sequence's length change the next one's function."""
    if packing.packed:
        register_packed_attention()
        _number_from_padding(network)
    forget_longest(network)
    network.set_attn_implementation(PACKED if packing.packed else native_attention(network))


def _number_from_padding(network: Any) -> None:
    """Has positions that are given counted as RoBERTa counts its own: from that after its padding token's id on."""
    for module in network.modules():
        counts = hasattr(module, "create_position_ids_from_input_ids") and isinstance(module.padding_idx, int)
        if counts and _shifted not in module._forward_pre_hooks.values():
            module.register_forward_pre_hook(_shifted, with_kwargs=True)


def _shifted(embeddings: Any, inputs: Any, keywords: dict[str, Any]) -> Any:
    positions = keywords.get("position_ids")
    if positions is None:
        return None
    return inputs, {**keywords, "position_ids": positions + embeddings.padding_idx + 1}


def forward_inputs(
    sequences: Sequence[torch.Tensor], *, packed: bool, token_type_ids: torch.Tensor | None = None
) -> dict[str, Any]:
    """Returns the keywords of a forward pass.

    Packed sequences are one row without padding, their boundaries told by transformers' own names. One sequence
    alone is what any model takes.

    Args:
        sequences: Token ids, each `[tokens]`; exactly one where `packed` is False.
        packed: Whether the network computes with packed attention.
        token_type_ids: The type of each token, `[tokens]` of all sequences, for a model that has embeddings of them;
            all are of the first one when left out.
    """
    typed = {} if token_type_ids is None else {"token_type_ids": token_type_ids.long().unsqueeze(0)}
    if not packed:
        (ids,) = sequences
        return {"input_ids": ids.unsqueeze(0), "use_cache": False, **typed}
    lengths = [len(ids) for ids in sequences]
    device, longest, ends = sequences[0].device, max(lengths), [0, *accumulate(lengths)]
    bounds = torch.tensor(ends, dtype=torch.int32, device=device)
    remember_bounds(bounds, ends)
    return {
        "input_ids": torch.cat(list(sequences)).unsqueeze(0),
        "position_ids": torch.cat([torch.arange(length, device=device) for length in lengths]).unsqueeze(0),
        "use_cache": False,
        "cu_seq_lens_q": bounds,
        "cu_seq_lens_k": bounds,
        "max_length_q": longest,
        "max_length_k": longest,
        **typed,
    }


@contextmanager
def attention_as(network: Any, name: str) -> Iterator[None]:
    """Computes attention in another way for a while.

    Raises:
        ValueError: The architecture does not take it.
    """
    config = network.config.get_text_config()
    former = config._attn_implementation
    network.set_attn_implementation(name)
    try:
        if config._attn_implementation != name:
            raise ValueError(f"the architecture computes attention its own way, not as '{name}'")
        yield
    finally:
        network.set_attn_implementation(former)


@torch.no_grad()
def _logits(network: Any, sequences: Sequence[torch.Tensor], *, packed: bool) -> torch.Tensor:
    """Returns `[tokens, vocabulary]`, or as `head_scores` a head's scores, or vectors."""
    inputs = forward_inputs(sequences, packed=packed)
    if head_of({"architectures": network.config.architectures}) in WITHOUT_LOGITS:
        return head_scores(network, sequences, inputs)
    logits: torch.Tensor = network(**inputs).logits[0]
    return logits


@torch.no_grad()
def _own_logits(network: Any, ids: torch.Tensor) -> torch.Tensor:
    """Returns what the architecture's own code computes of one sequence, as `_logits` does."""
    inputs = {"input_ids": ids.unsqueeze(0)}
    if head_of({"architectures": network.config.architectures}) == "embedding":
        return logits_at(network, inputs, torch.tensor([len(ids) - 1]))
    logits: torch.Tensor = network(**inputs).logits
    return logits if logits.ndim == 2 else logits[0]


def _is_causal(network: Any, ids: torch.Tensor) -> bool:
    """Tells whether a changed last token leaves the logits before it as they are."""
    logits = _logits(network, [ids], packed=False)
    changed = ids.clone()
    changed[-1] = (changed[-1] + 1) % 2 + 1
    again = _logits(network, [changed], packed=False)
    return relative_difference(again[:-1], logits[:-1]) < _TOLERANCE


def _sequences(vocabulary: int) -> list[torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    return [torch.randint(3, vocabulary, (length,), generator=random) for length in _LENGTHS]


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
