"""An adapter on the output layer computes, learns and is merged as PEFT's is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from adapted_models import CPU, adapted_model, merges_what_it_computes, moved, peft_model
from graftkit.interfaces.forward import logits_at
from graftkit.model.adapt import AdaptedModel, adapters_disabled
from graftkit.model.load import load_base_model
from graftkit.model.model_plan import plan_base_model
from graftkit.model.outer_layers import OutputLinear
from graftkit.model.packing import forward_inputs
from graftkit.store.token_store import Example
from graftkit.testing import TINY_SHAPES, tiny_model_folder
from graftkit.testing.architectures import ARCHITECTURES
from graftkit.training import loss as loss_module
from graftkit.training.batch import PackedBatch, pack
from graftkit.training.loss import TokenLoss
from graftkit_adapters.config import LoraConfig
from graftkit_adapters.full import Full
from graftkit_adapters.lora import Lora
from graftkit_models.huggingface import HuggingFaceSource
from graftkit_quantizers.dense import Dense
from graftkit_quantizers.nf4 import Nf4
from torch.nn.functional import log_softmax
from transformers import AutoModelForCausalLM

TARGETS = ["model.layers.0.self_attn.q_proj", "lm_head"]

pytestmark = pytest.mark.filterwarnings("ignore:.*weight_tying")


@pytest.fixture(params=["llama", "llama-untied"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A model whose output layer is tied to its embedding, and one whose isn't."""
    return tiny_model_folder(tmp_path / "model", **TINY_SHAPES[request.param])


def ours(folder: Path, adapter: Any, targets: Sequence[str] = TARGETS, quantizer: Any = None) -> AdaptedModel:
    return adapted_model(folder, adapter, targets, quantizer)


def of_peft(folder: Path, model: AdaptedModel, **fields: Any) -> Any:
    return peft_model(folder, model, ["0.self_attn.q_proj", "lm_head"], **fields).eval()


def batch() -> PackedBatch:
    random = np.random.default_rng(0)
    return pack([Example(random.integers(0, 320, 60), random.random(60) < 0.7, 1)], CPU)


def by_peft_name(gradients: Mapping[str, torch.Tensor | None]) -> dict[str, torch.Tensor | None]:
    return {name.removesuffix(".weight").replace(".default", ""): found for name, found in gradients.items()}


@pytest.mark.parametrize("fields", [{}, {"use_dora": True, "use_rslora": True}], ids=["LoRA", "DoRA"])
def test_forward_gradient_and_merge_are_pefts(
    folder: Path, fields: dict[str, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loss is computed a few tokens at a time, with the adapter in each piece."""
    monkeypatch.setattr(loss_module, "_LOGITS_AT_ONCE", {"cpu": 320 * 7})
    config = LoraConfig(rank=4, alpha=6.0, dora=fields.get("use_dora", False), rslora=fields.get("use_rslora", False))
    model, examples = moved(ours(folder, Lora(config))), batch()
    theirs = of_peft(folder, model, r=4, lora_alpha=6, **fields)
    loss = TokenLoss(model.network, packed=False)
    total = loss.backward(examples, 0.1)
    assert loss._plain_head
    logits = theirs(input_ids=examples.sequences[0][None]).logits[0, examples.logit_positions]
    expected = torch.nn.functional.cross_entropy(logits, examples.labels, reduction="sum") / 10
    expected.backward()
    torch.testing.assert_close(total, expected.detach())
    theirs_by_name = by_peft_name({n: p.grad for n, p in theirs.named_parameters() if p.requires_grad})
    for name, parameter in model.trainable_parameters().items():
        torch.testing.assert_close(parameter.grad, theirs_by_name[f"base_model.model.{name}"], rtol=1e-3, atol=1e-5)

    merged = dict(model.merged_tensors())
    before = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).state_dict()
    torch.testing.assert_close(merged["model.embed_tokens.weight"], before["model.embed_tokens.weight"], rtol=0, atol=0)
    head = theirs.base_model.model.lm_head
    delta = head.get_delta_weight("default") if not config.dora else None
    if delta is not None:
        torch.testing.assert_close(merged["lm_head.weight"], before["lm_head.weight"] + delta)
    if before["lm_head.weight"].data_ptr() != before["model.embed_tokens.weight"].data_ptr():
        torch.testing.assert_close(merged["lm_head.weight"], theirs.merge_and_unload().lm_head.weight)
    assert model.config["tie_word_embeddings"] is False


@pytest.mark.parametrize("quantizer", [Dense(), Nf4()], ids=["none", "nf4"])
@pytest.mark.parametrize(
    "adapter",
    [Lora(LoraConfig(init="pissa", rank=4)), Lora(LoraConfig(init="qpissa", rank=4)), Full()],
    ids=["PiSSA", "QPiSSA", "full"],
)
def test_whatever_is_put_on_it_starts_as_the_base(folder: Path, adapter: Any, quantizer: Any) -> None:
    """From the file's own matrix, whichever of its two names that has; it is not quantized."""
    files, ids = HuggingFaceSource().open(str(folder)), torch.tensor([[5, 9, 20, 31, 7, 7]])
    with torch.no_grad():
        expected = load_base_model(files, quantizer, device=CPU)(input_ids=ids).logits
        model = ours(folder, adapter, ["lm_head"], quantizer)
        torch.testing.assert_close(model.network(input_ids=ids).logits, expected, rtol=0, atol=1e-5)
        changed = moved(model).network(input_ids=ids).logits
        assert (changed - expected).abs().max() > 0.1
        plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, tie_word_embeddings=False)
        plain.load_state_dict(dict(model.merged_tensors()), strict=True)
        torch.testing.assert_close(plain(input_ids=ids).logits, changed, rtol=0, atol=1e-4)


def test_disabled_it_is_the_base_models(folder: Path) -> None:
    model, ids = moved(ours(folder, Lora())), torch.tensor([[5, 9, 20, 31, 7, 7]])
    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad(), adapters_disabled(model.network):
        torch.testing.assert_close(model.network(input_ids=ids).logits, base(input_ids=ids).logits)


def test_the_frozen_matrix_is_not_copied(folder: Path) -> None:
    """Of a tied model there is one matrix, which has no gradient."""
    model = moved(ours(folder, Lora()))
    network: Any = model.network
    head, embedding = network.get_output_embeddings(), network.get_input_embeddings()
    assert isinstance(head, OutputLinear)
    tied = network.config.tie_word_embeddings
    assert model.unties == tied == (head.weight is embedding.weight)
    TokenLoss(network, packed=False).backward(batch(), 1.0)
    assert head.weight.grad is None and embedding.weight.grad is None
    info = plan_base_model(HuggingFaceSource().open(str(folder))).outer[-1]
    assert (info.path, info.out_features, info.in_features) == ("lm_head", 320, 64)


@pytest.mark.parametrize("name", ["gemma2", "phi", "cohere", "mamba", "biogpt", "qwen2_moe", "gemma3"])
def test_whatever_makes_the_logits_of_an_architecture_is_adapted(name: str, tmp_path: Path) -> None:
    """Capped and scaled logits, a bias, another name, towers beside it: what is merged is what is computed."""
    folder, ids = tiny_model_folder(tmp_path / "model", **ARCHITECTURES[name]), torch.arange(3, 20)[None]
    info = plan_base_model(HuggingFaceSource().open(str(folder))).outer[-1]
    assert info.kind == "linear"
    model = ours(folder, Lora(), [info.path])
    merges_what_it_computes(model, folder, ids, moves=0.1)


def test_dropout_leaves_out_the_same_of_scores_and_gradients(folder: Path) -> None:
    """An objective's scores are computed before their gradient is asked for, piece by piece both times."""
    model, examples = moved(ours(folder, Lora(LoraConfig(dropout=0.5)), ["lm_head"])), batch()
    network = model.network.train()
    [factors, own] = [torch.linspace(-1, 1, len(examples.labels)), model.trainable_parameters()]
    torch.manual_seed(5)
    scored = TokenLoss(network, packed=False)
    scored._plain_head = True
    found = scored.score(examples, learn=True)
    after = torch.get_rng_state()
    found.backward(factors, None)
    assert torch.equal(torch.get_rng_state(), after)
    gradients = {name: parameter.grad for name, parameter in own.items()}
    network.zero_grad()
    torch.manual_seed(5)
    logits = logits_at(network, forward_inputs(examples.sequences, packed=False), examples.logit_positions)
    logps = log_softmax(logits, 1).gather(1, examples.labels[:, None])[:, 0]
    torch.testing.assert_close(found.logps, logps.detach())
    (logps * factors).sum().backward()
    for name, parameter in own.items():
        torch.testing.assert_close(gradients[name], parameter.grad, rtol=1e-4, atol=1e-5)
