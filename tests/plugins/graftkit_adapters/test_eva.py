"""EVA starts from the inputs of layers as peft's does, in ranks and directions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from graftkit.model.load import load_base_model
from graftkit.model.observe import InputHooks
from graftkit.testing import tiny_model_folder
from graftkit_adapters.config import LoraConfig
from graftkit_adapters.eva import EvaObserver, PrincipalComponents
from graftkit_models.huggingface import HuggingFaceSource
from graftkit_quantizers.dense import Dense
from peft import EvaConfig, get_peft_model, initialize_lora_eva_weights
from peft import LoraConfig as PeftConfig
from peft.utils.incremental_pca import IncrementalPCA
from transformers import AutoModelForCausalLM

CPU = torch.device("cpu")
NAMES = ["q_proj", "v_proj", "o_proj", "up_proj", "down_proj"]


def test_components_are_those_of_all_vectors_at_once() -> None:
    """Whatever they come in: singular values fall so that what is left out each time is small."""
    generator = torch.Generator().manual_seed(0)
    spread = torch.logspace(0, -3, 40)
    vectors = torch.randn(900, 40, generator=generator) * spread @ torch.linalg.qr(torch.randn(40, 40))[0] + 3
    found = PrincipalComponents(40, 16)
    for part in vectors.split([1, 300, 99, 500]):
        found.add(part)
    components, shares = found.components()
    _, values, right = torch.linalg.svd((vectors - vectors.mean(0)).double(), full_matrices=False)
    torch.testing.assert_close(shares[:8], (values.square() / values.square().sum())[:8], rtol=1e-3, atol=0)
    torch.testing.assert_close((components[:8] * right[:8]).sum(1).abs(), torch.ones(8).double(), rtol=0, atol=1e-3)
    assert all(component[component.abs().argmax()] > 0 for component in components)


@pytest.mark.filterwarnings("ignore:lora with eva initialization used with low_cpu_mem_usage")
@pytest.mark.parametrize("rho", [1.0, 2.0])
def test_ranks_and_directions_are_pefts(rho: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the same tokens; layers with the same inputs may exchange their ranks, which are those of equal components.

    peft decomposes with its exact method in place of its randomized one, which is off by more than the two differ.
    """
    monkeypatch.setattr(IncrementalPCA, "_svd_fn_lowrank", IncrementalPCA._svd_fn_full)
    folder = tiny_model_folder(tmp_path / "model")
    ids = torch.randint(3, 250, (8, 60), generator=torch.Generator().manual_seed(1))
    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    eva = EvaConfig(rho=rho, tau=0.99)
    config = PeftConfig(r=4, lora_alpha=6, target_modules=NAMES, init_lora_weights="eva", eva_config=eva)
    theirs: Any = get_peft_model(base, config)
    initialize_lora_eva_weights(theirs, [{"input_ids": ids}], show_progress_bar=False)
    expected = {
        name.removeprefix("base_model.model.").partition(".lora_A")[0]: parameter.detach()
        for name, parameter in theirs.named_parameters()
        if ".lora_A." in name
    }
    network: Any = load_base_model(HuggingFaceSource().open(str(folder)), Dense(), device=CPU)
    modules = dict(network.named_modules())
    layers = [module.info for path, module in modules.items() if path.rpartition(".")[2] in NAMES]
    observer = EvaObserver(LoraConfig(rank=4, alpha=6.0, init="eva", eva_rho=rho), layers)
    hooks = InputHooks(network, [layer.path for layer in layers], observer)
    with torch.no_grad(), hooks.watching(torch.arange(ids.numel()), ids.numel()):
        network(input_ids=ids)
    start = observer.start(hooks.shared)
    assert {(path.rpartition(".")[2], of.rpartition(".")[2]) for path, of in hooks.shared.items()} == {
        ("v_proj", "q_proj")
    }
    groups = {layer.path: hooks.shared.get(layer.path, layer.path) for layer in layers}
    ranks: dict[str, list[list[int]]] = {}
    for path, leader in groups.items():
        own = start.tensors[path]["lora_A"] if path in start.tensors else torch.zeros(0, 1)
        other = expected.get(path, torch.zeros(0, 1))
        both = ranks.setdefault(leader, [[], []])
        both[0].append(len(own))
        both[1].append(len(other))
        if min(len(own), len(other)):
            few = min(len(own), len(other))
            torch.testing.assert_close((own[:few] * other[:few]).sum(1).abs(), torch.ones(few), rtol=0, atol=0.01)
    assert all(sum(own) == sum(other) for own, other in ranks.values())
    assert (rho == 1) == all(own == [4] * len(own) for own, _ in ranks.values())
    scales = {
        path: start.options["alpha_pattern"].get(path, 6.0) / len(t["lora_A"]) for path, t in start.tensors.items()
    }
    assert all(scale == pytest.approx(6 / 4) for scale in scales.values())
