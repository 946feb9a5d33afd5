"""Losses and gradients equal those of TRL's trainers, on the batches that those make, through a peft LoRA."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from graftkit.interfaces.objective_config import Minimizes
from graftkit.store.token_store import SEQUENCE, Example, TokenStore
from graftkit.training.objective_loss import ObjectiveLoss
from graftkit.training.step_loss import REFERENCE, Passes, StepScore
from graftkit_objectives.config import DpoConfig, KtoConfig, OrpoConfig, SimpoConfig
from graftkit_objectives.dpo import Dpo
from graftkit_objectives.kto import Kto
from graftkit_objectives.orpo import Orpo
from graftkit_objectives.simpo import Simpo
from reference import gradients, step_gradients

CPU = torch.device("cpu")
WORDS = ["the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog", "and", "then", "some", "more"]


def text(random: np.random.Generator, most: int) -> str:
    return " ".join(random.choice(WORDS, random.integers(2, most)))


@pytest.fixture(scope="module")
def pairs() -> list[dict[str, str]]:
    random = np.random.default_rng(0)
    return [
        {"prompt": text(random, 9) + " ", "chosen": text(random, 12), "rejected": text(random, 5)} for _ in range(4)
    ]


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> Any:
    """A tiny llama with a LoRA of peft's at its start."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    network = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        return get_peft_model(network, LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "down_proj"]))


def moved(model: Any) -> Any:
    """Moves the adapter from its start; TRL's trainers compare with a copy that they make of it there."""
    random = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        if name.endswith("lora_B.default.weight"):
            parameter.data = torch.randn(parameter.shape, generator=random) * 0.3
    return model


def arguments(kind: type, tmp_path: Path, **more: Any) -> Any:
    return kind(
        output_dir=str(tmp_path),
        report_to=[],
        per_device_train_batch_size=4,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        disable_dropout=False,
        train_sampling_strategy="sequential",
        **more,
    )


def trained_by_trl(trainer: Any) -> tuple[float, Mapping[str, torch.Tensor], Mapping[str, torch.Tensor]]:
    """Returns the loss, the gradients and the batch of a trainer's first step."""
    batch = next(iter(trainer.get_train_dataloader()))
    loss = trainer.compute_loss(moved(trainer.model), batch)
    loss.backward()
    return loss.item(), gradients(trainer.model), batch


def example(rows: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]], **by_example: Any) -> Example:
    """Puts rows of (ids, attention mask, completion mask) together as the sequences of one example."""
    ids = [row[mask.bool()].numpy().astype(np.int64) for row, mask, _ in rows]
    weights = [answer[mask.bool()].numpy().astype(np.float32) for _, mask, answer in rows]
    numbers = [np.full(len(row), number, np.uint8) for number, row in enumerate(ids)]
    return Example(np.concatenate(ids), np.concatenate(weights), 1, {SEQUENCE: np.concatenate(numbers)}, by_example)


def store_of(model: Any, examples: list[Example], *, reference: bool) -> TokenStore:
    """Adds what the base model gives each token, by transformers' own code."""
    store = TokenStore.of(examples)
    if not reference:
        return store
    column = np.zeros(len(store.ids), np.float32)
    at = 0
    for sequence in (sequence for row in store for sequence in row.sequences):
        ids = torch.from_numpy(sequence.ids)
        with torch.no_grad(), model.disable_adapter():
            logps = model(input_ids=ids[None]).logits[0].log_softmax(-1)
        column[at + 1 : at + len(ids)] = logps[:-1].gather(1, ids[1:, None]).squeeze(1).numpy()
        at += len(ids)
    return TokenStore.from_arrays(
        ids=store.ids,
        loss_weight=store.loss_weight,
        offsets=store.offsets,
        prompt_lengths=store.prompt_lengths,
        by_token={**store.by_token, REFERENCE: column},
        by_example=store.by_example,
    )


def trained_here(
    model: Any,
    objective: Any,
    store: TokenStore,
    *,
    minimizes: Minimizes = "examples",
    microbatch: int = 60,
    packed: bool = True,
) -> tuple[StepScore, Mapping[str, torch.Tensor]]:
    def loss(network: Any, passes: Passes) -> ObjectiveLoss:
        return ObjectiveLoss(network, objective, passes, minimizes)

    return step_gradients(model, store, loss, packed=packed, microbatch=microbatch)


def check(
    expected: tuple[float, Mapping[str, torch.Tensor]], found: tuple[StepScore, Mapping[str, torch.Tensor]]
) -> None:
    loss, theirs = expected
    score, ours = found
    assert score.loss == pytest.approx(loss, rel=1e-5, abs=5e-6), "robust losses are differences of terms near 1"
    assert ours.keys() == theirs.keys() and len(ours) == 8
    largest = max(float(gradient.abs().max()) for gradient in theirs.values())
    assert largest > 1e-4, "there is a gradient to compare"
    for name, gradient in theirs.items():
        assert torch.allclose(ours[name], gradient, atol=1e-5 * largest, rtol=1e-4), name


def dataset(rows: list[dict[str, Any]]) -> Any:
    from datasets import Dataset

    return Dataset.from_list(rows)


def tokenizer(tiny_model: Path) -> Any:
    from transformers import AutoTokenizer

    found = AutoTokenizer.from_pretrained(tiny_model)
    found.pad_token = found.pad_token or found.eos_token
    return found


DPO = {
    "sigmoid": ({"loss_type": "sigmoid"}, DpoConfig(beta=0.3)),
    "ipo": ({"loss_type": "ipo"}, DpoConfig(beta=0.3, loss="ipo")),
    "hinge": ({"loss_type": "hinge"}, DpoConfig(beta=0.3, loss="hinge")),
    "robust": (
        {"loss_type": "robust", "label_smoothing": 0.2},
        DpoConfig(beta=0.3, loss="robust", label_smoothing=0.2),
    ),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("variant", DPO)
@pytest.mark.parametrize("packed", [True, False])
def test_dpo(model: Any, pairs: Any, tiny_model: Path, tmp_path: Path, variant: str, packed: bool) -> None:
    from trl import DPOConfig, DPOTrainer

    fields, config = DPO[variant]
    trainer = DPOTrainer(
        model=copy.deepcopy(model),
        args=arguments(DPOConfig, tmp_path, beta=0.3, **fields),
        train_dataset=dataset(pairs),
        processing_class=tokenizer(tiny_model),
    )
    loss, theirs, batch = trained_by_trl(trainer)
    columns = (batch["input_ids"], batch["attention_mask"], batch["completion_mask"])
    rows = list(zip(*columns, strict=True))
    half = len(rows) // 2
    examples = [example([rows[number], rows[half + number]]) for number in range(half)]
    mine = moved(copy.deepcopy(model))
    store = store_of(mine, examples, reference=True)
    check((loss, theirs), trained_here(mine, Dpo(config), store, packed=packed))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("microbatch", [60, 100_000])
def test_kto(model: Any, pairs: Any, tiny_model: Path, tmp_path: Path, microbatch: int) -> None:
    """Whether the step is one pass, or the divergence is estimated over several."""
    from trl import KTOConfig, KTOTrainer

    rows = [
        {"prompt": pair["prompt"], "completion": pair[key], "label": key == "chosen"}
        for pair, key in zip(pairs, ["chosen", "rejected", "chosen", "chosen"], strict=True)
    ]
    trainer = KTOTrainer(
        model=copy.deepcopy(model),
        args=arguments(KTOConfig, tmp_path, beta=0.3, desirable_weight=1.2, undesirable_weight=0.7),
        train_dataset=dataset(rows),
        processing_class=tokenizer(tiny_model),
    )
    loss, theirs, batch = trained_by_trl(trainer)
    own = zip(batch["input_ids"], batch["attention_mask"], batch["completion_mask"], strict=True)
    other = zip(batch["KL_input_ids"], batch["KL_attention_mask"], batch["KL_completion_mask"], strict=True)
    examples = [
        example([mine, theirs], wanted=np.uint8(wanted))
        for mine, theirs, wanted in zip(own, other, batch["label"], strict=True)
    ]
    mine = moved(copy.deepcopy(model))
    store = store_of(mine, examples, reference=True)
    objective = Kto(KtoConfig(beta=0.3, wanted_weight=1.2, unwanted_weight=0.7))
    found = trained_here(mine, objective, store, minimizes="step", microbatch=microbatch)
    assert found[0].metrics["kl"] > 0, "the divergence that is estimated has a part in the loss"
    check((loss, theirs), found)


def concatenated(pairs: list[dict[str, str]], tiny_model: Path) -> list[Example]:
    """Pairs as tokens, an end token after each answer."""
    made = tokenizer(tiny_model)
    examples = []
    for pair in pairs:
        prompt = made(pair["prompt"], add_special_tokens=False)["input_ids"]
        rows = []
        for key in ("chosen", "rejected"):
            answer = [*made(pair[key], add_special_tokens=False)["input_ids"], made.eos_token_id]
            ids = torch.tensor([*prompt, *answer])
            rows.append((ids, torch.ones(len(ids)), torch.tensor([0] * len(prompt) + [1] * len(answer))))
        examples.append(example(rows))
    return examples


def logps_by_trl(model: Any, examples: list[Example], trainer: Any, side: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns TRL's mean log-probability of each answer, by its own function, and each answer's tokens."""
    found, counts = [], []
    for row in examples:
        sequence = row.sequences[side]
        ids = torch.from_numpy(sequence.ids)
        labels = torch.where(torch.from_numpy(sequence.loss_weight) > 0, ids, -100)
        logits = model(input_ids=ids[None]).logits
        found.append(trainer.get_batch_logps(logits, labels[None], average_log_prob=True)[0])
        counts.append((labels != -100).sum())
    return torch.stack(found), torch.stack(counts)


class Stub:
    """What TRL's loss functions read of their trainer."""

    def __init__(self, **values: Any) -> None:
        self.__dict__.update(values)
        self.accelerator = self
        self.device = CPU


@pytest.mark.filterwarnings("ignore")
def test_orpo(model: Any, pairs: Any, tiny_model: Path) -> None:
    """The odds ratio is TRL's function; the likelihood is the answer's, where TRL's is that of the prompt, too."""
    from trl.experimental.orpo import ORPOTrainer

    examples = concatenated(pairs, tiny_model)
    reference = moved(copy.deepcopy(model))
    chosen, _ = logps_by_trl(reference, examples, ORPOTrainer, 0)
    rejected, _ = logps_by_trl(reference, examples, ORPOTrainer, 1)
    ratios, *_ = ORPOTrainer.odds_ratio_loss(Stub(beta=0.4), chosen, rejected)
    loss = (-chosen - ratios).mean()
    loss.backward()
    mine = moved(copy.deepcopy(model))
    store = store_of(mine, examples, reference=False)
    check((loss.item(), gradients(reference)), trained_here(mine, Orpo(OrpoConfig(beta=0.4)), store))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("nll_weight", [0.0, 0.5])
def test_simpo(model: Any, pairs: Any, tiny_model: Path, nll_weight: float) -> None:
    """The loss is TRL's `cpo_loss` of the type simpo."""
    from trl.experimental.cpo import CPOTrainer

    examples = concatenated(pairs, tiny_model)
    reference = moved(copy.deepcopy(model))
    chosen, _ = logps_by_trl(reference, examples, CPOTrainer, 0)
    rejected, _ = logps_by_trl(reference, examples, CPOTrainer, 1)
    stub = Stub(beta=2.5, simpo_gamma=0.8, alpha=0.0, loss_type="simpo", label_smoothing=0.0)
    losses, *_ = CPOTrainer.cpo_loss(stub, chosen, rejected)
    loss = losses.mean() - nll_weight * chosen.mean()
    loss.backward()
    mine = moved(copy.deepcopy(model))
    store = store_of(mine, examples, reference=False)
    objective = Simpo(SimpoConfig(beta=2.5, gamma=0.8, nll_weight=nll_weight))
    check((loss.item(), gradients(reference)), trained_here(mine, objective, store))


@pytest.mark.filterwarnings("ignore")
def test_conservative_dpo(model: Any, pairs: Any, tiny_model: Path) -> None:
    """The smoothed loss is that of TRL's CPO, on what each answer has gained over the base model."""
    from trl.experimental.cpo import CPOTrainer

    examples = concatenated(pairs, tiny_model)
    reference = moved(copy.deepcopy(model))
    gained = []
    for side in (0, 1):
        means, counts = logps_by_trl(reference, examples, CPOTrainer, side)
        with torch.no_grad(), reference.disable_adapter():
            before, _ = logps_by_trl(reference, examples, CPOTrainer, side)
        gained.append((means - before) * counts)
    stub = Stub(beta=0.3, alpha=0.0, loss_type="sigmoid", label_smoothing=0.15)
    losses, *_ = CPOTrainer.cpo_loss(stub, *gained)
    losses.mean().backward()
    mine = moved(copy.deepcopy(model))
    store = store_of(mine, examples, reference=True)
    found = trained_here(mine, Dpo(DpoConfig(beta=0.3, label_smoothing=0.15)), store)
    check((losses.mean().item(), gradients(reference)), found)
