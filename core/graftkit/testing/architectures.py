"""Tiny models of many architectures, as what differs from `TINY_CONFIG`: `tiny_model_folder(path, **shape)`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from graftkit.testing.tiny import LEFT_OUT, TINY_CONFIG

__all__ = ["ARCHITECTURES"]

_MIXTURE: Mapping[str, Any] = {
    "moe_intermediate_size": 32,
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "num_local_experts": 4,
}
_GPT2: Mapping[str, Any] = {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 512, "n_inner": 128}
_LATENT: Mapping[str, Any] = {
    "kv_lora_rank": 16,
    "q_lora_rank": 24,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 16,
    "v_head_dim": 16,
    "head_dim": 8,
    "n_group": 2,
    "topk_group": 1,
    "n_routed_experts": 4,
    "first_k_dense_replace": 1,
    "num_key_value_heads": 4,
}


def _multimodal(text_type: str, text: Mapping[str, Any], vision: Mapping[str, Any], **others: Any) -> dict[str, Any]:
    """Returns the settings of a language model of `TINY_CONFIG`'s sizes beside a vision tower."""
    own = {key: value for key, value in TINY_CONFIG.items() if key not in ("architectures", "model_type")}
    nested = {**own, "model_type": text_type, "pad_token_id": 0, **text}
    return {**dict.fromkeys(own, LEFT_OUT), "text_config": nested, "vision_config": {**_VISION, **vision}, **others}


_VISION: Mapping[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}
_ROPE_BY_SECTION: Mapping[str, Any] = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]}
_QWEN_VISION: Mapping[str, Any] = {"depth": 2, "num_heads": 2, "out_hidden_size": 64}

ARCHITECTURES: Mapping[str, Mapping[str, Any]] = {
    name: {"architectures": None, "model_type": name, **settings}
    for name, settings in {
        "llama": {},
        "mistral": {},
        "ministral": {},
        "qwen2": {},
        "qwen3": {},
        "gpt2": _GPT2,
        "gpt_bigcode": _GPT2,
        "gpt_neo": {"num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]], "window_size": 4},
        "gptj": {**_GPT2, "rotary_dim": 8, "tie_word_embeddings": False},
        "codegen": {**_GPT2, "rotary_dim": 8, "tie_word_embeddings": False},
        "gpt_neox": {"tie_word_embeddings": False},
        "opt": {"ffn_dim": 128, "word_embed_proj_dim": 64},
        "bloom": {"n_layer": 2, "n_head": 4},
        "falcon": {"head_dim": LEFT_OUT, "multi_query": True},
        "falcon-new": {"model_type": "falcon", "head_dim": LEFT_OUT, "new_decoder_architecture": True},
        "mpt": {"d_model": 64, "n_layers": 2, "n_heads": 4, "max_seq_len": 512},
        "phi": {"tie_word_embeddings": False},
        "phi3": {"pad_token_id": 0},
        "phimoe": {**_MIXTURE, "tie_word_embeddings": False},
        "gemma": {},
        "gemma2": {},
        "gemma3_text": {},
        "gemma4_text": {
            "num_hidden_layers": 4,
            "layer_types": ["sliding_attention", "full_attention"] * 2,
            "per_layer_config": {"1": {"head_dim": 32}, "3": {"head_dim": 32}},
            "num_kv_shared_layers": 2,
            "hidden_size_per_layer_input": 16,
            "vocab_size_per_layer_input": 320,
        },
        "stablelm": {"use_qkv_bias": True},
        "starcoder2": {},
        "olmo": {},
        "olmo2": {},
        "olmo3": {},
        "olmoe": _MIXTURE,
        "granite": {},
        "granitemoe": _MIXTURE,
        "cohere": {},
        "cohere2": {},
        "nemotron": {},
        "persimmon": {},
        "smollm3": {"pad_token_id": 0},
        "glm": {"pad_token_id": 0},
        "glm4": {"pad_token_id": 0},
        "exaone4": {},
        "hunyuan_v1_dense": {},
        "glm4_moe": {**_MIXTURE, "n_routed_experts": 4, "first_k_dense_replace": 1},
        "dots1": {
            **{**_MIXTURE, "n_routed_experts": 4, "n_shared_experts": 1},
            **{"n_group": 2, "topk_group": 1, "first_k_dense_replace": 1},
        },
        "dbrx": {
            **dict.fromkeys(("hidden_size", "num_attention_heads", "num_key_value_heads", "head_dim"), LEFT_OUT),
            **{"d_model": 64, "n_heads": 4, "n_layers": 2, "max_seq_len": 512, "num_hidden_layers": LEFT_OUT},
            "attn_config": {"kv_n_heads": 2, "rope_theta": 10000.0, "clip_qkv": 8},
            "ffn_config": {"ffn_hidden_size": 32, "moe_num_experts": 4, "moe_top_k": 2},
            "tie_word_embeddings": False,
        },
        "ernie4_5_moe": {**_MIXTURE, "moe_num_experts": 4, "moe_k": 2, "moe_layer_start_index": 1},
        "minimax_m2": _MIXTURE,
        "apertus": {},
        "arcee": {},
        "ernie4_5": {},
        "helium": {},
        "seed_oss": {},
        "mixtral": _MIXTURE,
        "qwen2_moe": {**_MIXTURE, "shared_expert_intermediate_size": 32},
        "qwen3_moe": _MIXTURE,
        "gpt_oss": _MIXTURE,
        "deepseek_v2": {**_LATENT, **_MIXTURE},
        "deepseek_v3": {**_LATENT, **_MIXTURE},
        "lfm2": {"layer_types": ["conv", "full_attention"], "block_ff_dim": 128, "block_auto_adjust_ff_dim": False},
        "lfm2_moe": {**_MIXTURE, "layer_types": ["conv", "full_attention"], "num_dense_layers": 1},
        "mamba": {"state_size": 8, "time_step_rank": 4},
        "mamba2": {"num_heads": 8, "head_dim": 16, "state_size": 8, "n_groups": 1},
        "falcon_mamba": {"state_size": 8, "time_step_rank": 4},
        "recurrent_gemma": {"lru_width": 64, "attention_window_size": 16, "num_hidden_layers": 3},
        "jamba": {**_MIXTURE, "mamba_d_state": 8, "attn_layer_period": 2, "attn_layer_offset": 1},
        "granitemoehybrid": {**_MIXTURE, "layer_types": ["mamba", "attention"], "shared_intermediate_size": 32}
        | {"mamba_n_heads": 8, "mamba_d_head": 16, "mamba_d_state": 8},
        "falcon_h1": {"mamba_d_ssm": 128, "mamba_n_heads": 8, "mamba_d_head": 16, "mamba_d_state": 8},
        "nemotron_h": {"layers_block_type": ["mamba", "attention"], "mamba_num_heads": 8, "mamba_head_dim": 16},
        "bamba": {"mamba_n_heads": 8, "mamba_d_head": 16, "mamba_d_state": 8, "attn_layer_indices": [1]},
        "zamba2": {"num_mem_blocks": 1, "layers_block_type": ["mamba", "hybrid"], "mamba_d_state": 8},
        "qwen3_next": {**_MIXTURE, "layer_types": ["linear_attention", "full_attention"]},
        "qwen3_5_text": {"layer_types": ["linear_attention", "full_attention"]},
        "biogpt": {},
        "xglm": {},
        "gemma3": _multimodal("gemma3_text", {"sliding_window": 16}, {}, mm_tokens_per_image=4),
        "mistral3": _multimodal("mistral", {"sliding_window": 16}, {"model_type": "pixtral", "head_dim": 16}),
        "llava": _multimodal("llama", {}, {"model_type": "clip_vision_model"}),
        "internvl": _multimodal("qwen2", {}, {"image_size": [28, 28], "patch_size": [14, 14]}),
        "smolvlm": _multimodal("llama", {}, {}),
        "qwen2_vl": _multimodal(
            "qwen2_vl_text", {"rope_parameters": _ROPE_BY_SECTION}, {"depth": 2, "embed_dim": 32, "hidden_size": 64}
        ),
        "qwen2_5_vl": _multimodal("qwen2_5_vl_text", {"rope_parameters": _ROPE_BY_SECTION}, _QWEN_VISION),
        "qwen3_vl": _multimodal(
            "qwen3_vl_text", {"rope_parameters": _ROPE_BY_SECTION}, {**_QWEN_VISION, "deepstack_visual_indexes": [0]}
        ),
        "qwen3_vl_moe": _multimodal(
            "qwen3_vl_moe_text",
            {"rope_parameters": _ROPE_BY_SECTION, **_MIXTURE},
            {**_QWEN_VISION, "deepstack_visual_indexes": [0]},
        ),
    }.items()
}
"""By the name that transformers has for the architecture."""
