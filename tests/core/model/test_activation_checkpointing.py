"""Blocks that are computed again for their gradient: the same gradients bit for bit, in less memory."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from architectures import settings
from core.model.test_packing import PACKS, SINGLE
from graftkit.interfaces.adapter import Adapter
from graftkit.interfaces.vocabulary import VocabularyChange
from graftkit.model import activation_checkpointing
from graftkit.model.activation_checkpointing import checkpoint_blocks, why_no_checkpointing
from graftkit.model.adapt import adapt
from graftkit.model.grow import grow
from graftkit.model.load import load_base_model
from graftkit.model.model_plan import plan_base_model
from graftkit.model.packing import choose_packing, use_packing
from graftkit.testing import tiny_model_folder
from graftkit.training.batch import pack
from graftkit.training.loss import TokenLoss
from graftkit_adapters.config import LoraConfig
from graftkit_adapters.lora import Lora
from graftkit_models.huggingface import HuggingFaceSource
from graftkit_quantizers.config import Nf4Config
from graftkit_quantizers.dense import Dense
from graftkit_quantizers.nf4 import Nf4
from reference import examples, move_from_start
from torch import nn
from transformers import BertConfig, BertForMaskedLM

CPU = torch.device("cpu")
DROPOUT = {"attention_dropout": 0.1}
TRAINED: dict[str, tuple[dict[str, Any], Any, Adapter, torch.dtype]] = {
    "lora": (DROPOUT, Dense(), Lora(LoraConfig(rank=4, dropout=0.2)), torch.float32),
    "dora": (DROPOUT, Nf4(Nf4Config()), Lora(LoraConfig(rank=4, dropout=0.2, dora=True)), torch.float32),
    "bfloat16": ({}, Nf4(Nf4Config()), Lora(LoraConfig(rank=4, dropout=0.2)), torch.bfloat16),
    "windows and capped scores": (settings("gemma2"), Dense(), Lora(LoraConfig(rank=4, dropout=0.2)), torch.float32),
    "experts": (settings("qwen3_moe"), Nf4(Nf4Config()), Lora(LoraConfig(rank=4, dropout=0.2)), torch.float32),
}


@pytest.mark.parametrize("case", TRAINED)
def test_gradients_are_the_same_bit_for_bit(case: str, tmp_path: Any) -> None:
    """With new rows of the embeddings, dropout of the adapter and of attention, whose numbers go on as they would."""
    config, quantizer, adapter, dtype = TRAINED[case]
    files = HuggingFaceSource().open(str(tiny_model_folder(tmp_path, **config)))
    planned = plan_base_model(files)
    targets = [layer.path for layer in planned.layers] + [stack.path for stack in planned.stacks]
    network: Any = load_base_model(files, quantizer, device=CPU, dtype=dtype)
    use_packing(network, choose_packing(files.config))
    size = network.get_input_embeddings().weight.shape[0]
    change = VocabularyChange("extended", size + 2, (size, size + 1), ((1, 2), (3,)))
    rows = grow(network, change, lambda weight, role: torch.ones(2, weight.shape[1])).parameters()
    adapted = adapt(network, adapter, targets, seed=0)
    move_from_start(adapted)
    trained = [*rows.values(), *(p for weight in adapted.values() for p in weight.trainable_parameters().values())]
    batch = pack([*examples(), *examples()], CPU)
    batch.sequences[0][3] = size

    def gradients() -> list[torch.Tensor | None]:
        network.train()
        for parameter in trained:
            parameter.grad = None
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(5)
            TokenLoss(network).backward(batch, 0.1)
            drawn = torch.rand(1)
        return [*(parameter.grad for parameter in trained), drawn]

    expected = gradients()
    checkpoint_blocks(network)
    for found, own in zip(gradients(), expected, strict=True):
        assert (found is None) is (own is None) and (found is None or torch.equal(found, own))  # type: ignore[arg-type]
    assert sum(gradient is not None and bool(gradient.any()) for gradient in expected) > len(trained) / 2


@pytest.mark.parametrize("case", [*PACKS, *SINGLE])
def test_every_kind_of_attention_and_of_layer_can_be_computed_again(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(activation_checkpointing, "_TOLERANCE", 0)
    config = PACKS[case] if case in PACKS else SINGLE[case][0]
    assert why_no_checkpointing(config, choose_packing(config)) == ""


def test_a_bidirectional_model_computes_the_same() -> None:
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    network = BertForMaskedLM(BertConfig(**sizes, vocab_size=96)).train()
    ids = torch.arange(24).reshape(2, 12)

    def gradients() -> list[torch.Tensor]:
        network.zero_grad()
        torch.manual_seed(0)
        network(input_ids=ids).logits.square().sum().backward()
        return [parameter.grad.clone() for parameter in network.parameters() if parameter.grad is not None]

    expected = gradients()
    checkpoint_blocks(network)
    assert len(expected) > 30
    assert all(torch.equal(found, own) for found, own in zip(gradients(), expected, strict=True))


def test_a_block_that_computes_something_else_the_second_time_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    class Counting(nn.Module):
        def __init__(self, layer: nn.Module) -> None:
            super().__init__()
            self.layer, self.calls = layer, 0

        def forward(self, *inputs: Any, **keywords: Any) -> Any:
            self.calls += 1
            found = self.layer(*inputs, **keywords)
            return found * found.new_tensor(self.calls).sin()

    build = activation_checkpointing.build_twin

    def changed(*arguments: Any, **keywords: Any) -> Any:
        twin = build(*arguments, **keywords)
        twin.model.layers[1] = Counting(twin.model.layers[1])
        return twin

    config = PACKS["llama"]
    packing = choose_packing(config)
    monkeypatch.setattr(activation_checkpointing, "build_twin", changed)
    assert "compute something else the second time" in why_no_checkpointing(config, packing)
