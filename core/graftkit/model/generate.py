"""Greedy answers to many prompts, side by side where the model computes them as it computes each alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from graftkit.model.continuation import Continuation
from graftkit.model.decoding import Decoding
from graftkit.model.decoding_trial import choose_decoding
from graftkit.model.side_by_side import Batch, side_by_side

__all__ = ["generate_greedily"]


def generate_greedily(
    network: Any,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    stop: Sequence[int],
    poll: Callable[[int], None] = lambda made: None,
) -> list[list[int]]:
    """Continues each prompt with the likeliest token until a stop token.

    Each answer is what the model gives when the whole sequence is computed again for every token, whichever others are
    answered with it.

    Args:
        network: A transformers causal language model.
        prompts: Token ids of each prompt; none is empty.
        max_new_tokens: Tokens of an answer at most.
        stop: Tokens that end an answer; they are not part of it.
        poll: Called after each token with how many each answer has by now; raises to stop.

    Returns:
        The tokens of each answer.
    """
    decoding = choose_decoding(network)
    answers: list[list[int]] = [[] for _ in prompts]
    for numbers in side_by_side(network, prompts, max_new_tokens, decoding):
        group = [prompts[number] for number in numbers]
        steps = _alone if len(group) == 1 else _together
        for made, tokens in enumerate(steps(network, group, max_new_tokens, stop, decoding), 1):
            for row, token in tokens.items():
                answers[numbers[row]].append(token)
            poll(made)
    return answers


def _alone(
    network: Any, prompts: Sequence[Sequence[int]], limit: int, stop: Sequence[int], decoding: Decoding
) -> Iterator[dict[int, int]]:
    """Yields each next token of the only prompt, by its number, until it ends."""
    (prompt,) = prompts
    for token in Continuation(network, decoding).stream(prompt, max_new_tokens=limit, stop=stop):
        yield {0: token}


def _together(
    network: Any, prompts: Sequence[Sequence[int]], limit: int, stop: Sequence[int], decoding: Decoding
) -> Iterator[dict[int, int]]:
    """Yields the next token of each prompt that goes on, by its number, until all have ended."""
    batch = Batch(network, prompts, limit, decoding)
    likeliest = batch.continued(limit, lambda logits, rows: logits.argmax(-1), lambda row, token: token not in stop)
    for tokens in likeliest:
        yield {row: token for row, token in tokens.items() if token not in stop}
