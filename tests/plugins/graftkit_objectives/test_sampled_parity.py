"""The gradient of sampled answers equals that of TRL's GRPOTrainer, on the answers that it samples itself."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from graftkit import Scores
from graftkit.interfaces.scores import ADVANTAGE
from graftkit.model.generate import SampledAnswer
from graftkit.store.token_store import Example, TokenStore
from graftkit.training import sampled_loss
from graftkit.training.sampled_loss import Asked, SampledLoss, SamplingPlan
from graftkit.training.start_scores import KeptStart
from graftkit.training.step_loss import Passes, StepScore
from graftkit_objectives.config import GrpoConfig
from graftkit_objectives.grpo import Grpo
from reference import gradients, step_gradients

PROMPTS = ["the quick brown fox", "a lazy dog and then some more"]
ANSWERS, TOKENS = 4, 12


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> Any:
    """A tiny llama with a LoRA of peft's, moved from its start."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    network: Any = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    network.lm_head.weight.data[network.config.eos_token_id] *= 4  # so that some answers end
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        adapted = get_peft_model(network, LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "down_proj"]))
        for name, parameter in adapted.named_parameters():
            if name.endswith("lora_B.default.weight"):
                parameter.data = torch.randn(parameter.shape) * 0.3
    return adapted


def worth(ids: Sequence[int]) -> float:
    """How much an answer is worth: the same for some answers, different for others."""
    return sum(1.0 for token in ids if token % 7 == 0)


def kept_as(start: Any, network: Any) -> KeptStart:
    """Returns what is trained of a network, kept as it is in another one."""
    pairs = [
        (own, own.data, other.data)
        for own, other in zip(network.parameters(), start.parameters(), strict=True)
        if own.requires_grad
    ]
    for own, _, other in pairs:
        own.data = other
    kept = KeptStart(own for own, _, _ in pairs)
    for own, data, _ in pairs:
        own.data = data
    return kept


def moved(model: Any) -> Any:
    """Moves what is trained of a model, as steps do."""
    random = torch.Generator().manual_seed(7)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += torch.randn(parameter.shape, generator=random) * 0.1
    return model


def step_of(
    model: Any,
    objective: Any,
    config: GrpoConfig,
    prompts: Sequence[Sequence[int]],
    groups: Sequence[Sequence[SampledAnswer]],
    eos: int,
    monkeypatch: pytest.MonkeyPatch,
    microbatch: int,
    start: Any = None,
) -> tuple[StepScore, dict[str, torch.Tensor]]:
    """Returns what a step comes to whose prompts are given these answers, and its gradients."""
    monkeypatch.setattr(sampled_loss, "sample_answers", lambda network, asked, *args, **options: groups)
    asked = [Asked(prompt, lambda reply: {"worth": worth(reply)}) for prompt in prompts]
    sampling = SamplingPlan(config, lambda store, numbers: asked, [eos], 1000, 64, 0)

    def loss(network: Any, passes: Passes) -> Any:
        made = SampledLoss(network, objective, passes, sampling, kept_as(start, network) if start else None)
        return SecondStep(network, made) if config.num_iterations > 1 else made

    store = TokenStore.of(Example(np.array(prompt), np.ones(len(prompt), np.float32), 1) for prompt in prompts)
    return step_gradients(copy.deepcopy(model), store, loss, microbatch=microbatch)


class SecondStep:
    """The second step that learns from the same answers, by a model that has moved meanwhile."""

    def __init__(self, network: Any, loss: SampledLoss) -> None:
        self._network, self._loss = network, loss

    def backward(self, *args: Any) -> StepScore:
        self._loss.backward(*args)
        self._network.zero_grad()
        moved(self._network)
        self._loss.load_state(self._loss.state())  # as one that goes on with it
        return self._loss.backward(*args)


VARIANTS: dict[str, tuple[Mapping[str, Any], GrpoConfig]] = {
    "dapo": ({"loss_type": "dapo"}, GrpoConfig(group_size=ANSWERS, max_new_tokens=TOKENS)),
    "grpo by batch": (
        {"loss_type": "grpo", "scale_rewards": "batch"},
        GrpoConfig(group_size=ANSWERS, max_new_tokens=TOKENS, loss="grpo", scale_rewards="batch"),
    ),
    "dr_grpo": (
        {"loss_type": "dr_grpo", "scale_rewards": "none"},
        GrpoConfig(group_size=ANSWERS, max_new_tokens=TOKENS, loss="dr_grpo", scale_rewards="none"),
    ),
    "cut-off answers masked": (
        {"loss_type": "dapo", "mask_truncated_completions": True, "seed": 1},
        GrpoConfig(group_size=ANSWERS, max_new_tokens=TOKENS, mask_truncated_completions=True),
    ),
    "cut-off answers masked, by answers": (
        {"loss_type": "grpo", "beta": 0.2, "mask_truncated_completions": True, "seed": 1},
        GrpoConfig(group_size=ANSWERS, max_new_tokens=TOKENS, loss="grpo", beta=0.2, mask_truncated_completions=True),
    ),
    "a second step": (
        {"loss_type": "dapo", "num_iterations": 2, "epsilon": 0.1, "epsilon_high": 0.3},
        GrpoConfig(group_size=ANSWERS, max_new_tokens=TOKENS, num_iterations=2, epsilon=0.1, epsilon_high=0.3),
    ),
    "a second step by answers, near its start": (
        {
            "loss_type": "grpo",
            "num_iterations": 2,
            "beta": 0.3,
            "delta": 1.3,
            "mask_truncated_completions": True,
            "seed": 1,
        },
        GrpoConfig(
            group_size=ANSWERS,
            max_new_tokens=TOKENS,
            loss="grpo",
            num_iterations=2,
            beta=0.3,
            delta=1.3,
            mask_truncated_completions=True,
        ),
    ),
    "a second step, by ratios of answers": (
        {"loss_type": "grpo", "num_iterations": 2, "importance_sampling_level": "sequence", "epsilon": 0.05},
        GrpoConfig(
            group_size=ANSWERS,
            max_new_tokens=TOKENS,
            loss="grpo",
            num_iterations=2,
            importance_sampling_level="sequence",
            epsilon=0.05,
        ),
    ),
    "a divergence, hotter": (
        {"loss_type": "dapo", "beta": 0.3, "temperature": 1.3},
        GrpoConfig(group_size=ANSWERS, max_new_tokens=TOKENS, beta=0.3, temperature=1.3),
    ),
    "a divergence by answers, cooler": (
        {"loss_type": "grpo", "beta": 0.2, "temperature": 0.6},
        GrpoConfig(group_size=ANSWERS, max_new_tokens=TOKENS, loss="grpo", beta=0.2, temperature=0.6),
    ),
    "repetition penalized": (
        {"loss_type": "dapo", "repetition_penalty": 1.5},
        GrpoConfig(group_size=ANSWERS, max_new_tokens=TOKENS, repetition_penalty=1.5),
    ),
    "sampled from the likeliest tokens": (
        {"loss_type": "dapo", "temperature": 0.9, "top_k": 100, "top_p": 0.9, "min_p": 0.02},
        GrpoConfig(group_size=ANSWERS, max_new_tokens=TOKENS, temperature=0.9, top_k=100, top_p=0.9, min_p=0.02),
    ),
}

AT_ONCE = ("dapo", "grpo by batch", "dr_grpo", "a divergence, hotter", "a divergence by answers, cooler")
"""Those that are computed in one pass, too."""


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("variant", "microbatch"), [*((variant, 40) for variant in VARIANTS), *((variant, 100_000) for variant in AT_ONCE)]
)
def test_grpo(
    model: Any, tiny_model: Path, tmp_path: Path, variant: str, microbatch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from datasets import Dataset
    from transformers import AutoTokenizer
    from trl import GRPOConfig, GRPOTrainer

    fields, config = VARIANTS[variant]
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    eos = tokenizer.eos_token_id
    given: list[tuple[str, list[int]]] = []

    def rewarded(prompts: list[str], completion_ids: list[list[int]], **kwargs: Any) -> list[float]:
        given.extend(zip(prompts, completion_ids, strict=True))
        return [worth([token for token in ids if token != eos]) for ids in completion_ids]

    trainer = GRPOTrainer(
        model=copy.deepcopy(model),
        reward_funcs=rewarded,
        args=GRPOConfig(
            output_dir=str(tmp_path),
            report_to=[],
            per_device_train_batch_size=ANSWERS * len(PROMPTS),
            num_generations=ANSWERS,
            max_completion_length=TOKENS,
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            shuffle_dataset=False,
            **fields,
        ),
        train_dataset=Dataset.from_list([{"prompt": prompt} for prompt in PROMPTS]),
        processing_class=tokenizer,
    )
    second = config.num_iterations > 1
    ahead = moved(copy.deepcopy(model)) if config.beta and not second else model
    if config.beta and not second:
        moved(trainer.model)
    trainer.model.train()
    batch = trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
    trainer.current_gradient_accumulation_steps = 1
    if second:
        moved(trainer.model)
    trainer._compute_loss(trainer.model, batch).backward()
    theirs = gradients(trainer.model)

    rows = zip(batch["prompt_ids"], batch["prompt_mask"], strict=True)
    prompts = [tokenizer(prompt)["input_ids"] for prompt in PROMPTS]
    assert all(ids[mask.bool()].tolist() in prompts for ids, mask in rows)
    groups = [[SampledAnswer(ids, ids[-1] == eos) for asked, ids in given if asked == prompt] for prompt in PROMPTS]
    answers = [answer for group in groups for answer in group]
    start = model if config.beta else None
    score, ours = step_of(ahead, Grpo(config), config, prompts, groups, eos, monkeypatch, microbatch, start)
    if config.beta:
        assert score.metrics["kl"] > 0.01, "the model has moved"
        [theirs_kl] = trainer._metrics["train"]["kl"]
        answers_kl = score.metrics["kl"]
        assert config.loss == "dapo" or answers_kl != pytest.approx(theirs_kl), "theirs is a mean over tokens"
    if second:
        assert 0 < score.metrics["clip_ratio"] < 0.8
    if config.mask_truncated_completions:
        assert 0 < sum(answer.ended for answer in answers) < len(answers)
    rewards = [worth(answer.ids[: len(answer.ids) - answer.ended]) for answer in answers]
    assert len({*rewards}) > 2 and len({len(answer.ids) for answer in answers}) > 1
    assert score.loss == pytest.approx(-sum(rewards) / len(rewards))
    assert ours.keys() == theirs.keys() and len(ours) == 8
    largest = max(float(gradient.abs().max()) for gradient in theirs.values())
    assert largest > 1e-4, "there is a gradient to compare"
    for name, gradient in theirs.items():
        assert torch.allclose(ours[name], gradient, atol=1e-5 * largest, rtol=1e-4), name


class Clipped(Grpo):
    """An objective whose losses are not in proportion to its advantages."""

    def __init__(self, config: GrpoConfig) -> None:
        super().__init__(config)
        self.given: list[float] = []

    def losses(self, scores: Scores) -> torch.Tensor:
        self.given += scores.by_example[ADVANTAGE].tolist()
        advantages = scores.by_example[ADVANTAGE].clamp(max=0.5)
        return super().losses(replace(scores, by_example={**scores.by_example, ADVANTAGE: advantages}))

    def metrics(self, scores: Scores) -> Mapping[str, torch.Tensor]:
        return {"clipped": (scores.by_example[ADVANTAGE] > 0.5).float()}


def test_answers_without_an_advantage_change_no_other_ones(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """An objective is given its own advantages; a prompt whose answers are all alike counts in the mean alone."""
    config = GrpoConfig(group_size=2, max_new_tokens=TOKENS, loss="grpo")
    told = [SampledAnswer([7, 9, 11], ended=False), SampledAnswer([9, 10], ended=False)]
    alike = [SampledAnswer([9, 11], ended=False)] * 2
    objective = Clipped(config)
    _, alone = step_of(model, Clipped(config), config, [[3, 4, 5]], [told], 2, monkeypatch, 60)
    score, ours = step_of(model, objective, config, [[3, 4, 5], [6, 8]], [told, alike], 2, monkeypatch, 60)
    assert objective.given == pytest.approx(objective.advantages(torch.tensor([[1.0, 0.0]])).flatten().tolist())
    assert score.metrics["clipped"] == 0.5 and score.metrics["same_reward"] == 0.5
    assert max(float(gradient.abs().max()) for gradient in alone.values()) > 1e-4
    for name, gradient in alone.items():
        assert torch.allclose(ours[name], gradient / 2, atol=1e-7), name
