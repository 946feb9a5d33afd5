"""Sampling, against transformers' own logits processors in its own order."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from graftkit.errors import ModelError
from graftkit.model.generate import generate_greedily
from graftkit.model.sampling import GREEDY, Sampler, Sampling
from graftkit.model.twin import build_twin

CONFIG = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 320,
}
OPTIONS: list[dict[str, Any]] = [
    {"temperature": 0.7},
    {"temperature": 1.3, "top_k": 7},
    {"temperature": 1.0, "top_p": 0.8},
    {"temperature": 1.0, "min_p": 0.3},
    {"temperature": 0.5, "repetition_penalty": 1.4},
    {"temperature": 0.8, "top_k": 40, "top_p": 0.9, "min_p": 0.05, "repetition_penalty": 1.2},
    {"temperature": 1.0, "top_k": 1000, "top_p": 0.0},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_scores_are_those_of_transformers(options: dict[str, Any]) -> None:
    network: Any = build_twin(CONFIG)
    prompt = torch.tensor([[5, 9, 9, 40, 41, 5]])
    neutral = {"top_k": 0, "top_p": 1.0, "min_p": None, "repetition_penalty": 1.0}
    made = network.generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        do_sample=True,
        max_new_tokens=6,
        output_scores=True,
        output_logits=True,
        return_dict_in_generate=True,
        eos_token_id=None,
        pad_token_id=0,
        **{**neutral, **options},
    )
    for step, (logits, theirs) in enumerate(zip(made.logits, made.scores, strict=True)):
        ours = Sampling(**options).scores(logits[0], made.sequences[0, : prompt.shape[1] + step].tolist())
        torch.testing.assert_close(ours, theirs[0], rtol=1e-6, atol=1e-6)


def test_tokens_are_drawn_by_their_probability_and_by_the_seed() -> None:
    logits = torch.tensor([0.0, 1.0, 2.0, -1.0]).log_softmax(-1)
    drawn = Sampler(Sampling(temperature=1.0, seed=3))
    found = [drawn.choose(logits, []) for _ in range(4000)]
    shares = Counter(found)
    for token, share in enumerate(logits.exp().tolist()):
        assert abs(shares[token] / 4000 - share) < 0.03
    again, other = (Sampler(Sampling(temperature=1.0, seed=seed)) for seed in (3, 4))
    assert [again.choose(logits, []) for _ in range(50)] == found[:50]
    assert [other.choose(logits, []) for _ in range(50)] != found[:50]


def test_what_is_left_out_is_as_the_models_settings_say_once_something_is_asked_for() -> None:
    settings = {"temperature": 0.6, "top_p": 0.95, "top_k": "many", "repetition_penalty": -1, "do_sample": True}
    assert Sampling.asked(settings) == GREEDY
    assert Sampling.asked(settings, repetition_penalty=1.1) == Sampling(repetition_penalty=1.1)
    assert Sampling.asked(settings, top_k=20) == Sampling(temperature=0.6, top_p=0.95, top_k=20)
    assert Sampling.asked({}, min_p=0.1, seed=7) == Sampling(temperature=1.0, min_p=0.1, seed=7)
    assert Sampling.asked(settings, temperature=0.0).temperature == 0


@pytest.mark.parametrize("temperature", [1e-320, 1e-40, 1e-7])
def test_a_temperature_near_nothing_takes_the_likeliest_token(temperature: float) -> None:
    scores = torch.tensor([-80.0, 90.0, 89.0])
    assert Sampler(Sampling(temperature=temperature)).choose(scores, []) == 1


@pytest.mark.parametrize("wrong", [torch.nan, torch.inf])
@pytest.mark.parametrize("sampling", [GREEDY, Sampling(temperature=1.0)], ids=["greedy", "drawn"])
def test_logits_that_are_no_numbers_choose_no_token(wrong: float, sampling: Sampling) -> None:
    logits = torch.zeros(5)
    logits[1] = -torch.inf
    assert Sampler(sampling).choose(logits, []) != 1
    logits[3] = wrong
    with pytest.raises(ModelError, match="its logits are no finite numbers"):
        Sampler(sampling).choose(logits, [])


def test_answers_side_by_side_are_refused_likewise() -> None:
    network: Any = build_twin(CONFIG)
    network.get_output_embeddings().weight.data[7] = torch.nan
    with pytest.raises(ModelError, match="its logits are no finite numbers"):
        generate_greedily(network, [[3, 4], [5]], max_new_tokens=3, stop=[])
