"""Every architecture of the list: the loss that training takes, and its gradient, are those of each sequence alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from architectures import PAGE, row, settings
from graftkit.model.adapt import adapt
from graftkit.model.load import load_base_model
from graftkit.model.model_plan import check_base_model
from graftkit.model.packing import choose_packing
from graftkit.store.token_store import Example
from graftkit.testing import tiny_model_folder
from graftkit.testing.architectures import ARCHITECTURES
from graftkit_adapters.config import LoraConfig
from graftkit_adapters.lora import Lora
from graftkit_models.huggingface import HuggingFaceSource
from graftkit_quantizers.dense import Dense
from reference import examples, training_loss
from torch.nn.functional import cross_entropy

CPU = torch.device("cpu")


def alone(network: Any, rows: list[Example]) -> torch.Tensor:
    """The sum over the tokens in the loss, each sequence through transformers' own code, all logits, no packing."""
    total = torch.zeros(())
    for example in rows:
        ids = torch.from_numpy(example.ids)
        labels = ids.where(torch.from_numpy(example.loss_mask), -100)[1:]
        total = total + cross_entropy(
            network(input_ids=ids[None], use_cache=False).logits[0, :-1], labels, reduction="sum"
        )
    return total


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_loss_and_its_gradient_are_those_of_each_sequence_alone(name: str, tmp_path: Path) -> None:
    files = HuggingFaceSource().open(str(tiny_model_folder(tmp_path / "model", **settings(name))))
    network: Any = load_base_model(files, Dense(), device=CPU)
    adapted = adapt(network, Lora(LoraConfig(rank=4)), [layer.path for layer in check_base_model(files)], seed=0)
    parameters = [p for weight in adapted.values() for p in weight.trainable_parameters().values()]
    for parameter in parameters:
        torch.nn.init.normal_(parameter, std=0.05, generator=torch.Generator().manual_seed(parameter.numel()))
    rows = examples()
    network.set_attn_implementation("eager")
    expected = alone(network, rows)
    expected.backward()  # type: ignore[no-untyped-call]
    gradients = [parameter.grad for parameter in parameters]
    for parameter in parameters:
        parameter.grad = None

    packing = choose_packing(files.config)
    found = training_loss(network, packing, CPU)
    assert found == pytest.approx(expected.item(), rel=1e-4)
    largest = max(float(gradient.abs().max()) for gradient in gradients if gradient is not None)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        if gradient is None:
            assert parameter.grad is None or not parameter.grad.any()
        else:
            torch.testing.assert_close(parameter.grad, gradient, rtol=1e-3, atol=1e-4 * largest)
    assert row(name, tmp_path / "model", packing) in PAGE.read_text(encoding="utf-8"), (
        "run python tests/architectures.py"
    )
