"""The architectures that are read and written: llama.cpp's names for their settings and weights.

Metadata keys are those of `docs/gguf.md` in the ggml project, names of tensors those of llama.cpp's loader. Whether
llama.cpp computes the same as transformers is what a proof says.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from typing import Any

from graftkit.errors import ModelError
from graftkit.interfaces.architecture import OF_WHOLES, head_of

from graftkit_gguf.architectures import Architecture
from graftkit_gguf.encoders import ENCODERS
from graftkit_gguf.parts import Part, Setting, get_setting, layer, norm, outside
from graftkit_gguf.pooling import SCORES

__all__ = ["ARCHITECTURES", "architecture_named", "architecture_of"]

_Q, _K = "num_attention_heads", "num_key_value_heads"


def _outer(bias: str = "", plus_one: bool = False) -> tuple[Part, ...]:
    return outside(
        layer("model.embed_tokens", "token_embd", "vocabulary", "hidden"),
        norm("model.norm", "output_norm", bias=bias, plus_one=plus_one),
        layer("lm_head", "output", "vocabulary", "hidden"),
    )


def _attention(bias: str = "", output_bias: str = "") -> tuple[Part, ...]:
    return (
        layer("self_attn.q_proj", "attn_q", "queries", "hidden", bias, _Q),
        layer("self_attn.k_proj", "attn_k", "keys", "hidden", bias, _K),
        layer("self_attn.v_proj", "attn_v", "keys", "hidden", bias),
        layer("self_attn.o_proj", "attn_output", "hidden", "queries", output_bias),
    )


def _mlp(bias: str = "") -> tuple[Part, ...]:
    return (
        layer("mlp.gate_proj", "ffn_gate", "inner", "hidden", bias),
        layer("mlp.up_proj", "ffn_up", "inner", "hidden", bias),
        layer("mlp.down_proj", "ffn_down", "hidden", "inner", bias),
    )


def _experts() -> tuple[Part, ...]:
    size = ("experts", "twice inner of an expert", "hidden")
    stored = ("ffn_gate_exps", "ffn_up_exps")
    down = ("experts", "hidden", "inner of an expert")
    return (
        layer("mlp.gate", "ffn_gate_inp", "experts", "hidden"),
        Part("mlp.experts.gate_up_proj", stored, size, is_parameter=True),
        Part("mlp.experts.down_proj", ("ffn_down_exps",), down, is_parameter=True),
    )


def _before(bias: str = "") -> tuple[Part, ...]:
    """The norms before attention and before the feed-forward part."""
    return (
        norm("input_layernorm", "attn_norm", bias=bias),
        norm("post_attention_layernorm", "ffn_norm", bias=bias),
    )


def _head_norms(of_queries: str = "head", of_keys: str = "head", plus_one: bool = False) -> tuple[Part, ...]:
    return (
        norm("self_attn.q_norm", "attn_q_norm", of_queries, plus_one=plus_one),
        norm("self_attn.k_norm", "attn_k_norm", of_keys, plus_one=plus_one),
    )


def _norms_of_gemma() -> tuple[Part, ...]:
    return (
        norm("input_layernorm", "attn_norm", plus_one=True),
        norm("post_attention_layernorm", "post_attention_norm", plus_one=True),
        norm("pre_feedforward_layernorm", "ffn_norm", plus_one=True),
        norm("post_feedforward_layernorm", "post_ffw_norm", plus_one=True),
    )


_SILU = {"hidden_act": "silu"}
_GELU = {"hidden_activation": "gelu_pytorch_tanh"}
_RMS = Setting("attention.layer_norm_rms_epsilon", "rms_norm_eps", float)
_THETA = Setting("rope.freq_base", "rope_parameters.rope_theta", float, 10_000.0)
_SCALED = ("default", "linear", "yarn")
"""What llama.cpp computes in every architecture by the metadata alone."""
_FACTORED = ("default", "linear", "llama3", "yarn")
"""And where its loader knows `rope_freqs.weight`, too."""
_SPARSE = (
    Setting("expert_used_count", "num_experts_per_tok", int),
    Setting("expert_feed_forward_length", "moe_intermediate_size", int),
)


def _window(config: Mapping[str, Any]) -> str:
    """Says what llama.cpp lacks: windows."""
    window = config.get("sliding_window")
    if window and config.get("use_sliding_window", True) and window < config["max_position_embeddings"]:
        return f"a sliding window of {window} tokens"
    return ""


def _scalar(config: Mapping[str, Any], largest: int) -> dict[str, Any]:
    """Returns by what Gemma's attention is scaled: the largest model's by the width of a head without `head_dim`.

    Args:
        config: The sizes.
        largest: How many layers that one has.
    """
    whole = config["hidden_size"] // config["num_attention_heads"]
    return {"query_pre_attn_scalar": whole if config["num_hidden_layers"] == largest else config["head_dim"]}


def _pattern(every: int, largest: int) -> Callable[[Mapping[str, Any]], str]:
    """Makes the check of which layers look through a window: all but one of so many, and how attention is scaled.

    Args:
        every: The layers of a period, of which the last looks at everything.
        largest: See `_scalar`.
    """

    def check(config: Mapping[str, Any]) -> str:
        layers = config["num_hidden_layers"]
        wanted = ["full_attention" if not n % every else "sliding_attention" for n in range(1, layers + 1)]
        if config.get("layer_types", wanted) != wanted:
            return f"another order of layers with a window than each but every {every}th"
        for key, value in _scalar(config, largest).items():
            if config[key] != value:
                return f"{key} = {config[key]} rather than {value}"
        return ""

    return check


def _gemma3(config: Mapping[str, Any]) -> str:
    caps = [config.get("attn_logit_softcapping"), config.get("final_logit_softcapping")]
    if any(caps):
        return "soft caps of logits"
    near = get_setting(config, "rope_parameters.sliding_attention") or {}
    if near.get("rope_type", "default") != "default" or near.get("rope_theta", 10_000.0) != 10_000.0:
        return "another rotary embedding than 10,000 in layers with a window"
    return _pattern(6, 62)(config)


def _gemma3_implied(config: Mapping[str, Any]) -> dict[str, Any]:
    near = {"rope_type": "default", "rope_theta": 10_000.0}
    return {**_scalar(config, 62), "rope_parameters": {**config["rope_parameters"], "sliding_attention": near}}


def _smollm3(config: Mapping[str, Any]) -> str:
    wanted = [int(bool((n + 1) % 4)) for n in range(config["num_hidden_layers"])]
    if config.get("no_rope_layers", wanted) != wanted:
        return "another order of layers without rotary embedding than every 4th"
    return _window(config)


def _all_mixtures(config: Mapping[str, Any]) -> str:
    if config.get("decoder_sparse_step", 1) != 1 or config.get("mlp_only_layers"):
        return "layers without experts"
    return _window(config)


_LLAMA = (*_before(), *_attention("attention_bias", "attention_bias"), *_mlp("mlp_bias"))
_QWEN_NORMED = (*_before(), *_head_norms(), *_attention())

ARCHITECTURES: tuple[Architecture, ...] = (
    Architecture(
        "llama",
        ("llama", "LlamaForCausalLM"),
        (*_outer(), *_LLAMA),
        (_RMS, _THETA),
        _SILU,
        rotates_pairs=True,
        ropes=_FACTORED,
    ),
    Architecture(
        "llama",
        ("mistral", "MistralForCausalLM"),
        (*_outer(), *_before(), *_attention(), *_mlp()),
        (_RMS, _THETA),
        _SILU,
        _window,
        rotates_pairs=True,
        ropes=_FACTORED,
    ),
    Architecture(
        "llama",
        ("mixtral", "MixtralForCausalLM"),
        (*_outer(), *_before(), *_attention(), *_experts()),
        (
            _RMS,
            _THETA,
            Setting("expert_count", "num_local_experts", int),
            Setting("expert_used_count", "num_experts_per_tok", int),
        ),
        _SILU,
        _window,
        rotates_pairs=True,
        ropes=_FACTORED,
    ),
    Architecture(
        "qwen2",
        ("qwen2", "Qwen2ForCausalLM"),
        (*_outer(), *_before(), *_attention("always"), *_mlp()),
        (_RMS, _THETA),
        _SILU,
        _window,
        is_square=True,
        ropes=_SCALED,
    ),
    Architecture(
        "qwen3",
        ("qwen3", "Qwen3ForCausalLM"),
        (*_outer(), *_QWEN_NORMED, *_mlp()),
        (_RMS, _THETA),
        _SILU,
        _window,
        ropes=_SCALED,
        scores=(layer("score", SCORES.removesuffix(".weight"), "labels", "hidden"),),
    ),
    Architecture(
        "qwen2moe",
        ("qwen2_moe", "Qwen2MoeForCausalLM"),
        (
            *_outer(),
            *_before(),
            *_attention("always"),
            *_experts(),
            layer("mlp.shared_expert.gate_proj", "ffn_gate_shexp", "inner of the shared expert", "hidden"),
            layer("mlp.shared_expert.up_proj", "ffn_up_shexp", "inner of the shared expert", "hidden"),
            layer("mlp.shared_expert.down_proj", "ffn_down_shexp", "hidden", "inner of the shared expert"),
            Part("mlp.shared_expert_gate", ("ffn_gate_inp_shexp",), ("one", "hidden"), is_flat=True),
        ),
        (
            _RMS,
            _THETA,
            *_SPARSE,
            Setting("expert_count", "num_experts", int),
            Setting("expert_shared_feed_forward_length", "shared_expert_intermediate_size", int),
        ),
        {**_SILU, "qkv_bias": True, "norm_topk_prob": False},
        _all_mixtures,
        ties=False,
        is_square=True,
        ropes=_SCALED,
    ),
    Architecture(
        "qwen3moe",
        ("qwen3_moe", "Qwen3MoeForCausalLM"),
        (*_outer(), *_QWEN_NORMED, *_experts()),
        (_RMS, _THETA, *_SPARSE, Setting("expert_count", "num_local_experts", int)),
        {**_SILU, "norm_topk_prob": True},
        _all_mixtures,
        ropes=_SCALED,
    ),
    Architecture(
        "gemma2",
        ("gemma2", "Gemma2ForCausalLM"),
        (*_outer(plus_one=True), *_norms_of_gemma(), *_attention(), *_mlp()),
        (
            _RMS,
            _THETA,
            Setting("attention.sliding_window", "sliding_window", int, 4096),
            Setting("attn_logit_softcapping", "attn_logit_softcapping", float, 50.0),
            Setting("final_logit_softcapping", "final_logit_softcapping", float, 30.0),
        ),
        _GELU,
        _pattern(2, 46),
        implied=lambda config: _scalar(config, 46),
        ropes=_SCALED,
    ),
    Architecture(
        "gemma3",
        ("gemma3_text", "Gemma3ForCausalLM"),
        (*_outer(plus_one=True), *_norms_of_gemma(), *_head_norms(plus_one=True), *_attention(), *_mlp()),
        (
            _RMS,
            Setting("rope.freq_base", "rope_parameters.full_attention.rope_theta", float, 10_000.0),
            Setting("attention.sliding_window", "sliding_window", int),
        ),
        _GELU,
        _gemma3,
        rope="rope_parameters.full_attention",
        implied=_gemma3_implied,
        ropes=("default", "linear"),
    ),
    Architecture(
        "phi3",
        ("phi3", "Phi3ForCausalLM"),
        (
            *_outer(),
            *_before(),
            layer("self_attn.qkv_proj", "attn_qkv", "queries, keys and values", "hidden"),
            layer("self_attn.o_proj", "attn_output", "hidden", "queries"),
            layer("mlp.gate_up_proj", "ffn_up", "twice inner", "hidden"),
            layer("mlp.down_proj", "ffn_down", "hidden", "inner"),
        ),
        (_RMS, _THETA),
        _SILU,
        _window,
        is_square=True,
        ropes=("default", "longrope"),
        rotates_a_part=True,
    ),
    Architecture(
        "starcoder2",
        ("starcoder2", "Starcoder2ForCausalLM"),
        (
            *_outer(bias="always"),
            *_before("always"),
            *_attention("use_bias", "use_bias"),
            layer("mlp.c_fc", "ffn_up", "inner", "hidden", "use_bias"),
            layer("mlp.c_proj", "ffn_down", "hidden", "inner", "use_bias"),
        ),
        (Setting("attention.layer_norm_epsilon", "norm_epsilon", float), _THETA),
        {"hidden_act": "gelu_pytorch_tanh", "use_bias": True},
        _window,
        is_square=True,
        ropes=_SCALED,
    ),
    Architecture(
        "granite",
        ("granite", "GraniteForCausalLM"),
        (*_outer(), *_LLAMA),
        (
            _RMS,
            _THETA,
            Setting("embedding_scale", "embedding_multiplier", float),
            Setting("residual_scale", "residual_multiplier", float),
            Setting("attention.scale", "attention_multiplier", float),
            Setting("logit_scale", "logits_scaling", float),
        ),
        _SILU,
        rotates_pairs=True,
        ropes=_FACTORED,
    ),
    Architecture(
        "smollm3",
        ("smollm3", "SmolLM3ForCausalLM"),
        (*_outer(), *_before(), *_attention(), *_mlp()),
        (_RMS, _THETA),
        {**_SILU, "attention_bias": False, "mlp_bias": False},
        _smollm3,
        rotates_pairs=True,
        ropes=_SCALED,
    ),
    Architecture(
        "olmo2",
        ("olmo2", "Olmo2ForCausalLM"),
        (
            *_outer(),
            norm("post_attention_layernorm", "post_attention_norm"),
            norm("post_feedforward_layernorm", "post_ffw_norm"),
            *_head_norms("queries", "keys"),
            *_attention(),
            *_mlp(),
        ),
        (_RMS, _THETA),
        {**_SILU, "attention_bias": False},
        ties=False,
        is_square=True,
        ropes=_SCALED,
    ),
    *ENCODERS,
)


def architecture_of(config: Mapping[str, Any]) -> Architecture:
    """Returns the architecture of a model.

    Args:
        config: The keys of its config.json.

    Raises:
        ModelError: There is none for it here.
    """
    found = next((one for one in ARCHITECTURES if one.model[0] == config.get("model_type")), None)
    if head_of(config) == "sequence" and (found is None or not found.scores):
        scored = ", ".join(one.model[0] for one in ARCHITECTURES if one.scores)
        raise ModelError(
            f"a head on sequences of the architecture '{config.get('model_type')}' can't be written as GGUF: of "
            f"{scored} alone llama.cpp's scores are written and proved",
            hint="Export merged, which transformers loads, or peft; or train the head on such a model.",
        )
    if found is not None and not found.decodes and head_of(config) not in OF_WHOLES:
        labels = ", or labels of texts" if found.scores else ""
        raise ModelError(
            f"the architecture '{config.get('model_type')}' can be written as GGUF only where it gives vectors{labels}",
            hint="Export merged, which transformers loads, or peft.",
        )
    if found is None:
        known = ", ".join(one.model[0] for one in ARCHITECTURES)
        raise ModelError(
            f"the architecture '{config.get('model_type')}' can't be written as GGUF",
            hint=f"Those that can are {known}.",
        )
    return found


def architecture_named(name: str, mixture: bool, tensors: Container[str] = ()) -> Architecture | None:
    """Returns the architecture that a file names, or None where there is none for it here.

    Several models may have one name: of those it is the first whose parts outside layers are all there.

    Args:
        name: The value of `general.architecture`.
        mixture: Whether the file has experts.
        tensors: The names of the file's tensors.
    """
    found = [one for one in ARCHITECTURES if one.name == name and one.is_mixture == mixture]
    return next((one for one in found if one.fits(tensors)), found[0] if found else None)
