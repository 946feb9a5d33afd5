"""Several sequences that are continued side by side, a token of each in a pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from graftkit.model.attention import native_attention
from graftkit.model.cache import can_grow, can_select, with_room
from graftkit.model.decoding import Decoding, cache_name
from graftkit.model.packing import attention_as
from graftkit.model.rope_lengths import RopeLengths, forget_longest
from graftkit.model.sampling import check_logits

__all__ = ["Batch", "side_by_side"]

_WORTH_KEEPING = 0.75
"""Ended sequences are left out once no more than this share goes on: leaving them out copies the others' cache."""

_WORTH_SHARING = 8
"""From how many tokens that all prompts begin with computing them once is worth a pass of its own."""


def side_by_side(network: Any, prompts: Sequence[Sequence[int]], limit: int, decoding: Decoding) -> list[list[int]]:
    """Returns which prompts may be continued side by side: the numbers of each group's; one alone is a group.

    They have the same rotary frequencies from their first token to their last, and need no padding that the model does
    not take. A prompt whose frequencies change while it is continued is alone: what was computed before is computed
    again then.

    Args:
        network: A transformers causal language model.
        prompts: Token ids of each prompt.
        limit: How many tokens follow at most.
        decoding: What the model's continuation may save.
    """
    ropes, groups = RopeLengths(network), dict[tuple[object, ...], list[int]]()
    for number, length in enumerate(map(len, prompts)):
        steady = ropes.at(length) == ropes.at(length + limit - 1)
        key = (ropes.at(length), -1 if decoding.padded else length) if decoding.batched and steady else (number,)
        groups.setdefault(key, []).append(number)
    return list(groups.values())


class Batch:
    """Sequences that are continued side by side, with a cache of what was computed.

    Prompts of different lengths are padded on the left; the padding is masked. A sequence that has ended is left out of
    what is computed next, where the cache allows that.

    Args:
        network: A transformers causal language model.
        prompts: Token ids of each prompt.
        limit: How many tokens follow at most.
        decoding: What the model's continuation may save.

    Attributes:
        rows: The number of the prompt of each sequence that is still continued.
    """

    def __init__(self, network: Any, prompts: Sequence[Sequence[int]], limit: int, decoding: Decoding) -> None:
        forget_longest(network)
        self.rows = list(range(len(prompts)))
        self._network, self._limit = network, limit
        self._cache_name = cache_name(network)
        self._cache: Any = None
        self._logits: torch.Tensor | None = None
        device = network.get_input_embeddings().weight.device
        shared = self._compute_once(prompts, device) if decoding.shared else 0
        self._ids, mask = _pad_left([prompt[shared:] for prompt in prompts], device)
        self._mask = torch.cat([mask.new_ones(len(mask), shared), mask], dim=1)
        self._positions = (self._mask.cumsum(1) - 1).clamp(min=0)[:, shared:]
        self._padded = not bool(self._mask.all())

    def _compute_once(self, prompts: Sequence[Sequence[int]], device: torch.device) -> int:
        """Computes what all prompts begin with, such as a system message, for all of them; returns how many tokens.

        Where a layer keeps no more than a window, or a state, nothing is: padding would come between. Nor where the
        rotary frequencies of what is shared are not those of the whole.
        """
        shared, ropes = _common(prompts), RopeLengths(self._network)
        if len(prompts) == 1 or shared < _WORTH_SHARING or ropes.at(shared) != ropes.at(max(map(len, prompts))):
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

    def logits(self) -> torch.Tensor:
        """Returns the logits of every sequence's next token, `[sequences, vocabulary]`, computed once a token."""
        if self._logits is None:
            output = self._forward()
            if self._cache is None:
                self._cache = with_room(getattr(output, self._cache_name), self._limit)
            self._logits = output.logits[:, -1]
        return self._logits

    def go_on(self, tokens: torch.Tensor) -> None:
        """Continues every sequence by a token.

        Args:
            tokens: Their ids, `[sequences]`.
        """
        self._logits = None
        self._ids, self._positions = tokens.unsqueeze(1), self._positions[:, -1:] + 1
        self._mask = torch.cat([self._mask, self._mask.new_ones(len(self._mask), 1)], dim=1)

    def keep(self, places: list[int]) -> list[int]:
        """Goes on with some sequences alone, once enough others have ended for that to pay; returns their places."""
        if len(places) > _WORTH_KEEPING * len(self.rows) or not can_select(self._cache):
            return places
        index = torch.tensor(places, device=self._ids.device)
        self._cache.batch_select_indices(index)
        self._ids, self._mask, self._positions = self._ids[index], self._mask[index], self._positions[index]
        self.rows = [self.rows[place] for place in places]
        return list(range(len(places)))

    def copied(self, copies: int) -> bool:
        """Goes on with so many copies of each prompt, one after the other, where the cache allows it.

        Returns:
            Whether it does.
        """
        logits = self.logits()
        if copies == 1:
            return True
        if not can_select(self._cache):
            return False
        self._cache.batch_repeat_interleave(copies)
        self._ids, self._mask, self._positions, self._logits = (
            held.repeat_interleave(copies, dim=0) for held in (self._ids, self._mask, self._positions, logits)
        )
        self.rows = [row * copies + copy for row in self.rows for copy in range(copies)]
        return True

    def continued(
        self,
        limit: int,
        choose: Callable[[torch.Tensor, Sequence[int]], torch.Tensor],
        goes_on: Callable[[int, int], bool],
    ) -> Iterator[dict[int, int]]:
        """Yields the next token of each sequence that has not ended, by its row, until all have.

        Args:
            limit: How many tokens follow at most.
            choose: Returns the next token of every sequence that is computed, `[sequences]`, given their logits,
                `[sequences, vocabulary]`, and rows.
            goes_on: Told of each sequence's row and next token, tells whether another one follows.

        Raises:
            ModelError: The logits are no finite numbers.
        """
        going_on = list(range(len(self.rows)))  # places of the sequences that have not ended
        for _ in range(limit):
            logits = self.logits()
            check_logits(logits)
            chosen = choose(logits, self.rows)
            tokens = chosen.tolist()
            found = {self.rows[place]: tokens[place] for place in going_on}
            going_on = [place for place in going_on if goes_on(self.rows[place], tokens[place])]
            yield found
            if not going_on:
                return
            self.go_on(chosen)
            going_on = self.keep(going_on)


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
