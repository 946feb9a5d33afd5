"""Packed sequences against each alone through transformers' eager code; windows are shorter than sequences."""

from __future__ import annotations

import time
from typing import Any

import pytest
import torch
from graftkit.errors import ModelError
from graftkit.interfaces.architecture import with_head
from graftkit.model import packing
from graftkit.model.attention import PACKED, UnsupportedAttention, packed_attention
from graftkit.model.packing import attention_as, choose_packing, forward_inputs, use_packing
from graftkit.model.twin import build_twin, fewest_layers
from transformers import CONFIG_MAPPING

LLAMA = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 320,
    "max_position_embeddings": 512,
}
PACKS: dict[str, dict[str, Any]] = {
    "llama": LLAMA,
    "biases": {**LLAMA, "attention_bias": True, "mlp_bias": True},
    "tied": {**LLAMA, "tie_word_embeddings": True},
    "window": {**LLAMA, "model_type": "mistral", "sliding_window": 16},
    "window in phi3": {**LLAMA, "model_type": "phi3", "sliding_window": 16, "pad_token_id": 0},
    "window in starcoder2": {**LLAMA, "model_type": "starcoder2", "sliding_window": 16},
    "window in some layers": {**LLAMA, "model_type": "olmo3", "sliding_window": 16, "num_hidden_layers": 4},
    "window in gemma3": {**LLAMA, "model_type": "gemma3_text", "sliding_window": 16, "num_hidden_layers": 6},
    "softcap": {**LLAMA, "model_type": "gemma2", "sliding_window": 16, "attn_logit_softcapping": 1.0},
    "sinks": {**LLAMA, "model_type": "gpt_oss", "sliding_window": 16, "num_local_experts": 4, "pad_token_id": 0},
    "chunks": {
        **LLAMA,
        "model_type": "llama4_text",
        "attention_chunk_size": 16,
        "num_hidden_layers": 4,
        "head_dim": 16,
    },
    "learned positions": {"model_type": "gpt2", "n_embd": 64, "n_head": 4, "n_layer": 2, "vocab_size": 320},
    "experts": {**LLAMA, "model_type": "mixtral", "num_local_experts": 4},
}
SINGLE: dict[str, tuple[dict[str, Any], str]] = {
    "convolutions": ({**LLAMA, "model_type": "lfm2", "layer_types": ["conv", "full_attention"]}, "see one another"),
    "dynamic rope": ({**LLAMA, "rope_scaling": {"rope_type": "dynamic", "factor": 4.0}}, "see one another"),
    "attention of its own": (
        {
            "model_type": "falcon",
            "hidden_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "vocab_size": 320,
        },
        "its own way",
    ),
    "position biases": (
        {"model_type": "bloom", "hidden_size": 64, "n_layer": 2, "n_head": 4, "vocab_size": 320},
        "its own way",
    ),
}


def sequences() -> list[torch.Tensor]:
    random = torch.Generator().manual_seed(1)
    return [torch.randint(3, 90, (length,), generator=random) for length in (37, 1, 16, 17, 5)]


@pytest.mark.parametrize("name", PACKS)
def test_packed_sequences_get_the_logits_and_gradients_that_each_gets_alone(name: str) -> None:
    assert choose_packing(PACKS[name]).packed
    twin, rows = build_twin(PACKS[name]), sequences()
    weight = twin.get_input_embeddings().weight.requires_grad_()
    with attention_as(twin, "eager"):
        expected = torch.cat([twin(input_ids=ids[None], use_cache=False).logits[0] for ids in rows])
        wanted = torch.randn(expected.shape, generator=torch.Generator().manual_seed(2))
        (gradient,) = torch.autograd.grad((expected * wanted).sum(), weight)
    with attention_as(twin, PACKED):
        found = twin(**forward_inputs(rows, packed=True)).logits[0]
        (ours,) = torch.autograd.grad((found * wanted).sum(), weight)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * expected.detach().abs().max().item())
    torch.testing.assert_close(ours, gradient, rtol=1e-3, atol=1e-4 * gradient.abs().max().item())


@pytest.mark.parametrize("name", ["window", "softcap", "sinks", "chunks"])
def test_what_is_tried_shows_in_the_logits(name: str) -> None:
    """The comparison can see a fault of its kind: without windows, caps, sinks or chunks the logits are others."""
    twin, (longest, *_) = build_twin(PACKS[name]), sequences()

    def plain(module: Any, q: Any, k: Any, v: Any, mask: Any, **keywords: Any) -> Any:
        kept = {key: keywords.get(key) for key in ("cu_seq_lens_q", "scaling")}
        return packed_attention(module, q, k, v, None, **kept)

    use_packing(twin, choose_packing(PACKS[name]))
    from transformers import AttentionInterface

    with torch.no_grad():
        right = twin(**forward_inputs([longest], packed=True)).logits
        AttentionInterface.register(PACKED, plain)
        try:
            wrong = twin(**forward_inputs([longest], packed=True)).logits
        finally:
            AttentionInterface.register(PACKED, packed_attention)
    assert (right - wrong).abs().max() > 0.05 * right.abs().max()


@pytest.mark.parametrize("name", SINGLE)
def test_where_sequences_would_see_one_another_they_run_one_by_one(name: str) -> None:
    config, reason = SINGLE[name]
    found = choose_packing(config)
    assert not found.packed and reason in found.reason


@pytest.mark.parametrize(
    "kind,architecture,sees",
    [
        ("convbert", "ConvBertModel", True),
        ("mobilebert", "MobileBertModel", True),
        ("nystromformer", "NystromformerModel", True),
        ("yoso", "YosoModel", True),
        ("fnet", "FNetModel", True),
        ("longformer", "LongformerModel", False),
        ("deberta-v2", "DebertaV2Model", False),
        ("roformer", "RoFormerModel", False),
    ],
)
def test_architectures_that_compute_padding_with_a_text_are_known(kind: str, architecture: str, sees: bool) -> None:
    config = {**CONFIG_MAPPING[kind]().to_dict(), "architectures": [architecture], "num_hidden_layers": 2}
    assert choose_packing(with_head(config, "embedding", pooled_by="mean")).sees_padding == sees


def test_settings_of_layers_that_are_not_there_are_passed_over() -> None:
    """However many there are, and however long their numbers: a configuration may have been written by anybody."""
    config = {**LLAMA, "num_hidden_layers": 1000, "own": {str(number): {} for number in range(20_000)}}
    start = time.process_time()
    assert fewest_layers(config) == fewest_layers({**config, "own": {"9" * 5000: {}}}) == 2
    assert fewest_layers({**config, "own": {"2": {"head_dim": 32}}}) == 3
    assert time.process_time() - start < 5


@torch.no_grad()
def test_with_dynamic_rope_a_sequence_does_not_depend_on_a_longer_one_before_it() -> None:
    config, _ = SINGLE["dynamic rope"]
    longer, shorter = torch.arange(3, 43), torch.arange(5, 35)
    expected = build_twin(config)(input_ids=shorter[None], use_cache=False).logits
    twin = build_twin(config)
    twin(input_ids=longer[None], use_cache=False)
    kept = twin(input_ids=shorter[None], use_cache=False).logits
    assert not torch.allclose(kept, expected, atol=1e-3), "transformers itself keeps the longer one's frequencies"
    use_packing(twin, choose_packing(config))
    twin(input_ids=longer[None], use_cache=False)
    torch.testing.assert_close(twin(input_ids=shorter[None], use_cache=False).logits, expected)
    start = build_twin(config)(input_ids=shorter[None, :9], use_cache=False).logits
    torch.testing.assert_close(twin(input_ids=shorter[None, :9], use_cache=False).logits, start)


def test_a_model_that_sees_what_comes_is_refused() -> None:
    with pytest.raises(ModelError, match="not causal"):
        choose_packing({"model_type": "bert", "hidden_size": 32, "num_attention_heads": 2, "vocab_size": 320})
    assert choose_packing({"model_type": "bert", "is_decoder": True, "hidden_size": 32, "num_attention_heads": 2})


def test_a_model_that_can_t_be_tried_runs_one_by_one() -> None:
    found = choose_packing({"model_type": "no-such-architecture"})
    assert not found.packed and "no small model" in found.reason


@pytest.mark.parametrize(
    ("keywords", "mask", "reason"),
    [
        ({"position_bias": torch.zeros(1)}, None, "position_bias"),
        ({"indices": torch.zeros(1), "block_size": 3}, None, "block_size, indices"),
        ({"sliding_window": 4}, None, "window and no mask"),
        ({}, torch.ones(1, 1, 6, 6), "mask itself"),
    ],
)
def test_an_unknown_keyword_is_refused_by_name(keywords: dict[str, Any], mask: Any, reason: str) -> None:
    tensors = [torch.randn(1, 2, 6, 8) for _ in range(3)]
    with pytest.raises(UnsupportedAttention, match=reason):
        packed_attention(None, *tensors, mask, cu_seq_lens_q=torch.tensor([0, 2, 6]), **keywords)


def test_boundaries_are_never_guessed() -> None:
    tensors = [torch.randn(1, 2, 6, 8) for _ in range(3)]
    with pytest.raises(UnsupportedAttention, match="where sequences begin"):
        packed_attention(None, *tensors, None)
    with pytest.raises(UnsupportedAttention, match="shape"):
        packed_attention(None, *tensors, None, cu_seq_lens_q=torch.tensor([0, 2, 5]))


def test_attention_dropout_is_applied() -> None:
    tensors = [torch.randn(1, 2, 6, 8) for _ in range(3)]
    bounds = torch.tensor([0, 2, 6])
    plain, _ = packed_attention(None, *tensors, None, cu_seq_lens_q=bounds)
    dropped, _ = packed_attention(None, *tensors, None, cu_seq_lens_q=bounds, dropout=0.5)
    assert not torch.allclose(plain, dropped)


def test_a_model_without_causal_masks_attends_to_everything_in_its_sequence() -> None:
    q, k, v = (torch.randn(1, 2, 6, 8) for _ in range(3))
    found, _ = packed_attention(None, q, k, v, None, cu_seq_lens_q=torch.tensor([0, 2, 6]), is_causal=False)
    expected = torch.nn.functional.scaled_dot_product_attention(q[:, :, 2:], k[:, :, 2:], v[:, :, 2:])
    torch.testing.assert_close(found[:, 2:], expected.transpose(1, 2))


def test_a_window_that_was_not_tried_is_not_called_equal(monkeypatch: pytest.MonkeyPatch) -> None:
    """A twin's windows are shortened by their names; a window by another name is longer than what is tried."""
    monkeypatch.setattr("graftkit.model.twin._WINDOWS", ())
    monkeypatch.setattr(packing, "_of_configuration", packing._of_configuration.__wrapped__)
    for window in (64, 300):
        found = choose_packing({**PACKS["window"], "sliding_window": window})
        assert not found.packed and "windows" in found.reason, window
    assert not choose_packing({**PACKS["chunks"], "attention_chunk_size": 100}).packed
    assert choose_packing({**PACKS["window"], "sliding_window": 512}).packed, "as long as the context: no window"


@pytest.mark.parametrize("name", ["deepseek_v3", "glm4_moe", "qwen3_moe", "gpt_oss"])
def test_mixtures_of_experts_are_tried_in_the_sizes_of_their_defaults(name: str) -> None:
    """A small model keeps as many experts as each token takes, and as many as its groups ask for."""
    config = CONFIG_MAPPING[name]().to_dict()
    assert choose_packing(config).packed


def test_as_many_labels_as_there_may_be_are_tried_on_a_few() -> None:
    """Each label has a row of the head, and computes as the others do."""
    labels = [f"label {number}" for number in range(100_000)]
    config = with_head({**LLAMA, "architectures": ["LlamaForCausalLM"]}, "sequence", labels, pad=0)
    assert choose_packing(config, most_weights=100_000).packed


def test_a_configuration_is_tried_once_and_refused_by_the_name_that_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[Any] = []
    build = packing.build_twin
    monkeypatch.setattr(packing, "build_twin", lambda *given, **named: built.append(given) or build(*given, **named))
    config = {**LLAMA, "own": "of this test"}
    assert choose_packing(config).packed
    trials = len(built)
    assert trials and choose_packing(dict(reversed(config.items())), "another", most_weights=None).packed
    assert len(built) == trials
    assert choose_packing({**config, "own": "another"}).packed
    assert len(built) == 2 * trials
    for where in ("one", "two"):
        with pytest.raises(ModelError, match="bert model is not causal") as caught:
            choose_packing({"model_type": "bert", "hidden_size": 32, "num_attention_heads": 2}, where)
        assert caught.value.where == where
