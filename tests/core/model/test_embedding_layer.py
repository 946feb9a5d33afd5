"""An adapter on the embedding computes, learns and is merged as PEFT's is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from adapted_models import CPU, adapted_model, merges_what_it_computes, moved, own_name, peft_model
from graftkit.errors import TargetError
from graftkit.model.adapt import AdaptedModel, adapt, adapters_disabled
from graftkit.model.load import load_base_model
from graftkit.model.model_plan import plan_base_model
from graftkit.model.outer_layers import EmbeddingLayer
from graftkit.store.token_store import Example
from graftkit.testing import TINY_SHAPES, tiny_model_folder
from graftkit.testing.architectures import ARCHITECTURES
from graftkit.training.batch import PackedBatch, pack
from graftkit.training.loss import TokenLoss
from graftkit_adapters.config import LoraConfig
from graftkit_adapters.lora import Lora
from graftkit_models.huggingface import HuggingFaceSource
from graftkit_quantizers.dense import Dense
from graftkit_quantizers.nf4 import Nf4
from transformers import AutoModelForCausalLM

EMBEDDING = "model.embed_tokens"
TARGETS = ["model.layers.0.self_attn.q_proj", EMBEDDING]
IDS = torch.tensor([[5, 9, 20, 31, 7, 7]])

pytestmark = pytest.mark.filterwarnings("ignore:.*weight_tying", "ignore:Model with `tie_word_embeddings=True`")

SHAPES: dict[str, dict[str, Any]] = {
    "tied": TINY_SHAPES["llama"],
    "untied": TINY_SHAPES["llama-untied"],
    "scaled": ARCHITECTURES["gemma3_text"],
    "padded": {**TINY_SHAPES["llama"], "pad_token_id": 7},
}


@pytest.fixture(params=list(SHAPES))
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A model whose embedding is tied, one whose isn't, one that scales it, and one of which a row has no gradient."""
    return tiny_model_folder(tmp_path / "model", **SHAPES[request.param])


def ours(folder: Path, adapter: Any, targets: Sequence[str] = TARGETS, quantizer: Any = None) -> AdaptedModel:
    return adapted_model(folder, adapter, targets, quantizer)


def of_peft(folder: Path, model: AdaptedModel, **fields: Any) -> Any:
    return peft_model(folder, model, ["0.self_attn.q_proj", "embed_tokens"], **fields)


def batch() -> PackedBatch:
    random = np.random.default_rng(0)
    return pack([Example(random.integers(0, 256, 60), random.random(60) < 0.7, 1)], CPU)


@pytest.mark.parametrize("rslora", [False, True], ids=["LoRA", "rsLoRA"])
def test_forward_gradient_and_merge_are_pefts(folder: Path, rslora: bool) -> None:
    """Dropout leaves an embedding's update as it is: both train with it here, on the embedding alone."""
    config = LoraConfig(rank=4, alpha=6.0, rslora=rslora, rank_pattern={"embed_tokens": 3})
    model, examples = moved(ours(folder, Lora(config))), batch()
    model.adapted[EMBEDDING]._dropout = 0.5  # type: ignore[assignment]
    fields = {"r": 4, "lora_alpha": 6, "use_rslora": rslora, "rank_pattern": {"embed_tokens": 3}}
    theirs = of_peft(folder, model, **fields).train()
    theirs.base_model.model.model.embed_tokens.lora_dropout["default"] = torch.nn.Dropout(0.5)
    model.network.train()
    total = TokenLoss(model.network, packed=False).backward(examples, 0.1)
    logits = theirs(input_ids=examples.sequences[0][None]).logits[0, examples.logit_positions]
    expected = torch.nn.functional.cross_entropy(logits, examples.labels, reduction="sum") / 10
    expected.backward()
    torch.testing.assert_close(total, expected.detach(), rtol=1e-5, atol=1e-5)
    gradients = {own_name(name): parameter.grad for name, parameter in theirs.named_parameters()}
    for name, parameter in model.trainable_parameters().items():
        torch.testing.assert_close(parameter.grad, gradients[f"base_model.model.{name}"], rtol=1e-3, atol=1e-5)

    merged = dict(model.merged_tensors())
    before = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).state_dict()
    torch.testing.assert_close(merged["lm_head.weight"], before["lm_head.weight"], rtol=0, atol=0)
    theirs.merge_adapter()
    own = theirs.base_model.model.model.embed_tokens.base_layer.weight
    torch.testing.assert_close(merged["model.embed_tokens.weight"], own.detach())
    assert (own - before["model.embed_tokens.weight"]).abs().max() > 0.1
    assert model.config["tie_word_embeddings"] is False


@pytest.mark.parametrize("quantizer", [Dense(), Nf4()], ids=["none", "nf4"])
def test_it_starts_as_the_base_and_is_merged_as_it_computes(folder: Path, quantizer: Any) -> None:
    """Bit for bit at first; the base's one matrix is neither copied nor trained nor quantized."""
    files = HuggingFaceSource().open(str(folder))
    base: Any = load_base_model(files, quantizer, device=CPU)
    with torch.no_grad():
        expected = base(input_ids=IDS).logits
        model = ours(folder, Lora(), [EMBEDDING], quantizer)
        network: Any = model.network
        torch.testing.assert_close(network(input_ids=IDS).logits, expected, rtol=0, atol=0)
        changed = moved(model).network(input_ids=IDS).logits
        assert (changed - expected).abs().max() > 0.05
        with adapters_disabled(network):
            torch.testing.assert_close(network(input_ids=IDS).logits, expected, rtol=0, atol=0)
        plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, tie_word_embeddings=False)
        plain.load_state_dict(dict(model.merged_tensors()), strict=True)
        torch.testing.assert_close(plain(input_ids=IDS).logits, changed, rtol=0, atol=1e-4)
        plain.load_state_dict(dict(model.base_tensors()), strict=True)
        torch.testing.assert_close(plain(input_ids=IDS).logits, expected, rtol=0, atol=1e-4)
    embedding, tied = network.get_input_embeddings(), base.config.tie_word_embeddings
    assert isinstance(embedding, EmbeddingLayer)
    assert model.unties == tied == (embedding.weight is network.get_output_embeddings().weight)
    TokenLoss(network, packed=False).backward(batch(), 1.0)
    assert embedding.weight.grad is None


@pytest.mark.parametrize("name", ["gemma2", "gpt2", "cohere", "mamba", "bloom", "granite", "gemma3"])
def test_whatever_embeds_the_tokens_of_an_architecture_is_adapted(name: str, tmp_path: Path) -> None:
    """Scaled, with positions beside it or a norm behind it, with towers: what is merged is what is computed."""
    folder, ids = tiny_model_folder(tmp_path / "model", **ARCHITECTURES[name]), torch.arange(3, 20)[None]
    info = plan_base_model(HuggingFaceSource().open(str(folder))).outer[0]
    assert info.kind == "embedding"
    model = ours(folder, Lora(), [info.path])
    merges_what_it_computes(model, folder, ids, moves=0.01)


def test_an_embedding_that_does_more_is_not_adapted(tmp_path: Path) -> None:
    """One whose rows aren't looked up by id alone has no layer of that kind."""
    folder = tiny_model_folder(tmp_path / "model")
    network: Any = load_base_model(HuggingFaceSource().open(str(folder)), Dense(), device=CPU)

    class Squared(torch.nn.Embedding):
        def forward(self, input: torch.Tensor) -> torch.Tensor:
            return super().forward(input) ** 2

    other = Squared(*network.model.embed_tokens.weight.shape)
    network.model.embed_tokens = other
    with pytest.raises(TargetError, match="is a Squared, which can't be adapted"):
        adapt(network, Lora(), [EMBEDDING], seed=0)
