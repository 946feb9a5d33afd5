"""Losses and gradients of heads equal those of transformers' classes and TRL's trainer, through a peft LoRA."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from encoder_models import encoder_folder
from graftkit.interfaces.objective import LABEL
from graftkit.store.token_store import SEQUENCE, Example, TokenStore
from graftkit.training.sequence_loss import SequenceLoss
from graftkit.training.step_loss import Passes, StepScore
from graftkit_objectives.classification import Classification
from graftkit_objectives.config import ClassificationConfig, RewardConfig
from graftkit_objectives.reward import Reward
from reference import gradients, step_gradients

CPU = torch.device("cpu")
IDS = [[2, 40, 41, 9, 12, 3], [2, 7, 3], [2, *range(20, 45), 3], [2, 30, 31, 3], [2, 5, 6, 7, 8, 3]]
LABELS = [0, 2, 1, 1, 2]


def adapted(folder: Path, *, labels: int, modules: Sequence[str], targets: Sequence[str]) -> Any:
    """Returns a classifier of transformers' with peft's LoRA, moved from its start, and its head trained."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForSequenceClassification

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        network = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=labels, dtype=torch.float32)
        network.config.pad_token_id = 0
        config = LoraConfig(r=4, task_type="SEQ_CLS", target_modules=[*targets], modules_to_save=[*modules])
        model = get_peft_model(network, config)
        for name, parameter in model.named_parameters():
            if name.endswith("lora_B.default.weight"):
                torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()  # without BERT's dropout, which would leave out other numbers here and there


@pytest.fixture(scope="module", params=["llama", "bert"])
def model(request: Any, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    if request.param == "llama":
        return adapted(tiny_model, labels=3, modules=["score"], targets=["q_proj", "down_proj"])
    folder = encoder_folder(tmp_path_factory.mktemp("models") / "bert", "bert")
    return adapted(folder, labels=3, modules=["bert.pooler", "classifier"], targets=["query", "intermediate.dense"])


def padded(ids: Sequence[Sequence[int]]) -> dict[str, torch.Tensor]:
    longest = max(map(len, ids))
    return {
        "input_ids": torch.tensor([[*row, *[0] * (longest - len(row))] for row in ids]),
        "attention_mask": torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in ids]),
    }


def trained_here(
    model: Any, objective: Any, store: TokenStore, *, packed: bool, microbatch: int
) -> tuple[StepScore, Mapping[str, torch.Tensor]]:
    def loss(network: Any, passes: Passes) -> SequenceLoss:
        return SequenceLoss(network, objective, passes)

    return step_gradients(model, store, loss, packed=packed, microbatch=microbatch)


def check(loss: float, theirs: Mapping[str, torch.Tensor], score: StepScore, ours: Mapping[str, torch.Tensor]) -> None:
    assert score.loss == pytest.approx(loss, rel=1e-5, abs=1e-6)
    assert ours.keys() == theirs.keys() and any("lora_A" in name for name in ours)
    assert any("lora_" not in name for name in ours), "the head is trained, too"
    largest = max(float(gradient.abs().max()) for gradient in theirs.values())
    assert largest > 1e-3, "there is a gradient to compare"
    for name, gradient in theirs.items():
        assert torch.allclose(ours[name], gradient, atol=1e-5 * largest, rtol=1e-4), name


@pytest.mark.parametrize("packed,microbatch", [(True, 30), (True, 1000), (False, 1000)])
def test_classification(model: Any, packed: bool, microbatch: int) -> None:
    model.zero_grad()
    model.get_base_model().set_attn_implementation("eager")
    output = model(**padded(IDS), labels=torch.tensor(LABELS))
    output.loss.backward()
    expected = output.loss.item(), gradients(model)
    right = (output.logits.argmax(1) == torch.tensor(LABELS)).float().mean().item()

    def example(ids: Sequence[int], label: int) -> Example:
        weights = np.array([0] * (len(ids) - 1) + [1], np.float32)
        return Example(np.array(ids), weights, 0, {}, {LABEL: np.int32(label)})

    store = TokenStore.of(example(ids, label) for ids, label in zip(IDS, LABELS, strict=True))
    found = trained_here(model, Classification(ClassificationConfig()), store, packed=packed, microbatch=microbatch)
    check(*expected, *found)
    assert found[0].metrics == {"accuracy": pytest.approx(right)}
    assert found[0].tokens == sum(map(len, IDS)) and found[0].loss_tokens == len(IDS)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("center", [None, 0.1])
def test_reward(tiny_model: Path, tmp_path: Path, packed: bool, center: float | None) -> None:
    """TRL's trainer on pairs with a margin; the tokens are those of its own batch."""
    from datasets import Dataset
    from transformers import AutoTokenizer
    from trl import RewardConfig as TrlConfig
    from trl import RewardTrainer

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    model = adapted(tiny_model, labels=1, modules=["score"], targets=["q_proj", "down_proj"])
    words = ["the", "quick", "brown", "fox"]
    rows = [
        {"chosen": " ".join(words[: n + 1]), "rejected": " ".join(words[n:]) + "!" * (3 * n), "margin": 0.5}
        for n in range(4)
    ]
    arguments = TrlConfig(
        output_dir=str(tmp_path),
        report_to=[],
        per_device_train_batch_size=4,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        train_sampling_strategy="sequential",
        center_rewards_coefficient=center,
    )
    trainer = RewardTrainer(model, arguments, train_dataset=Dataset.from_list(rows), processing_class=tokenizer)
    batch = next(iter(trainer.get_train_dataloader()))
    kept = {name: tensor.clone() for name, tensor in batch.items()}
    model.zero_grad()
    loss = trainer.compute_loss(model, batch)
    loss.backward()
    expected = loss.item(), gradients(model)
    ids = [row[mask.bool()].tolist() for row, mask in zip(kept["input_ids"], kept["attention_mask"], strict=True)]

    def example(pair: Sequence[Sequence[int]]) -> Example:
        numbers = np.concatenate([np.full(len(row), number, np.uint8) for number, row in enumerate(pair)])
        every = np.concatenate([np.array(row) for row in pair])
        return Example(every, np.ones(len(every), np.float32), 1, {SEQUENCE: numbers})

    store = TokenStore.of(map(example, zip(ids[:4], ids[4:], strict=True)))
    objective = Reward(RewardConfig(margin=0.5, center=center or 0.0))
    score, ours = trained_here(model, objective, store, packed=packed, microbatch=60)
    check(*expected, score, ours)
    told = trainer._metrics["eval"] or trainer._metrics["train"]
    assert score.metrics["accuracy"] == pytest.approx(told["accuracy"][0])
    assert score.metrics["margin"] == pytest.approx(told["margin"][0], rel=1e-4, abs=1e-5)
