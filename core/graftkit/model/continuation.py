"""One answer after the other, token by token, as they come."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import Any

import torch
from transformers.cache_utils import DynamicLayer

from graftkit.interfaces.block_memory import repeated_blocks
from graftkit.model.attention import native_attention
from graftkit.model.decoding import Decoding, cache_name
from graftkit.model.packing import attention_as
from graftkit.model.rope_lengths import RopeLengths, forget_longest
from graftkit.model.sampling import Sampler

__all__ = ["Continuation"]


class Continuation:
    """Continues one sequence after the other, and computes no token again that two of them begin with.

    What was computed is kept where every layer keeps all of its keys and values, so that a conversation's next turn
    costs its own tokens alone; layers with a window or a state begin anew. So does a sequence that grows beyond a
    length from which on its rotary frequencies are others.

    Args:
        network: A transformers causal language model.
        decoding: What its continuation may save.
        within: Makes what each pass is computed within.
    """

    def __init__(
        self, network: Any, decoding: Decoding, within: Callable[[], AbstractContextManager[Any]] = nullcontext
    ) -> None:
        forget_longest(network)
        self._network, self._decoding, self._within = network, decoding, within
        self._cache_name, self._ropes = cache_name(network), RopeLengths(network)
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
                ids = [token] if self._goes_on(len(sequence)) else self._anew(sequence)

    def _not_held(self, prompt: Sequence[int]) -> Sequence[int]:
        """Returns a prompt's tokens after those that are kept, the last one at least, and forgets others."""
        pairs = zip(self._held, prompt[:-1], strict=False)
        common = next((place for place, (held, token) in enumerate(pairs) if held != token), None)
        common = min(len(self._held), len(prompt) - 1) if common is None else common
        reused = self._decoding.reused and common and self._goes_on(len(prompt)) and _keeps_all(self._cache)
        if not reused:
            return self._anew(prompt)
        if common < len(self._held):
            self._cache.crop(common - len(self._held))
            self._held = self._held[:common]
        return prompt[common:]

    def _goes_on(self, length: int) -> bool:
        """Tells whether what is kept may be kept for a sequence of a length."""
        return self._cache is not None and self._ropes.at(len(self._held)) == self._ropes.at(length)

    def _anew(self, sequence: Sequence[int]) -> Sequence[int]:
        self.forget()
        return sequence

    @torch.no_grad()
    def _logits(self, ids: Sequence[int]) -> torch.Tensor:
        """Computes the next token's logits, `[vocabulary]`, after tokens that follow those that are kept."""
        device = self._network.get_input_embeddings().weight.device
        start, cached = len(self._held), self._decoding.cached
        cache, self._cache = self._cache, None  # half of a pass that is stopped is not kept
        output = self._network(
            input_ids=torch.tensor([[*ids]], device=device),
            attention_mask=None,
            position_ids=torch.arange(start, start + len(ids), device=device).unsqueeze(0),
            use_cache=cached,
            logits_to_keep=1,
            **({self._cache_name: cache} if cached else {}),
        )
        if cached:
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
