"""What is computed without contents holds what the same code holds with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from architectures import settings
from encoder_models import encoder_folder
from graftkit.flow.planning.head import with_facts
from graftkit.interfaces.config import ProviderConfig
from graftkit.interfaces.quantizer import Quantizer
from graftkit.model.activation_checkpointing import checkpoint_blocks
from graftkit.model.adapt import adapt
from graftkit.model.head import head_parameters, sequence_scores
from graftkit.model.live_memory import MemoryMeter, imagined
from graftkit.model.load import load_base_model
from graftkit.model.model_plan import plan_base_model
from graftkit.model.packing import choose_packing, forward_inputs, use_packing
from graftkit.recipe.schema.training import TrainingSection
from graftkit.report.run_manifest import HeadFacts
from graftkit.testing import tiny_model_folder
from graftkit.training.batch import PackedBatch
from graftkit.training.dry_run import AnswerSizes, DryRun, PassSizes, dry_run
from graftkit.training.loss import TokenLoss
from graftkit.training.optimizer_kinds import empty_state
from graftkit_adapters.lora import Lora
from graftkit_models.huggingface import HuggingFaceSource
from graftkit_quantizers.config import DenseConfig, Int8Config, Nf4Config
from graftkit_quantizers.dense import Dense
from graftkit_quantizers.int8 import Int8
from graftkit_quantizers.nf4 import Nf4
from torch.nn.functional import cross_entropy

CASES: dict[str, tuple[dict[str, Any], Quantizer, ProviderConfig, torch.dtype]] = {
    "llama": ({"vocab_size": 40_000}, Dense(), DenseConfig(), torch.float32),
    "nf4": ({}, Nf4(Nf4Config(double_quant=True)), Nf4Config(double_quant=True), torch.bfloat16),
    "windows and capped logits": (settings("gemma2"), Int8(), Int8Config(), torch.float32),
    "experts": (settings("qwen3_moe"), Nf4(), Nf4Config(), torch.float32),
}


@pytest.mark.parametrize(
    ("case", "checkpointed"), [*((case, False) for case in CASES), ("nf4", True), ("experts", True)]
)
def test_a_dry_run_holds_what_a_real_pass_holds(case: str, checkpointed: bool, tmp_path: Path) -> None:
    """The real pass is metered storage by storage; of experts it depends on the routing, and is near it."""
    config, quantizer, quantizer_config, dtype = CASES[case]
    files = HuggingFaceSource().open(str(tiny_model_folder(tmp_path, **config)))
    planned = plan_base_model(files)
    targets = [layer.path for layer in planned.layers] + [stack.path for stack in planned.stacks]
    packing = choose_packing(files.config)
    lengths = (60, 30, 38)
    asked = DryRun(
        files.config,
        files.tensors,
        "tiny",
        quantizer,
        quantizer_config,
        Lora(),
        targets,
        dtype,
        packing,
        PassSizes(lengths, 100),
        TrainingSection(),
        AnswerSizes(3, 20, 10),
        checkpointed=checkpointed,
    )
    peaks = {peak.stage: peak for peak in dry_run(asked).peaks}
    assert list(peaks) == ["base model", "adapter", "evaluation before", "training", "evaluation after"]
    parts = peaks["training"].parts

    network: Any = load_base_model(files, quantizer, device=torch.device("cpu"), dtype=dtype)
    frozen = sum(p.nbytes for p in {id(p): p for p in network.parameters()}.values())
    use_packing(network, packing)
    adapted = adapt(network, Lora(), targets, seed=0)
    if checkpointed:
        checkpoint_blocks(network)
    trained = [p for weight in adapted.values() for p in weight.trainable_parameters().values()]
    size = sum(p.nbytes for p in trained)
    told = sum(parts.get(part, 0) for part in ("weights", "quantization", "other_weights"))
    assert frozen <= told < 1.05 * frozen + 20_000, "buffers are among the others"
    assert (parts["adapter"], parts["gradients"], parts["optimizer"]) == (size, size, 2 * size)

    for parameter in trained:
        parameter.grad = torch.zeros_like(parameter)
    network.train()
    ids = tuple(torch.arange(length) % 90 + 3 for length in lengths)
    places = torch.arange(100)
    batch = PackedBatch(ids, places, torch.full((100,), 5), None, 100.0, {}, {})
    counted = TokenLoss(network)
    counted._in_pieces(batch)
    with MemoryMeter({"there before"}) as meter:
        with meter.labelled("there before"):
            for tensor in [*network.parameters(), *network.buffers(), *(p.grad for p in trained)]:
                tensor.detach()
        counted.backward(batch, 0.01)
    kept = sum(parts.get(part, 0) for part in ("activations", "logits", "working"))
    if case == "nf4":
        assert 15 < len(meter.products) <= peaks["training"].products < 60, "those of answers are among them, too"
    elif dtype == torch.float32:
        assert peaks["training"].products == 0
    assert kept == pytest.approx(meter.peak, rel=0.15 if case == "experts" else 0.05)


def test_a_meter_follows_storages_until_they_go() -> None:
    with imagined({"file"}) as meter:
        with meter.labelled("first"):
            first = torch.empty(1000)
            view = first.view(10, 100)
        with meter.labelled("file"):
            file = torch.empty(10**9)
        second = first * 2
        assert (meter.live, meter.peak, meter.at_peak) == (8000, 8000, {"first": 4000, "working": 4000})
        del first, second
        assert meter.live == 4000 and view.shape == (10, 100) and file.numel() == 10**9
        meter.forget_peak()
        assert meter.peak == 4000
        assert bool(torch.isfinite(view).all()), "checks for damage pass"
        del view
    assert meter.live <= 101


def test_what_optimizers_keep_is_counted() -> None:
    large, small = (torch.nn.Parameter(torch.zeros(n)) for n in (8192, 10))
    sizes = {
        name: [sum(t.nbytes for t in empty_state(TrainingSection(optimizer=name), p)) for p in (large, small)]
        for name in ("adamw", "adamw-8bit", "sgd", "lion", "adafactor")
    }
    assert sizes == {
        "adamw": [65536, 80],
        "adamw-8bit": [16384 + 256, 80],
        "sgd": [32768, 40],
        "lion": [32768, 40],
        "adafactor": [32768, 40],
    }
    muon = TrainingSection(optimizer="muon")
    assert [sum(t.nbytes for t in empty_state(muon, large, hidden=hidden)) for hidden in (True, False)] == [
        32768,
        65536,
    ]
    matrix = torch.nn.Parameter(torch.zeros(16, 4096))
    assert sum(t.nbytes for t in empty_state(TrainingSection(optimizer="adafactor"), matrix)) == 4 * (16 + 4096)


@pytest.mark.parametrize("encoder", [False, True])
def test_a_dry_run_of_a_head_holds_what_a_real_pass_holds(encoder: bool, tmp_path: Path) -> None:
    """The head is trained beside the adapter, and scores of three labels are made in the place of a vocabulary's."""
    small = {"vocab_size": 20_000}
    folder = encoder_folder(tmp_path, "bert") if encoder else tiny_model_folder(tmp_path, **small)
    own = HuggingFaceSource().open(str(folder))
    files = with_facts(own, HeadFacts(kind="sequence", labels=["a", "b", "c"], pad=0))
    planned = plan_base_model(files)
    targets = [layer.path for layer in planned.layers]
    packing = choose_packing(files.config)
    lengths = (60, 30, 38)
    largest = PassSizes(lengths, 128)
    stores = (Dense(), DenseConfig(), Lora(), targets, torch.float32, packing, largest, TrainingSection())
    asked = DryRun(files.config, files.tensors, "tiny", *stores)
    parts = {peak.stage: peak for peak in dry_run(asked).peaks}["training"].parts

    network: Any = load_base_model(files, Dense(), device=torch.device("cpu"), dtype=torch.float32)
    use_packing(network, packing)
    adapted = adapt(network, Lora(), targets, seed=0)
    head = [p.requires_grad_(True) for p in head_parameters(network, planned.head).values()]
    adapter = [p for weight in adapted.values() for p in weight.trainable_parameters().values()]
    sizes = [sum(p.nbytes for p in parameters) for parameters in (adapter, head)]
    assert (parts["adapter"], parts["head"]) == tuple(sizes) and sizes[1] > 0
    assert (parts["gradients"], parts["optimizer"]) == (sum(sizes), 2 * sum(sizes))

    for parameter in (*adapter, *head):
        parameter.grad = torch.zeros_like(parameter)
    network.train()
    sequences = [torch.arange(length) % 90 + 3 for length in lengths]
    with MemoryMeter({"there before"}) as meter:
        with meter.labelled("there before"):
            for tensor in [*network.parameters(), *network.buffers(), *(p.grad for p in (*adapter, *head))]:
                tensor.detach()
        inputs = forward_inputs(sequences, packed=packing.packed)
        values = sequence_scores(network, sequences, inputs)
        cross_entropy(values, torch.tensor([0, 1, 2])).backward()
    kept = sum(parts.get(part, 0) for part in ("activations", "logits", "working"))
    assert kept == pytest.approx(meter.peak, rel=0.05)
