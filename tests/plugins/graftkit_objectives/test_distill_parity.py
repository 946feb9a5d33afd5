"""Distillation equals PyTorch's and TRL's divergences on full logits, and a plain float64 one where only k are kept."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from graftkit.model.packing import Packing, use_packing
from graftkit.store.token_store import Example, TokenStore
from graftkit.training import loss as loss_module
from graftkit.training.loss import TokenLoss
from graftkit.training.objective_loss import ObjectiveLoss
from graftkit.training.step_loss import TEACHER_IDS, TEACHER_LOGPS, Passes, StepScore
from graftkit.training.teacher_scores import teacher_scores
from graftkit_objectives.config import DistillConfig
from graftkit_objectives.distill import Distill
from reference import examples, gradients, step_gradients

VOCABULARY = 320
"""Ids of the tiny models."""


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> Any:
    """A tiny llama with a LoRA of peft's that has left its start."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    network = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        made = get_peft_model(network, LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "down_proj"]))
        for name, parameter in made.named_parameters():
            if name.endswith("lora_B.default.weight"):
                torch.nn.init.normal_(parameter, std=0.3)
    return made


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Another architecture, whose embedding has rows that are no tokens of the one that learns."""
    from graftkit.testing import tiny_model_folder
    from transformers import AutoModelForCausalLM

    shape = {"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"], "vocab_size": VOCABULARY + 40}
    folder = tiny_model_folder(tmp_path_factory.mktemp("teacher"), seed=3, **shape)
    network = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    network.model.norm.weight.data *= 3  # surer than random weights are, so that its likeliest tokens matter
    return network


FEWER = VOCABULARY - 30
"""Tokens of a tokenizer for which both models have more rows than they need."""


def logits_of(network: Any, example: Example, known: int = VOCABULARY) -> torch.Tensor:
    """Returns the logits that predict an example's tokens in the loss, by transformers' own code."""
    at = torch.from_numpy(np.flatnonzero(example.loss_mask[1:]))
    found: torch.Tensor = network(input_ids=torch.from_numpy(example.ids)[None], use_cache=False).logits[0, at]
    return found[:, :known]


def weighted() -> list[Example]:
    """Examples with tokens that weigh less than others."""
    random = np.random.default_rng(1)
    return [
        Example(e.ids, e.loss_weight * random.choice([0.5, 1.0], len(e.ids)).astype(np.float32), 1) for e in examples()
    ]


def scored(
    teacher: Any,
    rows: list[Example],
    top_k: int,
    temperature: float,
    *,
    packed: bool = True,
    known: int = VOCABULARY,
) -> TokenStore:
    """Returns the examples with what the teacher says of them, as a run has them."""
    network = copy.deepcopy(teacher)
    use_packing(network, Packing(packed))
    passes, found = Passes(60, packed, torch.device("cpu")), []
    for row in rows:
        (batch,) = passes.batches([row])
        said = teacher_scores(TokenLoss(network, packed=packed), batch, top_k, known, temperature)
        ids = np.zeros((len(row.ids), top_k), np.int32)
        logps = np.zeros((len(row.ids), top_k), np.float32)
        ids[batch.logit_positions + 1], logps[batch.logit_positions + 1] = said.ids, said.logps
        found.append(Example(row.ids, row.loss_weight, 1, {TEACHER_IDS: ids, TEACHER_LOGPS: logps}))
    return TokenStore.of(found)


def trained_here(
    model: Any, store: TokenStore, config: DistillConfig, *, packed: bool = True, microbatch: int = 60
) -> tuple[StepScore, Mapping[str, torch.Tensor]]:
    def loss(network: Any, passes: Passes) -> ObjectiveLoss:
        return ObjectiveLoss(network, Distill(config), passes, config.minimizes, temperature=config.temperature)

    return step_gradients(copy.deepcopy(model), store, loss, packed=packed, microbatch=microbatch)


def check(found: tuple[StepScore, Mapping[str, torch.Tensor]], model: Any, expected: torch.Tensor) -> None:
    """Compares a step with a loss of the same model's own logits, and their gradients."""
    model.zero_grad()
    expected.backward()  # type: ignore[no-untyped-call]
    score, ours = found
    theirs = gradients(model)
    assert score.loss == pytest.approx(expected.item(), rel=2e-5)
    assert ours.keys() == theirs.keys() and len(ours) == 8
    largest = max(float(gradient.abs().max()) for gradient in theirs.values())
    assert largest > 1e-3, "there is a gradient to compare"
    for name, gradient in theirs.items():
        assert torch.allclose(ours[name], gradient, atol=2e-5 * largest, rtol=1e-4), name


def config_of(**fields: Any) -> DistillConfig:
    return DistillConfig(teacher="teacher", **fields)


@pytest.mark.parametrize("known", [VOCABULARY, FEWER])
@pytest.mark.parametrize("temperature", [1.0, 2.5])
@pytest.mark.parametrize("packed", [True, False])
def test_with_every_token_kept_it_is_the_divergence_of_full_logits(
    model: Any, teacher: Any, temperature: float, packed: bool, known: int
) -> None:
    """Beside the likelihood, whose logits no temperature divides; each token with its weight.

    Rows of the model that are no tokens have a part in its distribution, as in use, and none in the teacher's.
    """
    rows = weighted()
    store = scored(teacher, rows, known, temperature, packed=packed, known=known)
    found = trained_here(model, store, config_of(temperature=temperature, alpha=0.7), packed=packed)
    mine = copy.deepcopy(model)
    total, weight = torch.zeros(()), 0.0
    for row in rows:
        ours, theirs = logits_of(mine, row), logits_of(teacher, row, known).detach()
        weights = torch.from_numpy(row.loss_weight[1:][row.loss_mask[1:]])
        labels = torch.from_numpy(row.ids[1:][row.loss_mask[1:]])
        kl = torch.nn.functional.kl_div(
            (ours / temperature).log_softmax(1)[:, :known],
            (theirs / temperature).log_softmax(1),
            reduction="none",
            log_target=True,
        ).sum(1)
        nll = torch.nn.functional.cross_entropy(ours, labels, reduction="none")
        total = total + ((0.7 * kl + 0.3 * nll) * weights).sum()
        weight += float(weights.sum())
    check(found, mine, total / weight)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("beta", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_with_every_token_kept_it_is_trls_loss(model: Any, teacher: Any, beta: float, temperature: float) -> None:
    from trl.experimental.gkd import GKDTrainer

    rows = examples()
    store = scored(teacher, rows, VOCABULARY, temperature)
    found = trained_here(model, store, config_of(temperature=temperature, alpha=1.0, beta=beta))
    mine = copy.deepcopy(model)
    ours = torch.cat([logits_of(mine, row) for row in rows])
    theirs = torch.cat([logits_of(teacher, row) for row in rows]).detach()
    labels = torch.zeros(1, len(ours), dtype=torch.long)
    expected = GKDTrainer.generalized_jsd_loss(
        ours[None], theirs[None], labels=labels, beta=beta, temperature=temperature
    )
    check(found, mine, expected)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("known", [VOCABULARY, FEWER])
@pytest.mark.parametrize("top_k", [1, 8])
@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0])
def test_the_other_tokens_are_one_bucket(model: Any, teacher: Any, top_k: int, beta: float, known: int) -> None:
    """Against a few lines in float64, and with TRL's bucket against TRL's divergence."""
    from trl.experimental.server_distillation.server_distillation_trainer import _add_tail_bucket, _jsd_divergence

    rows, temperature = examples(), 1.5
    store = scored(teacher, rows, top_k, temperature, known=known)
    found = trained_here(model, store, config_of(top_k=top_k, temperature=temperature, alpha=1.0, beta=beta))
    mine = copy.deepcopy(model)
    ours = torch.cat([logits_of(mine, row) for row in rows]) / temperature
    theirs = torch.cat([logits_of(teacher, row, known) for row in rows]).detach() / temperature

    p, q = theirs.double().softmax(1), ours.double().softmax(1)
    best = p.topk(top_k, 1).indices
    p, q = p.gather(1, best), q.gather(1, best)
    p, q = torch.cat([p, 1 - p.sum(1, keepdim=True)], 1), torch.cat([q, 1 - q.sum(1, keepdim=True)], 1)
    mixture = beta * p + (1 - beta) * q
    forward = (p * (p / (q if beta == 0 else mixture)).log()).sum(1)
    reverse = (q * (q / (p if beta == 1 else mixture)).log()).sum(1)
    plain = forward if beta == 0 else reverse if beta == 1 else beta * forward + (1 - beta) * reverse
    check(found, mine, plain.mean().float())

    logps, taught = ours.log_softmax(1).gather(1, best), theirs.log_softmax(1).gather(1, best)
    every = torch.ones_like(logps, dtype=torch.bool)
    (mine_of_all, mask), (teachers, _) = _add_tail_bucket(logps, every), _add_tail_bucket(taught, every)
    trls = _jsd_divergence(mine_of_all, teachers, beta, support_mask=mask).sum(1).mean()
    assert found[0].loss == pytest.approx(trls.item(), rel=2e-5)


def test_pieces_and_passes_change_nothing(model: Any, teacher: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    config, store = config_of(top_k=8), scored(teacher, weighted(), 8, 1.0)
    score, whole = trained_here(model, store, config, microbatch=1000)
    monkeypatch.setitem(loss_module._LOGITS_AT_ONCE, "cpu", 7 * VOCABULARY)
    again, cut = trained_here(model, store, config, microbatch=50)
    assert again.loss == pytest.approx(score.loss, rel=1e-6)
    assert again.metrics == pytest.approx(score.metrics, rel=1e-5) and again.loss_tokens == score.loss_tokens
    for name, gradient in whole.items():
        assert torch.allclose(cut[name], gradient, atol=1e-6, rtol=1e-4), name
    parts = score.metrics
    assert score.loss == pytest.approx(0.5 * parts["divergence"] + 0.5 * parts["nll"], rel=1e-6)
    assert 0 <= parts["agreement"] <= 1


def test_a_head_that_is_no_plain_layer_gives_the_same(
    model: Any, teacher: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, store = config_of(top_k=8, temperature=2.0), scored(teacher, weighted(), 8, 2.0)
    score, pieces = trained_here(model, store, config)
    monkeypatch.setattr(TokenLoss, "_in_pieces", lambda self, batch: False)
    again, whole = trained_here(model, store, config)
    assert again.loss == pytest.approx(score.loss, rel=1e-6)
    for name, gradient in pieces.items():
        assert torch.allclose(whole[name], gradient, atol=1e-6, rtol=1e-4), name


def test_tokens_beyond_the_vocabulary_have_no_part_in_the_teachers_distribution(teacher: Any) -> None:
    store = scored(teacher, examples(), VOCABULARY, 1.0)
    for example in store:
        kept = np.exp(example.by_token[TEACHER_LOGPS][1:][example.loss_mask[1:]].astype(np.float64)).sum(1)
        assert kept == pytest.approx(np.ones(len(kept)), abs=1e-5)
        assert example.by_token[TEACHER_IDS].max() < VOCABULARY
