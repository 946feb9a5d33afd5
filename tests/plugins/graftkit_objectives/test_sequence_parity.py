"""Losses and gradients of heads equal those of transformers' classes and TRL's trainer, through a peft LoRA."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from encoder_models import encoder_folder
from graftkit.interfaces.scores import LABEL, LABELS, SCORE, SequenceScores
from graftkit.model.packing import Packing, use_packing
from graftkit.store.token_store import SEQUENCE, TYPE, Example, TokenStore
from graftkit.training.head_loss import HeadLoss, OfSequences
from graftkit.training.step_loss import Passes, StepScore
from graftkit_objectives.classification import Classification
from graftkit_objectives.config import ClassificationConfig, MultiLabelConfig, RegressionConfig, RewardConfig
from graftkit_objectives.f1 import macro_f1
from graftkit_objectives.multi_label import MultiLabelClassification
from graftkit_objectives.regression import Regression
from graftkit_objectives.reward import Reward
from reference import gradients, step_gradients
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

CPU = torch.device("cpu")
IDS = [[2, 40, 41, 9, 12, 3], [2, 7, 3], [2, *range(20, 45), 3], [2, 30, 31, 3], [2, 5, 6, 7, 8, 3]]
CLASSES = [0, 2, 1, 1, 2]
SETS = [[1, 0, 1], [0, 0, 0], [1, 1, 1], [0, 1, 0], [0, 1, 1]]
NUMBERS = [0.5, -1.25, 3.0, 0.1, 0.0]


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
def made(request: Any, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Any]:
    """Makes the models with so many outputs, each once."""
    if request.param == "llama":
        return cache(partial(_adapted_to, tiny_model, modules=["score"], targets=["q_proj", "down_proj"]))
    folder = encoder_folder(tmp_path_factory.mktemp("models") / "bert", "bert")
    names = {"modules": ["bert.pooler", "classifier"], "targets": ["query", "intermediate.dense"]}
    return cache(partial(_adapted_to, folder, **names))


def _adapted_to(folder: Path, labels: int, **names: Any) -> Any:
    return adapted(folder, labels=labels, **names)


def padded(ids: Sequence[Sequence[int]]) -> dict[str, torch.Tensor]:
    longest = max(map(len, ids))
    return {
        "input_ids": torch.tensor([[*row, *[0] * (longest - len(row))] for row in ids]),
        "attention_mask": torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in ids]),
    }


def trained_here(
    model: Any,
    objective: Any,
    store: TokenStore,
    *,
    packed: bool,
    microbatch: int,
    weights: Sequence[float] | None = None,
) -> tuple[StepScore, Mapping[str, torch.Tensor]]:
    def loss(network: Any, passes: Passes) -> HeadLoss:
        return HeadLoss(network, objective, passes, OfSequences(weights))

    return step_gradients(model, store, loss, packed=packed, microbatch=microbatch)


def check(loss: float, theirs: Mapping[str, torch.Tensor], score: StepScore, ours: Mapping[str, torch.Tensor]) -> None:
    assert score.loss == pytest.approx(loss, rel=1e-5, abs=1e-6)
    assert ours.keys() == theirs.keys() and any("lora_A" in name for name in ours)
    assert any("lora_" not in name for name in ours), "the head is trained, too"
    largest = max(float(gradient.abs().max()) for gradient in theirs.values())
    assert largest > 1e-3, "there is a gradient to compare"
    for name, gradient in theirs.items():
        assert torch.allclose(ours[name], gradient, atol=1e-5 * largest, rtol=1e-4), name


def stored(columns: Sequence[Mapping[str, Any]]) -> TokenStore:
    def example(ids: Sequence[int], column: Mapping[str, Any]) -> Example:
        weights = np.array([0] * (len(ids) - 1) + [1], np.float32)
        return Example(np.array(ids), weights, 0, {}, column)

    return TokenStore.of(example(ids, column) for ids, column in zip(IDS, columns, strict=True))


def learnt_there(model: Any, problem: str, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the loss that transformers' class gives the texts, and their scores; a padded batch."""
    model.zero_grad()
    model.get_base_model().config.problem_type = problem
    model.get_base_model().set_attn_implementation("eager")
    output = model(**padded(IDS), labels=labels)
    return output.loss, output.logits


PASSES = pytest.mark.parametrize("packed,microbatch", [(True, 30), (True, 1000), (False, 1000)])


@PASSES
def test_classification(made: Callable[[int], Any], packed: bool, microbatch: int) -> None:
    model = made(3)
    loss, logits = learnt_there(model, "single_label_classification", torch.tensor(CLASSES))
    loss.backward()
    expected = loss.item(), gradients(model)
    right = (logits.argmax(1) == torch.tensor(CLASSES)).float().mean().item()
    store = stored([{LABEL: np.int32(label)} for label in CLASSES])
    found = trained_here(model, Classification(ClassificationConfig()), store, packed=packed, microbatch=microbatch)
    check(*expected, *found)
    assert found[0].metrics == {"accuracy": pytest.approx(right)}
    assert found[0].tokens == sum(map(len, IDS)) and found[0].loss_tokens == len(IDS)


@PASSES
def test_pairs_of_texts_are_told_apart_by_types(tmp_path: Path, packed: bool, microbatch: int) -> None:
    folder = encoder_folder(tmp_path / "bert", "bert")
    model = adapted(folder, labels=3, modules=["bert.pooler", "classifier"], targets=["query", "intermediate.dense"])
    types = [[0] * (len(ids) // 2) + [1] * (len(ids) - len(ids) // 2) for ids in IDS]
    longest = max(map(len, IDS))
    of = torch.tensor([[*row, *[0] * (longest - len(row))] for row in types])
    loss = model(**padded(IDS), token_type_ids=of, labels=torch.tensor(CLASSES)).loss
    loss.backward()
    expected = loss.item(), gradients(model)
    untyped = stored([{LABEL: np.int32(label)} for label in CLASSES])
    typed = [
        replace(example, by_token={TYPE: np.array(row, np.uint8)}) for example, row in zip(untyped, types, strict=True)
    ]
    objective = Classification(ClassificationConfig())
    found = trained_here(model, objective, TokenStore.of(typed), packed=packed, microbatch=microbatch)
    check(*expected, *found)
    without = trained_here(model, objective, untyped, packed=packed, microbatch=microbatch)[0]
    assert abs(without.loss - found[0].loss) > 1e-3


@PASSES
def test_class_weights_are_those_of_cross_entropy(made: Callable[[int], Any], packed: bool, microbatch: int) -> None:
    model, weights = made(3), [0.25, 3.0, 1.0]
    _, logits = learnt_there(model, "single_label_classification", torch.tensor(CLASSES))
    loss = cross_entropy(logits, torch.tensor(CLASSES), weight=torch.tensor(weights))
    loss.backward()
    expected = loss.item(), gradients(model)
    store, objective = stored([{LABEL: np.int32(label)} for label in CLASSES]), Classification(ClassificationConfig())
    found = trained_here(model, objective, store, packed=packed, microbatch=microbatch, weights=weights)
    check(*expected, *found)


@PASSES
def test_multi_label_classification(made: Callable[[int], Any], packed: bool, microbatch: int) -> None:
    model = made(3)
    loss, logits = learnt_there(model, "multi_label_classification", torch.tensor(SETS).float())
    loss.backward()
    expected = loss.item(), gradients(model)
    exact = ((logits.sigmoid() > 0.5) == torch.tensor(SETS).bool()).all(1).float().mean().item()
    store = stored([{LABELS: np.array(row, np.uint8)} for row in SETS])
    objective = MultiLabelClassification(MultiLabelConfig())
    found = trained_here(model, objective, store, packed=packed, microbatch=microbatch)
    check(*expected, *found)
    assert found[0].metrics == {"subset_accuracy": pytest.approx(exact)}


@PASSES
def test_label_weights_are_pos_weight(made: Callable[[int], Any], packed: bool, microbatch: int) -> None:
    model, weights = made(3), [0.25, 3.0, 1.0]
    _, logits = learnt_there(model, "multi_label_classification", torch.tensor(SETS).float())
    loss = binary_cross_entropy_with_logits(logits, torch.tensor(SETS).float(), pos_weight=torch.tensor(weights))
    loss.backward()
    expected = loss.item(), gradients(model)
    store = stored([{LABELS: np.array(row, np.uint8)} for row in SETS])
    objective = MultiLabelClassification(MultiLabelConfig())
    found = trained_here(model, objective, store, packed=packed, microbatch=microbatch, weights=weights)
    check(*expected, *found)


@PASSES
def test_regression(made: Callable[[int], Any], packed: bool, microbatch: int) -> None:
    model = made(1)
    loss, logits = learnt_there(model, "regression", torch.tensor(NUMBERS))
    loss.backward()
    expected = loss.item(), gradients(model)
    mae = (logits[:, 0] - torch.tensor(NUMBERS)).abs().mean().item()
    store = stored([{SCORE: np.float32(number)} for number in NUMBERS])
    found = trained_here(model, Regression(RegressionConfig()), store, packed=packed, microbatch=microbatch)
    check(*expected, *found)
    assert found[0].metrics == {"mae": pytest.approx(mae)}


def test_figures_of_all_records_are_no_means_of_passes(made: Callable[[int], Any]) -> None:
    """As scikit-learn's f1_score gives them for these texts, and torch's corrcoef; passes of one text have none."""
    objective = MultiLabelClassification(MultiLabelConfig())
    scores = torch.tensor([[1, -1, 1], [1, -1, -1], [-1, 1, 1], [-1, 1, -1], [-1, -1, 1]]).float()[:, None]
    told = objective.overall(objective.kept(SequenceScores(scores, {LABELS: torch.tensor(SETS)})))
    assert told == {"micro_f1": pytest.approx(0.8), "macro_f1": pytest.approx((0.5 + 0.8 + 1) / 3)}
    three, four = (torch.tensor(SETS).bool(), torch.zeros(len(SETS), 4, dtype=torch.bool))
    four[:, :3] = three
    assert macro_f1(four, four) == macro_f1(three, three) == 1, "a label that no text has says nothing"
    values = torch.eye(3)[[0, 2, 2, 1, 0]][:, None]
    one_label = Classification(ClassificationConfig())
    told = one_label.overall(one_label.kept(SequenceScores(values, {LABEL: torch.tensor(CLASSES)})))
    assert told == {"macro_f1": pytest.approx((2 / 3 + 2 / 3 + 0.5) / 3)}
    network, store = made(1), stored([{SCORE: np.float32(number)} for number in NUMBERS])
    passes = Passes(10, True, CPU)
    use_packing(network.get_base_model(), Packing(True))
    loss = HeadLoss(network.get_base_model(), Regression(RegressionConfig()), passes, OfSequences())
    found = loss.evaluate(store, passes.all_groups(store), lambda done, every: None)
    with torch.no_grad():
        network.get_base_model().set_attn_implementation("eager")
        theirs = network(**padded(IDS)).logits[:, 0]
    together = torch.stack([theirs, torch.tensor(NUMBERS)])
    assert found.metrics["pearson"] == pytest.approx(torch.corrcoef(together)[0, 1].item(), rel=1e-4)


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
