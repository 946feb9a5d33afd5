"""What training computes on a CUDA device against the CPU's float32, for one architecture of each kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from architectures import settings
from graftkit.interfaces.layer import LayerInfo
from graftkit.model.adapt import adapt
from graftkit.model.load import load_base_model
from graftkit.model.model_plan import check_base_model
from graftkit.model.packing import choose_packing
from graftkit.testing import tiny_model_folder
from graftkit_adapters.config import LoraConfig
from graftkit_adapters.lora import Lora
from graftkit_models.huggingface import HuggingFaceSource
from graftkit_quantizers import int8_products
from graftkit_quantizers.config import Int8Config
from graftkit_quantizers.dense import Dense
from graftkit_quantizers.int8 import Int8
from graftkit_quantizers.nf4 import Nf4
from quantized_files import Packed, quantized_folder
from reference import training_loss

pytestmark = pytest.mark.gpu
ARCHITECTURES = (
    "llama",
    "mistral",  # a window in every layer
    "gemma2",  # softcaps
    "gemma3_text",  # a window in some layers
    "gpt_oss",  # sinks, experts
    "gpt2",  # Conv1D, learned positions
    "mixtral",
    "gemma3",  # multimodal
    "qwen3",
    "falcon",  # one by one
    "mamba2",
    "lfm2",
)


def trained(
    folder: Path, device: torch.device, dtype: torch.dtype, quantizer: Any = None
) -> tuple[float, torch.Tensor]:
    """Returns the loss of some sequences, and its gradient by LoRA's matrices in one row, float32 on the CPU."""
    files = HuggingFaceSource().open(str(folder))
    network: Any = load_base_model(files, quantizer or Dense(), device=device, dtype=dtype)
    adapted = adapt(network, Lora(LoraConfig(rank=4)), [layer.path for layer in check_base_model(files)], seed=0)
    parameters = [p for weight in adapted.values() for p in weight.trainable_parameters().values()]
    for parameter in parameters:
        start = torch.empty(parameter.shape)
        torch.nn.init.normal_(start, std=0.05, generator=torch.Generator().manual_seed(parameter.numel()))
        parameter.data.copy_(start)
    total = training_loss(network, choose_packing(files.config), device)
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    return total, torch.cat([gradient.flatten().float().cpu() for gradient in gradients])


def off(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_loss_and_gradient_are_those_of_the_cpu(name: str, tmp_path: Path, cuda: torch.device) -> None:
    folder = tiny_model_folder(tmp_path / "model", **settings(name))
    loss, gradient = trained(folder, torch.device("cpu"), torch.float32)
    exact, same = trained(folder, cuda, torch.float32)
    assert exact == pytest.approx(loss, rel=1e-4) and off(same, gradient) < 1e-3
    rounded, near = trained(folder, cuda, torch.bfloat16)
    of_cpu, near_of_cpu = trained(folder, torch.device("cpu"), torch.bfloat16)
    assert rounded == pytest.approx(loss, rel=max(1e-2, 3 * abs(of_cpu / loss - 1)))
    assert off(near, gradient) < max(5e-2, 2 * off(near_of_cpu, gradient)), "no further off than bfloat16 on a CPU"


@pytest.mark.parametrize("quantizer", [Nf4, Int8])
def test_quantized_weights_are_those_of_the_cpu(quantizer: Any, tmp_path: Path, cuda: torch.device) -> None:
    folder = tiny_model_folder(tmp_path / "model", hidden_size=256, intermediate_size=512)
    loss, gradient = trained(folder, torch.device("cpu"), torch.float32, quantizer())
    found, same = trained(folder, cuda, torch.float32, quantizer())
    assert found == pytest.approx(loss, rel=1e-4) and off(same, gradient) < 1e-3
    weight = torch.randn(300, 200, generator=torch.Generator().manual_seed(0))
    layer = LayerInfo("", "linear", 300, 200)
    ours, theirs = quantizer().quantize(weight.to(cuda), layer), quantizer().quantize(weight, layer)
    differing = ours.dequantize().cpu().sub(theirs.dequantize()).abs().gt(1e-5).float().mean()
    assert float(differing) < 1e-3, "but for ties between two levels"


def test_products_of_whole_numbers_are_told_to_be_for_cpus(cuda: torch.device, monkeypatch: Any) -> None:
    monkeypatch.setattr(int8_products, "sums_are_exact", lambda: True)
    quantizer, layer = Int8(Int8Config(products="int8")), LayerInfo("", "linear", 30, 20)
    with pytest.warns(UserWarning, match="products: int8 has no effect: it is for CPUs, and this is cuda"):
        quantizer.quantize(torch.ones(30, 20, device=cuda), layer)


def bitsandbytes_int8(numbers: np.random.Generator, rows: int, columns: int) -> Packed:
    codes = torch.from_numpy(numbers.integers(-127, 128, (rows, columns)).astype(np.int8))
    largest = torch.from_numpy(numbers.uniform(0.05, 0.1, rows).astype(np.float32))
    return {"weight": codes, "SCB": largest}, codes * largest.unsqueeze(1) / 127


def test_so_they_are_where_the_file_holds_int8_already(tmp_path: Path, cuda: torch.device, monkeypatch: Any) -> None:
    monkeypatch.setattr(int8_products, "sums_are_exact", lambda: True)
    quantized_folder(tmp_path, {"quant_method": "bitsandbytes", "load_in_8bit": True}, bitsandbytes_int8)
    loss, gradient = trained(tmp_path, torch.device("cpu"), torch.float32, Int8())
    with pytest.warns(UserWarning, match="products: int8 has no effect: it is for CPUs, and this is cuda") as told:
        found, same = trained(tmp_path, cuda, torch.float32, Int8(Int8Config(products="int8")))
    assert len([each for each in told if "products: int8" in str(each.message)]) == 1
    assert found == pytest.approx(loss, rel=1e-4) and off(same, gradient) < 1e-3
