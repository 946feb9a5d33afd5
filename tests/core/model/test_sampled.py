"""Answers drawn side by side, against the whole sequence computed again for each token."""

from __future__ import annotations

from itertools import accumulate
from typing import Any

import pytest
import torch
from decoding_shapes import SHAPES, SMALL
from graftkit.errors import ModelError
from graftkit.model import generate
from graftkit.model import sampling as sampling_module
from graftkit.model.generate import SampledAnswer, generate_greedily, sample_answers
from graftkit.model.rope_lengths import forget_longest
from graftkit.model.sampling import Sampling, draw
from graftkit.model.twin import build_twin

LLAMA = {**SMALL, "model_type": "llama", "num_key_value_heads": 2}


@torch.no_grad()
def drawn_anew(
    network: Any, prompt: list[int], seed: int, limit: int, stop: list[int], penalty: float = 1.0
) -> SampledAnswer:
    """Draws by the cumulative sum of transformers' own probabilities, each token from the whole sequence."""
    from transformers import RepetitionPenaltyLogitsProcessor

    forget_longest(network)
    numbers = torch.rand(limit, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).tolist()
    ids: list[int] = []
    for number in numbers:
        seen = torch.tensor([[*prompt, *ids]])
        logits = network(input_ids=seen, use_cache=False).logits[:, -1]
        logits = RepetitionPenaltyLogitsProcessor(penalty)(seen, logits)[0]
        sums = accumulate(logits.double().softmax(-1).tolist())
        ids.append(next(token for token, passed in enumerate(sums) if passed > number))
        if ids[-1] in stop:
            return SampledAnswer(ids, ended=True)
    return SampledAnswer(ids, ended=False)


@pytest.mark.parametrize("name", ["grouped heads", *SHAPES])
def test_answers_are_those_of_the_whole_sequence_computed_again(name: str) -> None:
    network, random = build_twin(SHAPES.get(name, LLAMA)), torch.Generator().manual_seed(3)
    prompts = [torch.randint(3, 90, (length,), generator=random).tolist() for length in (14, 14, 9)]
    seeds, limits, stop = [[1, 2, 3], [4, 5, 6], [7, 8, 9]], [7, 5, 9], list(range(0, 90, 9))
    answers = sample_answers(network, prompts, seeds, limits=limits, stop=stop)
    expected = [
        [drawn_anew(network, prompt, seed, limit, stop) for seed in seeds_of]
        for prompt, seeds_of, limit in zip(prompts, seeds, limits, strict=True)
    ]
    assert answers == expected
    flat = [answer for each in answers for answer in each]
    assert name != "grouped heads" or len({(answer.ended, len(answer.ids)) for answer in flat}) > 4


@pytest.mark.parametrize("together", [True, False])
def test_what_was_there_is_penalized_as_in_transformers(together: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """In each answer by its own prompt and tokens, side by side as alone."""
    network, random = build_twin(LLAMA), torch.Generator().manual_seed(3)
    prompts = [torch.randint(3, 90, (length,), generator=random).tolist() for length in (14, 9)]
    if not together:
        monkeypatch.setattr(generate, "side_by_side", lambda network, every, *rest: [[n] for n in range(len(every))])
    seeds, stop, sampling = [[1, 2], [3, 4]], list(range(0, 90, 9)), Sampling(1.0, repetition_penalty=3.0)
    answers = sample_answers(network, prompts, seeds, limits=[12, 12], stop=stop, sampling=sampling)
    expected = [
        [drawn_anew(network, prompt, seed, 12, stop, 3.0) for seed in seeds_of]
        for prompt, seeds_of in zip(prompts, seeds, strict=True)
    ]
    assert answers == expected != sample_answers(network, prompts, seeds, limits=[12, 12], stop=stop)


@pytest.mark.parametrize("name,copies", [("grouped heads", 3), ("window", 1)])
def test_a_prompt_is_computed_once_for_all_of_its_answers(name: str, copies: int) -> None:
    """Where it has one alone, whatever the cache allows."""
    network = build_twin(SHAPES.get(name, LLAMA))
    shapes: list[tuple[int, ...]] = []
    network.register_forward_pre_hook(
        lambda module, args, kwargs: shapes.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    prompts = [list(range(3, 33)), list(range(5, 35))]
    sample_answers(network, prompts, [[1, 2, 3][:copies], [4, 5, 6][:copies]], limits=[4, 4], stop=[])
    assert shapes == [(2, 30), *[(2 * copies, 1)] * 3]


def test_tokens_are_drawn_with_their_probabilities() -> None:
    logits = torch.randn(11, generator=torch.Generator().manual_seed(0))
    logits[4] = -torch.inf
    numbers = torch.rand(20_000, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    found = draw(logits.expand(len(numbers), -1), numbers).bincount(minlength=11) / len(numbers)
    assert found[4] == 0
    assert torch.allclose(found, logits.softmax(-1), atol=0.012), "four standard deviations of a share of a half"


@pytest.mark.parametrize(
    "options", [{"top_k": 4}, {"top_p": 0.7}, {"min_p": 0.2}, {"top_k": 6, "top_p": 0.8, "min_p": 0.1}], ids=str
)
def test_of_some_tokens_those_are_drawn_that_transformers_leaves(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each with its probability beside the others, in its own row."""
    from transformers.generation.logits_process import MinPLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

    monkeypatch.setattr(sampling_module, "_TOGETHER", 5000)
    logits = torch.randn(2, 11, generator=torch.Generator().manual_seed(0))
    left = logits / 0.8
    for name, warper in (("top_k", TopKLogitsWarper), ("top_p", TopPLogitsWarper), ("min_p", MinPLogitsWarper)):
        if name in options:
            left = warper(options[name])(None, left)
    assert (left == -torch.inf).any(1).all()
    numbers = torch.rand(40_000, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    found = draw(logits.repeat(20_000, 1), numbers, Sampling(0.8, **options)).reshape(-1, 2)
    for row in range(2):
        shares = found[:, row].bincount(minlength=11) / len(found)
        assert torch.equal(shares == 0, left[row] == -torch.inf)
        assert torch.allclose(shares, left[row].softmax(-1), atol=0.015), "four standard deviations of a half"


def test_answers_are_sampled_from_the_tokens_that_are_left() -> None:
    """Alone as side by side: of so few that one is left, the likeliest ones."""
    network, prompts = build_twin(LLAMA), [[3, 4, 5], [7, 8]]
    likeliest = generate_greedily(network, prompts, max_new_tokens=5, stop=[])
    for sampling in (Sampling(1.0, top_p=1e-9), Sampling(1.0, top_k=1), Sampling(1.0, min_p=1.0)):
        for asked, expected in ((prompts, likeliest), (prompts[:1], likeliest[:1])):
            seeds, limits = [[1]] * len(asked), [5] * len(asked)
            answers = sample_answers(network, asked, seeds, limits=limits, stop=[], sampling=sampling)
            assert [each[0].ids for each in answers] == [list(ids) for ids in expected]


def test_the_ends_of_the_distribution() -> None:
    logits = torch.tensor([[-torch.inf, 0.0, 0.0, -torch.inf]]).expand(2, -1)
    assert draw(logits, torch.tensor([0.0, 1 - 2**-53], dtype=torch.float64)).tolist() == [1, 2]


def test_logits_that_are_no_numbers_are_refused() -> None:
    network: Any = build_twin(LLAMA)
    network.get_output_embeddings().weight.data[:] = torch.nan
    with pytest.raises(ModelError, match="no finite numbers"):
        sample_answers(network, [[3, 4], [5]], [[1, 2], [3, 4]], limits=[3, 3], stop=[])
