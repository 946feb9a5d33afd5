"""Frozen weights that are kept in parts: what is computed with them, what is held, and what is sent."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from architectures import settings
from graftkit import FrozenWeight, LayerInfo
from graftkit.errors import ModelError
from graftkit.model.activation_checkpointing import checkpoint_blocks
from graftkit.model.adapt import AdaptedModel, adapt
from graftkit.model.linear import FrozenLinear
from graftkit.model.load import load_base_model
from graftkit.model.originals import FileOriginals
from graftkit.model.sharded import ShardedWeight, SharedBlocks
from graftkit.testing import tiny_model_folder
from graftkit.training.sharing import SharingProcesses
from graftkit_adapters.config import LoraConfig
from graftkit_adapters.lora import Lora
from graftkit_models.huggingface import HuggingFaceSource
from graftkit_quantizers.config import Int8Config, Nf4Config
from graftkit_quantizers.dense import Dense
from graftkit_quantizers.int8 import Int8
from graftkit_quantizers.nf4 import Nf4
from graftkit_quantizers.stored import Stored
from shared_threads import in_threads
from torch import nn

CPU = torch.device("cpu")


class Columns(FrozenWeight):
    """A stranger's weight: columns first, in a module of its own, a scale for all, and nothing in whole bytes a row."""

    def __init__(self, codes: torch.Tensor, scale: torch.Tensor) -> None:
        super().__init__(codes.shape[1], codes.shape[0])
        self.inner = nn.Module()
        self.inner.codes = nn.Parameter(codes, requires_grad=False)
        self.scale = nn.Parameter(scale, requires_grad=False)

    def dequantize(self, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return (self.inner.codes.T * self.scale).to(dtype).contiguous()

    def meta(self) -> dict[str, Any]:
        return {}

    @classmethod
    def from_state(cls, tensors: Mapping[str, torch.Tensor], meta: Mapping[str, Any]) -> Any:
        return cls(tensors["inner.codes"], tensors["scale"])


class ByColumns:
    def quantize(self, weight: torch.Tensor, layer: LayerInfo) -> Columns:
        scale = weight.abs().max() / 100
        return Columns((weight.T / scale).round().to(torch.int16).contiguous(), scale)


QUANTIZERS: Mapping[str, Any] = {
    "none": Dense(),
    "nf4": Nf4(),
    "nf4-single": Nf4(Nf4Config(double_quant=False)),
    "int8": Int8(),
    "int8-products": Int8(Int8Config(products="int8")),
    "stored": Stored(),
    "strange": ByColumns(),
}
ADAPTERS = {"lora": LoraConfig(), "dora": LoraConfig(dora=True), "qpissa": LoraConfig(init="qpissa")}


@pytest.fixture
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return tiny_model_folder(tmp_path / "model", num_hidden_layers=3, **settings(getattr(request, "param", "llama")))


def load(
    folder: Path, quantizer: Any, adapter: str, processes: SharingProcesses | None = None, *, checkpoint: bool = False
) -> tuple[Any, dict[str, Any]]:
    """Loads a model, and puts an adapter on it that is no start any more."""
    files = HuggingFaceSource().open(str(folder))
    shared = SharedBlocks(processes) if processes else None
    network: Any = load_base_model(files, quantizer, device=CPU, shared=shared)
    targets = [path for path, m in network.named_modules() if isinstance(m, FrozenLinear)]
    targets = list(dict.fromkeys(p.rpartition(".")[0] if p.rpartition(".")[2].isdigit() else p for p in targets))
    adapted = adapt(
        network, Lora(ADAPTERS[adapter]), targets, seed=0, originals=FileOriginals(files, quantizer, CPU, torch.float32)
    )
    for number, weight in enumerate(adapted.values()):
        for parameter in weight.trainable_parameters().values():
            noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number))
            parameter.data += 0.02 * noise
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    if checkpoint:
        checkpoint_blocks(network)
    return network, adapted


def computed(network: Any, adapted: Mapping[str, Any], seed: int) -> list[torch.Tensor]:
    """Returns the logits of a pass, in training for odd seeds, and the gradient that it gives each parameter."""
    ids = torch.randint(3, 60, (1, 11), generator=torch.Generator().manual_seed(seed))
    parameters = [p for weight in adapted.values() for p in weight.trainable_parameters().values()]
    logits = network.train(seed % 2 == 1)(input_ids=ids).logits
    found = torch.autograd.grad(logits.square().sum(), parameters, allow_unused=True)
    return [logits.detach(), *(gradient for gradient in found if gradient is not None)]


def digest(network: Any, adapted: Mapping[str, Any]) -> str:
    model = AdaptedModel(network, "", network.config.to_dict(), None, None, adapted)  # type: ignore[arg-type]
    found = hashlib.sha256()
    for name, tensor in model.merged_tensors():
        found.update(name.encode() + tensor.contiguous().numpy().tobytes())
    return found.hexdigest()


CASES = [
    *(("llama", name, "lora", 2 + number % 2, False) for number, name in enumerate(QUANTIZERS)),
    ("llama", "nf4", "dora", 3, True),
    ("llama", "int8", "qpissa", 2, False),
    ("gpt2", "none", "lora", 3, False),
    ("mixtral", "nf4", "lora", 3, True),
]


@pytest.mark.parametrize("folder, quantizer, adapter, count, checkpoint", CASES, indirect=["folder"])
def test_each_process_computes_what_one_does(
    folder: Path, quantizer: str, adapter: str, count: int, checkpoint: bool
) -> None:
    """However many passes each takes, bit for bit; and rank 0 alone merges the same model."""
    alone = load(folder, QUANTIZERS[quantizer], adapter)
    expected = [computed(*alone, seed) for seed in range(count)]
    merged = digest(*alone)

    def work(processes: SharingProcesses) -> Any:
        model = load(folder, QUANTIZERS[quantizer], adapter, processes, checkpoint=checkpoint)
        assert all(isinstance(m.frozen, ShardedWeight) for m in model[0].modules() if isinstance(m, FrozenLinear))
        found = [computed(*model, seed) for seed in range(processes.rank)]
        processes.gather("passes")
        if processes.rank:
            assert processes.next_command() == {"done": True}
            return found, None
        found = [computed(*model, seed) for seed in range(count)]
        whole = digest(*model)
        processes.announce({"done": True})
        return found, whole

    results = in_threads(count, work)
    for found, _ in results:
        for tensors, wanted in zip(found, expected, strict=False):
            assert len(tensors) == len(wanted) > 1
            assert all(torch.equal(tensor, other) for tensor, other in zip(tensors, wanted, strict=True))
    assert results[0][1] == merged


@pytest.mark.parametrize("quantizer", ["none", "nf4"])
@pytest.mark.parametrize("adapter", ["lora", "qpissa"])
def test_a_process_holds_its_part_and_one_block(folder: Path, quantizer: str, adapter: str) -> None:
    network, _ = load(folder, QUANTIZERS[quantizer], adapter)
    frozen = sum(m.frozen.nbytes for m in network.modules() if isinstance(m, FrozenLinear))
    tensors = sum(len(list(m.frozen.parameters())) for m in network.modules() if isinstance(m, FrozenLinear))

    def work(processes: SharingProcesses) -> Any:
        whole: list[int] = []
        put_together = processes.whole

        def counted(number: int) -> torch.Tensor:
            found = put_together(number)
            whole.append(len(found))
            return found

        processes.whole = counted  # type: ignore[method-assign]
        network, adapted = load(folder, QUANTIZERS[quantizer], adapter, processes)
        held = [held_by(network)]
        computed(network, adapted, 0)
        held.append(held_by(network))
        processes.gather("done")
        return processes.kept_bytes, [*held, held_by(network)], whole

    for kept, held, whole in in_threads(3, work):
        assert frozen / 3 <= kept <= frozen / 3 + 64 * (tensors + 9)
        block = frozen / 3 + 64 * (tensors / 3 + 3)
        assert max(held) <= block and held[-1] == 0
        assert 0 < max(whole) <= block


def held_by(network: Any) -> int:
    """Returns the bytes of whole stored tensors that the frozen weights of a model have now."""
    weights = [m.frozen._held[0] for m in network.modules() if isinstance(m, FrozenLinear)]
    return sum(p.nbytes for weight in weights for p in weight.parameters() if not p.is_meta)


@pytest.mark.parametrize("checkpoint", [False, True])
def test_a_pass_puts_each_block_together_twice_but_for_the_last(folder: Path, checkpoint: bool) -> None:
    network, _ = load(folder, Dense(), "lora")
    frozen = sum(m.frozen.nbytes for m in network.modules() if isinstance(m, FrozenLinear))

    def work(processes: SharingProcesses) -> Any:
        model = load(folder, Dense(), "lora", processes, checkpoint=checkpoint)
        processes.gather("loaded")
        before = processes.received
        computed(*model, 0)
        processes.gather("done")
        return processes.received - before

    for received in in_threads(2, work):
        assert received == pytest.approx(frozen / 3 * 5 / 2, rel=0.01)


class ReadOnce:
    """A model's files, and which of their tensors were read."""

    def __init__(self, folder: Path) -> None:
        self._files = HuggingFaceSource().open(str(folder))
        self.read_names: list[str] = []

    def tensor(self, name: str) -> Any:
        self.read_names.append(name)
        return self._files.tensor(name)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._files, name)


@pytest.mark.parametrize("folder", ["llama", "mixtral"], indirect=True)
def test_each_block_is_read_by_one_process(folder: Path) -> None:
    """Of what others read a process never has the file's tensors, only the stored ones, of one block at a time."""

    def work(processes: SharingProcesses) -> list[str]:
        files: Any = ReadOnce(folder)
        load_base_model(files, Nf4(), device=CPU, shared=SharedBlocks(processes))
        return list(files.read_names)

    first, second = (Counter(names) for names in in_threads(2, work))
    every = HuggingFaceSource().open(str(folder)).tensors
    blocks = {name: int(name.split(".")[2]) for name in every if ".layers." in name and every[name].shape[1:]}
    blocks = {name: block for name, block in blocks.items() if "gate.weight" not in name}
    assert {name for name in blocks if name in first} == {name for name, block in blocks.items() if block % 2 == 0}
    assert {name for name in blocks if name in second} == {name for name, block in blocks.items() if block % 2}
    assert set(first) | set(second) == set(every) and {*first.values(), *second.values()} == {1}


def test_a_weight_that_others_can_not_make_is_refused(folder: Path) -> None:
    class Hidden(Columns):
        pass

    class Hiding:
        def quantize(self, weight: torch.Tensor, layer: LayerInfo) -> Hidden:
            return Hidden(weight.T.contiguous(), weight.new_ones(()))

    def work(processes: SharingProcesses) -> None:
        load_base_model(HuggingFaceSource().open(str(folder)), Hiding(), device=CPU, shared=SharedBlocks(processes))

    with pytest.raises(ModelError, match=r"layers.0.self_attn.q_proj: its weight, a .*Hidden, can't be shared"):
        in_threads(2, work)


def test_nothing_can_be_computed_with_a_block_that_is_not_whole(folder: Path) -> None:
    """The tensors of a weight at rest have sizes and no contents: whoever goes past `ShardedWeight` is told."""

    def work(processes: SharingProcesses) -> None:
        network, _ = load(folder, Dense(), "lora", processes)
        weight = next(m.frozen._held[0] for m in network.modules() if isinstance(m, FrozenLinear))
        assert weight.nbytes == 4 * weight.out_features * weight.in_features
        with pytest.raises(NotImplementedError, match="meta tensor"):
            weight.dequantize().cpu().numpy()
        processes.gather("done")

    in_threads(2, work)
