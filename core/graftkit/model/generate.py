"""Generation: many answers side by side, greedily; or one after the other, as they come."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from inspect import signature
from typing import Any

import torch
from transformers.cache_utils import DynamicLayer

from graftkit.interfaces.block_memory import repeated_blocks
from graftkit.model.attention import native_attention
from graftkit.model.cache import can_grow, can_select, with_room
from graftkit.model.packing import attention_as
from graftkit.model.sampling import Sampler, check_logits

__all__ = ["Continuation", "generate_greedily"]

_WORTH_KEEPING = 0.75
"""Ended sequences are left out once no more than this share goes on: leaving them out copies the others' cache."""

_WORTH_SHARING = 8
"""From how many tokens that all prompts begin with computing them once is worth a pass of its own."""


def generate_greedily(
    network: Any,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    stop: Sequence[int],
    poll: Callable[[int], None] = lambda made: None,
) -> list[list[int]]:
    """Continues each prompt with the likeliest token until a stop token.

    Args:
        network: A transformers causal language model.
        prompts: Token ids of each prompt; none is empty.
        max_new_tokens: Tokens of an answer at most.
        stop: Tokens that end an answer; they are not part of it.
        poll: Called after each token with how many each answer has by now; raises to stop.

    Returns:
        The tokens of each answer.
    """
    if _keeps_a_state(network) and len({len(prompt) for prompt in prompts}) > 1:
        options = {"max_new_tokens": max_new_tokens, "stop": stop, "poll": poll}
        return [generate_greedily(network, [prompt], **options)[0] for prompt in prompts]  # type: ignore[arg-type]
    answers: list[list[int]] = [[] for _ in prompts]
    batch = _Batch(network, prompts, max_new_tokens)
    going_on = list(range(len(prompts)))  # places in the batch of the sequences that have not ended
    for made in range(1, max_new_tokens + 1):
        tokens = batch.next_tokens()
        poll(made)
        going_on = [place for place in going_on if tokens[place] not in stop]
        for place in going_on:
            answers[batch.rows[place]].append(tokens[place])
        if not going_on:
            break
        going_on = batch.keep(going_on)
    return answers


class Continuation:
    """Continues one sequence after the other, and computes no token again that two of them begin with.

    What was computed is kept where every layer keeps all of its keys and values, so that a conversation's next turn
    costs its own tokens alone; layers with a window or a state begin anew.

    Args:
        network: A transformers causal language model.
        within: Makes what each pass is computed within.
    """

    def __init__(self, network: Any, within: Callable[[], AbstractContextManager[Any]] = nullcontext) -> None:
        self._network, self._within = network, within
        self._cache_name = "cache_params" if _keeps_a_state(network) else "past_key_values"
        self._cache: Any = None
        self._held: list[int] = []

    @property
    def held(self) -> int:
        """How many tokens' keys and values are kept."""
        return len(self._held)

    def forget(self) -> None:
        """Keeps nothing of what was computed."""
        self._cache, self._held = None, []

    def stream(
        self,
        prompt: Sequence[int],
        *,
        max_new_tokens: int,
        stop: Sequence[int],
        sampler: Sampler | None = None,
        unwanted: Callable[[], bool] | None = None,
    ) -> Iterator[int]:
        """Yields the tokens that go on after a prompt, as they come.

        Args:
            prompt: Token ids; at least one.
            max_new_tokens: Tokens at most.
            stop: Tokens that end the answer; they are not yielded.
            sampler: What chooses tokens; the likeliest when left out.
            unwanted: Tells, before each block of the pass over a prompt, whether nobody wants the tokens any more,
                which ends them; they are always wanted when left out.
        """
        sampler, sequence = sampler or Sampler(), list(prompt)
        ids = self._not_held(sequence)
        with (
            suppress(_Unwanted),
            self._within(),
            attention_as(self._network, native_attention(self._network)),
        ):
            for _ in range(max_new_tokens):
                with _asked_by_block(self._network, unwanted) if unwanted and len(ids) > 1 else nullcontext():
                    logits = self._logits(ids)
                token = sampler.choose(logits, sequence)
                if token in stop:
                    return
                sequence.append(token)
                yield token
                ids = [token]

    def _not_held(self, prompt: Sequence[int]) -> Sequence[int]:
        """Returns a prompt's tokens after those that are kept, the last one at least, and forgets others."""
        pairs = zip(self._held, prompt[:-1], strict=False)
        common = next((place for place, (held, token) in enumerate(pairs) if held != token), None)
        common = min(len(self._held), len(prompt) - 1) if common is None else common
        if self._cache is None or not common or not _keeps_all(self._cache):
            self.forget()
            return prompt
        if common < len(self._held):
            self._cache.crop(common - len(self._held))
            self._held = self._held[:common]
        return prompt[common:]

    def _logits(self, ids: Sequence[int]) -> torch.Tensor:
        """Computes the next token's logits, `[vocabulary]`, after tokens that follow those that are kept."""
        device = self._network.get_input_embeddings().weight.device
        start = len(self._held)
        cache, self._cache = self._cache, None  # half of a pass that is stopped is not kept
        with torch.no_grad():
            output = self._network(
                input_ids=torch.tensor([[*ids]], device=device),
                attention_mask=None,
                position_ids=torch.arange(start, start + len(ids), device=device).unsqueeze(0),
                use_cache=True,
                logits_to_keep=1,
                **{self._cache_name: cache},
            )
        self._cache = getattr(output, self._cache_name)
        self._held += ids
        logits: torch.Tensor = output.logits[0, -1]
        return logits


class _Unwanted(Exception):
    """Ends a pass of which nobody wants the result."""


@contextmanager
def _asked_by_block(network: Any, unwanted: Callable[[], bool]) -> Iterator[None]:
    """Has each block ask before it computes whether the pass goes on: over a long prompt it may take minutes."""

    def ask(*_: Any) -> None:
        if unwanted():
            raise _Unwanted

    handles = [block.register_forward_pre_hook(ask) for block in repeated_blocks(network)[0].values()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _keeps_all(cache: Any) -> bool:
    """Tells whether each layer of a cache holds every key and value, so that later ones can be taken out."""
    return all(type(layer) is DynamicLayer for layer in getattr(cache, "layers", (None,)))


class _Batch:
    """Sequences that are continued side by side, with a cache of what was computed.

    Prompts of different lengths are padded on the left; the padding is masked. A sequence that has ended is left out of
    what is computed next, where the cache allows that.

    Args:
        network: A transformers causal language model.
        prompts: Token ids of each prompt.
        limit: How many tokens follow at most.

    Attributes:
        rows: The number of the prompt of each sequence that is still continued.
    """

    def __init__(self, network: Any, prompts: Sequence[Sequence[int]], limit: int) -> None:
        self.rows = list(range(len(prompts)))
        self._network, self._limit = network, limit
        self._cache_name = "cache_params" if _keeps_a_state(network) else "past_key_values"
        self._cache: Any = None
        device = network.get_input_embeddings().weight.device
        shared = self._compute_once(prompts, device)
        self._ids, mask = _pad_left([prompt[shared:] for prompt in prompts], device)
        self._mask = torch.cat([mask.new_ones(len(mask), shared), mask], dim=1)
        self._positions = (self._mask.cumsum(1) - 1).clamp(min=0)[:, shared:]
        self._padded = not bool(self._mask.all())

    def _compute_once(self, prompts: Sequence[Sequence[int]], device: torch.device) -> int:
        """Computes what all prompts begin with, such as a system message, for all of them; returns how many tokens.

        Where a layer keeps no more than a window, or a state, nothing is: padding would come between.
        """
        shared = _common(prompts)
        if len(prompts) == 1 or shared < _WORTH_SHARING or self._cache_name != "past_key_values":
            return 0
        self._ids = torch.tensor([[*prompts[0][:shared]]], device=device)
        self._positions, self._padded = torch.arange(shared, device=device).unsqueeze(0), False
        cache = getattr(self._forward(), self._cache_name)
        if not can_grow(cache):
            return 0
        cache.batch_repeat_interleave(len(prompts))
        self._cache = with_room(cache, max(map(len, prompts)) - shared + self._limit)
        return shared

    @torch.no_grad()
    def _forward(self) -> Any:
        with attention_as(self._network, native_attention(self._network)):
            return self._network(
                input_ids=self._ids,
                attention_mask=self._mask if self._padded else None,
                position_ids=self._positions,
                use_cache=True,
                logits_to_keep=1,
                **{self._cache_name: self._cache},
            )

    def next_tokens(self) -> list[int]:
        """Computes the likeliest next token of every sequence.

        Raises:
            ModelError: As for `check_logits`.
        """
        output = self._forward()
        if self._cache is None:
            self._cache = with_room(getattr(output, self._cache_name), self._limit)
        check_logits(output.logits[:, -1])
        chosen = output.logits[:, -1].argmax(-1)
        self._ids, self._positions = chosen.unsqueeze(1), self._positions[:, -1:] + 1
        self._mask = torch.cat([self._mask, self._mask.new_ones(len(self._mask), 1)], dim=1)
        tokens: list[int] = chosen.tolist()
        return tokens

    def keep(self, places: list[int]) -> list[int]:
        """Goes on with some sequences alone, once enough others have ended for that to pay; returns their places."""
        if len(places) > _WORTH_KEEPING * len(self.rows) or not can_select(self._cache):
            return places
        index = torch.tensor(places, device=self._ids.device)
        self._cache.batch_select_indices(index)
        self._ids, self._mask, self._positions = self._ids[index], self._mask[index], self._positions[index]
        self.rows = [self.rows[place] for place in places]
        return list(range(len(places)))


def _keeps_a_state(network: Any) -> bool:
    """Tells whether the model is all state space (Mamba): its cache has a name of its own and knows no padding."""
    return "cache_params" in signature(network.forward).parameters


def _common(prompts: Sequence[Sequence[int]]) -> int:
    """Returns how many tokens all prompts begin with; each has one more at least."""
    places = zip(*(prompt[:-1] for prompt in prompts), strict=False)
    return next((place for place, tokens in enumerate(places) if len({*tokens}) > 1), min(map(len, prompts)) - 1)


def _pad_left(prompts: Sequence[Sequence[int]], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    longest = max(map(len, prompts))
    ids = torch.zeros(len(prompts), longest, dtype=torch.long)
    mask = torch.zeros(len(prompts), longest, dtype=torch.long)
    for row, prompt in enumerate(prompts):
        ids[row, longest - len(prompt) :] = torch.tensor(prompt)
        mask[row, longest - len(prompt) :] = 1
    return ids.to(device), mask.to(device)
