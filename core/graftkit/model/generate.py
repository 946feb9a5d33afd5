"""Answers to many prompts, greedy or sampled, side by side where the model computes them as it computes each alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from graftkit.model.continuation import Continuation
from graftkit.model.decoding import Decoding
from graftkit.model.decoding_trial import choose_decoding
from graftkit.model.sampling import AS_IT_IS, GREEDY, Sampler, Sampling, check_logits, draw
from graftkit.model.side_by_side import Batch, side_by_side

__all__ = ["SampledAnswer", "generate_greedily", "sample_answers"]


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
        poll: Called after each token with how many the longest answer has by now; raises to stop.

    Returns:
        The tokens of each answer.

    Raises:
        LogitsError: The logits are no finite numbers.
    """
    limits, seeds = [max_new_tokens] * len(prompts), [[0]] * len(prompts)
    found = sample_answers(network, prompts, seeds, limits=limits, stop=stop, sampling=GREEDY, poll=poll)
    return [[token for token in answer.ids if token not in stop] for [answer] in found]


@dataclass(frozen=True, slots=True)
class SampledAnswer:
    """An answer that was drawn.

    Attributes:
        ids: Its tokens; the last one is what ended it, where it has ended.
        ended: Whether it has ended at a stop token; else it was cut off.
    """

    ids: Sequence[int]
    ended: bool


def sample_answers(
    network: Any,
    prompts: Sequence[Sequence[int]],
    seeds: Sequence[Sequence[int]],
    *,
    limits: Sequence[int],
    stop: Sequence[int],
    sampling: Sampling = AS_IT_IS,
    poll: Callable[[int], None] = lambda made: None,
) -> list[list[SampledAnswer]]:
    """Draws answers to prompts: the same ones for the same weights, prompts and seeds.

    A prompt is computed once for all of its answers, where the model's cache allows it. Which tokens are drawn depends
    on an answer's seed, and on nothing else than the logits.

    Args:
        network: A transformers causal language model.
        prompts: Token ids of each prompt; none is empty.
        seeds: Those of each prompt's answers; of each prompt equally many.
        limits: How many tokens the answers to each prompt have at most.
        stop: Tokens that end an answer.
        sampling: As for `draw`; what a prompt and its answer so far hold is penalized as it says, before anything else.
        poll: Called after each token with how many the longest answer has by now; raises to stop.

    Returns:
        The answers to each prompt, one a seed.

    Raises:
        LogitsError: The logits are no finite numbers.
    """
    if not prompts:
        return []
    decoding, copies = choose_decoding(network), len(seeds[0])
    drawn = [
        _Drawn(seed, limit, sampling, prompt)
        for prompt, seeds_of, limit in zip(prompts, seeds, limits, strict=True)
        for seed in seeds_of
    ]
    every = [prompt for prompt in prompts for _ in range(copies)]
    for numbers in side_by_side(network, every, max(limits), decoding):
        if len(numbers) == 1:
            steps = _alone(network, every[numbers[0]], drawn[numbers[0]], stop, decoding)
        else:  # all answers to a prompt are in one group
            group = [prompts[number] for number in sorted({number // copies for number in numbers})]
            answers = [drawn[number] for number in numbers]
            steps = _together(network, group, copies, answers, stop, sampling, decoding)
        for made in steps:
            poll(made)
    found = [SampledAnswer(each.ids, each.ids[-1] in stop) for each in drawn]
    return [found[first : first + copies] for first in range(0, len(found), copies)]


class _Drawn(Sampler):
    """One answer as it is drawn.

    Args:
        seed: What its numbers are drawn from, one a token.
        limit: How many tokens it has at most.
        sampling: As for `sample_answers`.
        prompt: What it answers.

    Attributes:
        ids: Its tokens so far.
        numbers: What decides its tokens, `[limit]`.
    """

    def __init__(self, seed: int, limit: int, sampling: Sampling, prompt: Sequence[int]) -> None:
        super().__init__(sampling)
        self._prompt = prompt
        random = torch.Generator().manual_seed(seed)
        self.ids: list[int] = []
        self.numbers = torch.rand(limit, dtype=torch.float64, generator=random)

    def choose(self, logits: torch.Tensor, seen: Sequence[int]) -> int:
        """Draws the next token.

        Raises:
            LogitsError: As for `check_logits`.
        """
        check_logits(logits)
        self.ids.append(int(_chosen(logits.unsqueeze(0), [self], self._sampling)))
        return self.ids[-1]

    def penalized(self, logits: torch.Tensor) -> torch.Tensor:
        """Returns the logits of its next token, smaller for those that are in its prompt or in itself."""
        return self._sampling.penalized(logits.float(), [*self._prompt, *self.ids])

    @property
    def number(self) -> torch.Tensor:
        """What decides its next token; of one that has ended any number."""
        return self.numbers[min(len(self.ids), len(self.numbers) - 1)]


def _chosen(logits: torch.Tensor, answers: Sequence[_Drawn], sampling: Sampling) -> torch.Tensor:
    """Returns the next token of each answer: `[rows]`, of logits `[rows, vocabulary]`."""
    if sampling.repetition_penalty != 1:
        logits = torch.stack([answer.penalized(each) for answer, each in zip(answers, logits, strict=True)])
    if sampling.is_greedy:
        return logits.argmax(-1)
    return draw(logits, torch.stack([answer.number for answer in answers]).to(logits.device), sampling)


def _alone(
    network: Any, prompt: Sequence[int], answer: _Drawn, stop: Sequence[int], decoding: Decoding
) -> Iterator[int]:
    """Draws one answer; yields after each token how many it has."""
    limit = len(answer.numbers)
    for _ in Continuation(network, decoding).stream(prompt, max_new_tokens=limit, stop=stop, sampler=answer):
        yield len(answer.ids)


def _together(
    network: Any,
    prompts: Sequence[Sequence[int]],
    copies: int,
    answers: Sequence[_Drawn],
    stop: Sequence[int],
    sampling: Sampling,
    decoding: Decoding,
) -> Iterator[int]:
    """Draws the answers to some prompts; yields after each token how many the longest has."""
    limit = max(len(answer.numbers) for answer in answers)
    batch = Batch(network, prompts, limit, decoding)
    if not batch.copied(copies):
        batch = Batch(network, [prompt for prompt in prompts for _ in range(copies)], limit, decoding)

    def choose(logits: torch.Tensor, rows: Sequence[int]) -> torch.Tensor:
        return _chosen(logits, [answers[row] for row in rows], sampling)

    def goes_on(row: int, token: int) -> bool:
        answers[row].ids.append(token)
        return len(answers[row].ids) < len(answers[row].numbers) and token not in stop

    for made, _ in enumerate(batch.continued(limit, choose, goes_on), 1):
        yield made
