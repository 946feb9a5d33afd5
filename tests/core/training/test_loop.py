"""Training steps, against plain transformers and torch on padded examples one by one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from graftkit.errors import TrainingError
from graftkit.host.lifecycle import StepInfo
from graftkit.model.adapt import adapt
from graftkit.model.attention import PACKED, register_packed_attention
from graftkit.model.load import load_base_model
from graftkit.model.packing import forward_inputs
from graftkit.model.targets import likely_layers
from graftkit.recipe.schema.training import TrainingSection
from graftkit.store.token_store import Example, TokenStore
from graftkit.training.batch import pack
from graftkit.training.loop import Trainer, holdout_loss
from graftkit.training.loss import summed_loss
from graftkit_adapters.config import LoraConfig
from graftkit_adapters.lora import Lora
from graftkit_models.huggingface import HuggingFaceSource
from graftkit_quantizers.dense import Dense
from graftkit_quantizers.nf4 import Nf4
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM

CPU = torch.device("cpu")


def store(count: int = 12, seed: int = 0) -> TokenStore:
    random = np.random.default_rng(seed)
    examples = []
    for _ in range(count):
        length = int(random.integers(4, 24))
        loss_mask = random.random(length) < 0.5
        loss_mask[-1] = True
        examples.append(Example(random.integers(0, 320, length), loss_mask, 1))
    return TokenStore.of(examples)


def network(folder: Path, quantizer: Any = None, dropout: float = 0.0) -> tuple[Any, list[torch.nn.Parameter]]:
    files = HuggingFaceSource().open(str(folder))
    model: Any = load_base_model(files, quantizer or Dense(), device=CPU)
    register_packed_attention()
    model.set_attn_implementation(PACKED)
    layers = adapt(model, Lora(LoraConfig(rank=4, dropout=dropout)), list(likely_layers(files.tensors)), seed=0)
    return model, [p for layer in layers.values() for p in layer.trainable_parameters().values()]


def named(parameters: list[torch.nn.Parameter]) -> dict[str, torch.nn.Parameter]:
    return {str(number): parameter for number, parameter in enumerate(parameters)}


def reference_loss(model: Any, examples: TokenStore) -> tuple[float, int]:
    """Each example alone, all logits, the loss over its tokens in the loss."""
    total, count = 0.0, 0
    for example in examples:
        logits = model(input_ids=torch.from_numpy(example.ids)[None]).logits[0, :-1]
        labels = torch.from_numpy(np.where(example.loss_mask, example.ids, -100))[1:]
        total += cross_entropy(logits, labels, reduction="sum").item()
        count += int((labels >= 0).sum())
    return total, count


@torch.no_grad()
def test_the_loss_of_packed_examples_is_that_of_each_example_alone(tiny_model: Path) -> None:
    examples = store()
    ours, _ = network(tiny_model)
    batch = pack(list(examples), CPU)
    expected, count = reference_loss(AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32), examples)
    assert len(batch.labels) == count
    assert summed_loss(ours, batch).item() == pytest.approx(expected, rel=1e-5)
    assert holdout_loss(ours, examples, CPU, microbatch_tokens=40).loss == pytest.approx(expected / count, rel=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("packed", [True, False])
def test_an_evaluation_tells_the_loss_of_each_example(tiny_model: Path, packed: bool) -> None:
    """Whatever weights their tokens have; one example has no token in the loss, and its loss is no number."""
    random = np.random.default_rng(3)
    every = list(store())
    every[3] = replace(every[3], loss_weight=np.zeros_like(every[3].loss_weight))
    every[5] = replace(every[5], loss_weight=random.choice([0.0, 0.25, 2.0], len(every[5].ids)).astype(np.float32))
    reference: Any = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    expected = []
    for example in every:
        logits = reference(input_ids=torch.from_numpy(example.ids)[None]).logits[0, :-1]
        nll = cross_entropy(logits, torch.from_numpy(example.ids)[1:], reduction="none").numpy()
        weights = np.asarray(example.loss_weight[1:], dtype=np.float64)
        expected.append((nll * weights).sum() / weights.sum() if weights.any() else float("nan"))
    model, _ = network(tiny_model)
    if not packed:
        model.set_attn_implementation("sdpa")
    found = holdout_loss(model, TokenStore.of(every), CPU, microbatch_tokens=40, packed=packed)
    assert found.losses == pytest.approx(expected, rel=1e-4, nan_ok=True)
    assert found.loss_tokens == sum(int(np.count_nonzero(example.loss_weight[1:])) for example in every)


class Counting(TokenStore):
    """A store that counts how often examples are read."""

    __slots__ = ()
    read: ClassVar[list[int]] = []

    def __getitem__(self, example: int) -> Example:
        self.read.append(example)
        return super().__getitem__(example)


def test_a_step_is_a_mean_over_the_sum_of_weights_and_reads_each_example_once(tiny_model: Path) -> None:
    random = np.random.default_rng(2)
    examples = [replace(example, loss_weight=random.choice([0.5, 0.5, 1.0], len(example.ids))) for example in store()]
    counted = Counting.of(examples)
    reference: Any = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    terms = []
    for example in examples:
        logits = reference(input_ids=torch.from_numpy(example.ids)[None]).logits[0, :-1]
        nll = cross_entropy(logits, torch.from_numpy(example.ids)[1:], reduction="none")
        terms.append((nll * torch.from_numpy(example.loss_weight)[1:]).sum().item())
    expected = sum(terms) / sum(float(example.loss_weight[1:].sum()) for example in examples)
    model, parameters = network(tiny_model)
    assert holdout_loss(model, counted, CPU, microbatch_tokens=40).loss == pytest.approx(expected, rel=1e-5)
    section = TrainingSection(steps=1, tokens_per_step=1000, microbatch_tokens=40, learning_rate=1e-2)
    seen: list[StepInfo] = []
    counted.read.clear()
    Trainer(model, named(parameters), counted, section, CPU).run(seen.append)
    assert seen[0].loss == pytest.approx(expected, rel=1e-5)
    assert seen[0].loss_tokens == sum(len(example.ids) - 1 for example in examples)
    assert sorted(counted.read) == list(range(len(examples)))


def test_no_example_sees_another(tiny_model: Path) -> None:
    ours, _ = network(tiny_model)
    first, second, other = list(store(3))
    batches = [pack([first, second], CPU), pack([first, other], CPU)]
    hidden = [ours.model(**forward_inputs(b.sequences, packed=True))[0] for b in batches]
    length = len(first.ids)
    assert torch.equal(hidden[0][:, :length], hidden[1][:, :length])


def steps(folder: Path, quantizer: Any = None, dropout: float = 0.0, **options: Any) -> tuple[Any, list[StepInfo]]:
    model, parameters = network(folder, quantizer, dropout)
    section = TrainingSection(**{"steps": 4, "tokens_per_step": 60, "learning_rate": 1e-2, **options})
    seen: list[StepInfo] = []
    Trainer(model, named(parameters), store(), section, CPU).run(seen.append)
    return parameters, seen


def test_how_examples_are_cut_into_passes_does_not_change_training(tiny_model: Path) -> None:
    whole, losses = steps(tiny_model, microbatch_tokens=1000)
    cut, again = steps(tiny_model, microbatch_tokens=20)
    for a, b in zip(whole, cut, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)
    assert [s.loss for s in losses] == pytest.approx([s.loss for s in again], rel=1e-4)


@pytest.mark.parametrize(("dropout", "noise"), [(0.0, None), (0.3, 5.0)])
def test_one_seed_gives_one_result_bit_for_bit(tiny_model: Path, dropout: float, noise: float | None) -> None:
    first, _ = steps(tiny_model, Nf4(), dropout, neftune_noise_alpha=noise)
    torch.manual_seed(12345)  # what the process drew before must not matter
    again, _ = steps(tiny_model, Nf4(), dropout, neftune_noise_alpha=noise)
    other, _ = steps(tiny_model, Nf4(), dropout, neftune_noise_alpha=noise, seed=1)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


def test_noise_on_embeddings_is_of_training_steps_alone(tiny_model: Path) -> None:
    model, parameters = network(tiny_model)
    section = TrainingSection(steps=1, tokens_per_step=10_000, neftune_noise_alpha=50.0, warmup=0.0)
    trainer, losses = Trainer(model, named(parameters), store(), section, CPU), []

    def look(step: StepInfo) -> None:
        losses.append((step.loss, trainer.holdout_loss(store(), lambda: None)))

    trainer.run(look)
    plain = holdout_loss(model, store(), CPU, microbatch_tokens=1024).loss
    before = holdout_loss(network(tiny_model)[0], store(), CPU, microbatch_tokens=1024).loss
    ((noisy, evaluated),) = losses
    assert evaluated == plain and abs(noisy - before) > 1e-3


def test_training_leaves_the_process_random_state_alone(tiny_model: Path) -> None:
    before = torch.get_rng_state()
    steps(tiny_model, dropout=0.3)
    assert torch.equal(before, torch.get_rng_state())


def test_a_step_is_adamw_on_the_mean_over_all_tokens_in_the_loss(tiny_model: Path) -> None:
    adam = {"beta1": 0.8, "beta2": 0.95, "epsilon": 1e-3}
    parameters, seen = steps(tiny_model, steps=1, tokens_per_step=10_000, warmup=0.0, weight_decay=0.1, **adam)
    model, expected = network(tiny_model)
    batch = pack(list(store()), CPU)
    loss = summed_loss(model, batch) / len(batch.labels)
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(expected, 1.0)
    torch.optim.AdamW(expected, lr=1e-2, weight_decay=0.1, betas=(0.8, 0.95), eps=1e-3).step()
    assert seen[0].loss == pytest.approx(loss.item(), rel=1e-5)
    assert seen[0].gradient_norm == pytest.approx(norm.item(), rel=1e-4)
    assert seen[0].tokens == batch.tokens and seen[0].loss_tokens == len(batch.labels)
    for a, b in zip(parameters, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-2, atol=2e-4)


@pytest.mark.parametrize("quantizer", [Dense(), Nf4()])
def test_the_loss_falls(tiny_model: Path, quantizer: Any) -> None:
    _, seen = steps(tiny_model, quantizer, steps=40, tokens_per_step=10_000, learning_rate=3e-2)
    assert seen[-1].loss < 0.7 * seen[0].loss


def test_a_loss_that_is_no_number_stops_training(tiny_model: Path) -> None:
    model, parameters = network(tiny_model)
    with torch.no_grad():
        parameters[0].fill_(float("nan"))
    section = TrainingSection(steps=2, tokens_per_step=60)
    with pytest.raises(TrainingError, match="step 1: the loss is nan"):
        Trainer(model, named(parameters), store(), section, CPU).run(lambda step: None)


def test_a_state_that_does_not_fit_is_refused(tiny_model: Path) -> None:
    model, parameters = network(tiny_model)
    trainer = Trainer(model, named(parameters), store(), TrainingSection(steps=1, tokens_per_step=60), CPU)
    trainer.run(lambda step: None)
    state = trainer.state()
    first = next(iter(state))
    more = {**state, "loss.about": torch.zeros(3)}
    for wrong in ({k: v for k, v in state.items() if k != first}, {**state, first: torch.zeros(3)}, more):
        with pytest.raises(TrainingError, match="checkpoint"):
            trainer.load_state(1, wrong)


def test_sequences_one_by_one_train_as_packed_ones_do(tiny_model: Path) -> None:
    section = TrainingSection(steps=2, tokens_per_step=60, learning_rate=1e-2)
    found = []
    for packed in (True, False):
        model, parameters = network(tiny_model)
        model.set_attn_implementation(PACKED if packed else "eager")
        trainer = Trainer(model, named(parameters), store(), section, CPU, packed=packed)
        trainer.run(lambda step: None)
        found.append((parameters, holdout_loss(model, store(), CPU, 60, packed=packed).loss))
        assert trainer.count_passes(packed=False) == sum(map(len, trainer.plan)) > trainer.count_passes(packed=True)
    (packed_ones, loss), (single_ones, again) = found
    for a, b in zip(packed_ones, single_ones, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)
    assert loss == pytest.approx(again, rel=1e-5)


def test_a_step_tells_its_passes(tiny_model: Path) -> None:
    model, parameters = network(tiny_model)
    section = TrainingSection(steps=2, tokens_per_step=60, microbatch_tokens=20, learning_rate=1e-2)
    trainer = Trainer(model, named(parameters), store(), section, CPU)
    seen: list[tuple[int, int, int]] = []
    trainer.run(lambda step: None, on_pass=lambda *told: seen.append(told))
    assert {step for step, _, _ in seen} == {1, 2} and all(0 < done < total for _, done, total in seen)
    assert len(seen) == trainer.count_passes(packed=True) - 2
