"""What a model's continuation may save: found out on a shrunken twin of it, against whole sequences.

Caches, padding on the left and what is shared by prompts are right where the twin's logits are those of its own code
without a cache. A model that takes none of them is answered all the same, more slowly.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cache
from typing import Any
from weakref import WeakKeyDictionary

import torch

from graftkit.interfaces.quiet import errors_alone
from graftkit.model.continuation import Continuation
from graftkit.model.decoding import Decoding
from graftkit.model.sampling import Sampler
from graftkit.model.side_by_side import Batch, side_by_side
from graftkit.model.twin import ANY_WEIGHTS, LONGEST, ONE_TRIAL, build_twin, relative_difference

__all__ = ["choose_decoding"]

_COMMON, _ENDS = 12, (LONGEST - 12, 1, 9)
"""Tokens that the prompts begin with, and of each after that: shorter and longer than a twin's windows, as a whole."""
_FOLLOWING = 4
"""Tokens that each prompt goes on with: the shortest grows beyond a twin's windows and contexts."""
_TOLERANCE = 1e-4
"""How far float32 logits may differ, as a share of the largest: rounding differs, the function doesn't."""

_NEEDED = ("cached", "batched", "padded")
"""What those after it build on."""

_Ids = Sequence[Sequence[int]]

_found: WeakKeyDictionary[Any, Decoding] = WeakKeyDictionary()


def choose_decoding(network: Any) -> Decoding:
    """Tries on a shrunken twin of a model how it may be continued, once a model.

    Where no twin can be made, or rounding alone changes what it computes, one sequence after the other is continued
    with the cache that transformers makes, as its own `generate` does.

    Args:
        network: A transformers causal language model.
    """
    if network not in _found:
        weights = sum(tensor.numel() for tensor in (*network.parameters(), *network.buffers()))
        config = json.dumps(network.config.to_dict(), sort_keys=True, default=str)
        with ONE_TRIAL:
            _found[network] = _of_configuration(config, max(weights, ANY_WEIGHTS))
    return _found[network]


@cache
def _of_configuration(config: str, most_weights: int) -> Decoding:
    """Returns how a model of a configuration may be continued, which is tried once a process."""
    with errors_alone("transformers"):
        try:
            twin = build_twin(json.loads(config), most_weights=most_weights)
        except Exception:  # whatever an architecture raises
            return Decoding(cached=True)
        return _tried(twin)


def _tried(twin: Any) -> Decoding:
    """Allows one thing after the other, as long as the logits stay what they are without it."""
    random, vocabulary = torch.Generator().manual_seed(0), int(twin.get_input_embeddings().weight.shape[0])
    common, *ends, following = (
        torch.randint(3, vocabulary, (length,), generator=random).tolist() for length in (_COMMON, *_ENDS, _FOLLOWING)
    )
    prompts = [[*common, *end] for end in ends]
    equal = [prompts[0], prompts[0][::-1]]
    decoding = Decoding()
    try:
        whole, whole_equal = (_anew(twin, tried, following, decoding) for tried in (prompts, equal))
    except Exception:  # whatever an architecture raises
        return decoding
    for name, tried, expected, compute in (
        ("cached", prompts, whole, _anew),
        ("reused", prompts, whole, _in_a_row),
        ("batched", equal, whole_equal, _together),
        ("padded", prompts, whole, _together),
        ("shared", prompts, whole, _together),
    ):
        candidate = replace(decoding, **{name: True})
        with suppress(Exception):  # whatever an architecture raises
            found = compute(twin, tried, following, candidate)
            if relative_difference(found, expected) <= _TOLERANCE:
                decoding = candidate
                continue
        if name in _NEEDED:
            break
    return decoding if decoding.cached or not _rounding_shows(twin, prompts) else Decoding(cached=True)


def _rounding_shows(twin: Any, prompts: _Ids) -> bool:
    """Tells whether the twin computes something else in float64, where it stays: then no difference says anything."""
    with suppress(Exception):  # it knows float32 alone
        found = _anew(twin, prompts, (), Decoding())
        return relative_difference(found, _anew(twin.double(), prompts, (), Decoding())) > _TOLERANCE
    return False


class _Following(Sampler):
    """Continues a prompt by given tokens, and keeps the logits that each would have been chosen by."""

    def __init__(self, following: Sequence[int]) -> None:
        self._left = [*following, 0]  # what is chosen last is not computed any more
        self.logits: list[torch.Tensor] = []

    def choose(self, logits: torch.Tensor, seen: Sequence[int]) -> int:
        """Returns the next one of the tokens."""
        self.logits.append(logits)
        return self._left.pop(0)


def _after(going_on: Continuation, prompt: Sequence[int], following: Sequence[int]) -> torch.Tensor:
    """Returns the next token's logits after a prompt and after each that follows, `[following + 1, vocabulary]`."""
    kept = _Following(following)
    for _ in going_on.stream(prompt, max_new_tokens=len(following) + 1, stop=(), sampler=kept):
        pass
    return torch.stack(kept.logits)


def _anew(twin: Any, prompts: _Ids, following: Sequence[int], decoding: Decoding) -> torch.Tensor:
    """Returns each prompt's logits, `[prompts, following + 1, vocabulary]`, one after the other."""
    return torch.stack([_after(Continuation(twin, decoding), prompt, following) for prompt in prompts])


def _in_a_row(twin: Any, prompts: _Ids, following: Sequence[int], decoding: Decoding) -> torch.Tensor:
    """Returns what `_anew` does, each prompt after what is kept of the one before."""
    going_on = Continuation(twin, decoding)
    return torch.stack([_after(going_on, prompt, following) for prompt in prompts])


def _together(twin: Any, prompts: _Ids, following: Sequence[int], decoding: Decoding) -> torch.Tensor:
    """Returns what `_anew` does, side by side where that is allowed."""
    found: dict[int, torch.Tensor] = {}
    for numbers in side_by_side(twin, prompts, len(following) + 1, decoding):
        group = [prompts[number] for number in numbers]
        if len(group) == 1:
            logits = _anew(twin, group, following, decoding)
        else:
            batch = Batch(twin, group, len(following) + 1, decoding)
            steps = [batch.logits()]
            for token in following:
                batch.go_on(torch.tensor([token] * len(group)))
                steps.append(batch.logits())
            logits = torch.stack(steps, dim=1)
        found.update(zip(numbers, logits, strict=True))
    return torch.stack([found[number] for number in range(len(prompts))])
