"""The encoders that are read and written: llama.cpp's names for their settings and weights.

llama.cpp numbers positions from 0: of models that number them from the padding token on, a file has the others' rows
left out, and is a BERT's then. It takes the embedding of the first type of token for all (`llm_build_bert`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from graftkit_gguf.architectures import Architecture
from graftkit_gguf.parts import TOKEN_TYPES, Part, Setting, get_setting, layer, norm, outside
from graftkit_gguf.pooling import DENSE, SCORES

__all__ = ["ENCODERS"]

_SEES_ALL = {"attention.causal": False}
_EPSILON = "attention.layer_norm_epsilon"
_OF_BERT = (Setting(_EPSILON, "layer_norm_eps", float), Setting(TOKEN_TYPES, "type_vocab_size", int))
_PERIOD = 3
"""The layers of a ModernBERT of which the first looks at everything, and the others through a window."""


def _bert(config: Mapping[str, Any]) -> str:
    if config.get("is_decoder") or config.get("add_cross_attention"):
        return "an encoder that is a decoder"
    types = config.get("position_embedding_type", "absolute")
    return "" if types == "absolute" else f"positions of the type {types}"


def _modernbert(config: Mapping[str, Any]) -> str:
    wanted = ["sliding_attention" if n % _PERIOD else "full_attention" for n in range(config["num_hidden_layers"])]
    if config.get("layer_types", wanted) != wanted:
        return f"another order of layers with a window than each but every {_PERIOD}rd, from the first on"
    near = get_setting(config, "rope_parameters.sliding_attention.rope_type")
    return "" if near in (None, "default") else f"rope_type {near} in layers with a window"


def _implied_by_modernbert(config: Mapping[str, Any]) -> dict[str, Any]:
    near = {**config["rope_parameters"]["sliding_attention"], "rope_type": "default"}
    return {"rope_parameters": {**config["rope_parameters"], "sliding_attention": near}}


def _embeddings(body: str, *, positions: bool = True, types: bool = True) -> tuple[Part, ...]:
    """Returns the parts outside layers.

    Args:
        body: What their names begin with.
        positions: Whether positions have embeddings.
        types: Whether types of tokens have some.
    """
    places = layer(f"{body}embeddings.position_embeddings", "position_embd", "positions", "hidden")
    kinds = layer(f"{body}embeddings.token_type_embeddings", "token_types", "types", "hidden")
    return outside(
        layer(f"{body}embeddings.word_embeddings", "token_embd", "vocabulary", "hidden"),
        *([replace(places, after_padding=True)] if positions else []),
        *([kinds] if types else []),
        norm(f"{body}embeddings.LayerNorm", "token_embd_norm", bias="always"),
    )


def _after_norms(
    attention: tuple[str, str, str, str], inner: tuple[str, str], norms: tuple[str, str]
) -> tuple[Part, ...]:
    """Returns the parts of a layer of BERT's kind, whose norms follow what they are of.

    Args:
        attention: transformers' names of the layers of queries, keys, values and what is made of them.
        inner: Those of the two layers of the feed-forward part.
        norms: Those of the norms after attention, and after that part.
    """
    query, key, value, output = attention
    up, down = inner
    first, last = norms
    return (
        layer(query, "attn_q", "queries", "hidden", "always"),
        layer(key, "attn_k", "keys", "hidden", "always"),
        layer(value, "attn_v", "keys", "hidden", "always"),
        layer(output, "attn_output", "hidden", "queries", "always"),
        norm(first, "attn_output_norm", bias="always"),
        layer(up, "ffn_up", "inner", "hidden", "always"),
        layer(down, "ffn_down", "hidden", "inner", "always"),
        norm(last, "layer_output_norm", bias="always"),
    )


_IN_BERT = _after_norms(
    ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"),
    ("intermediate.dense", "output.dense"),
    ("attention.output.LayerNorm", "output.LayerNorm"),
)
_IN_DISTILBERT = _after_norms(
    ("attention.q_lin", "attention.k_lin", "attention.v_lin", "attention.out_lin"),
    ("ffn.lin1", "ffn.lin2"),
    ("sa_layer_norm", "output_layer_norm"),
)
_IN_NOMIC = (
    layer("self_attn.q_proj", "attn_q", "queries", "hidden"),
    layer("self_attn.k_proj", "attn_k", "keys", "hidden"),
    layer("self_attn.v_proj", "attn_v", "keys", "hidden"),
    layer("self_attn.o_proj", "attn_output", "hidden", "queries"),
    norm("post_attention_layernorm", "attn_output_norm", bias="always"),
    layer("mlp.gate_proj", "ffn_gate", "inner", "hidden"),
    layer("mlp.up_proj", "ffn_up", "inner", "hidden"),
    layer("mlp.down_proj", "ffn_down", "hidden", "inner"),
    norm("post_mlp_layernorm", "layer_output_norm", bias="always"),
)
_IN_MODERNBERT = (
    replace(norm("attn_norm", "attn_norm"), not_first=True),
    layer("attn.Wqkv", "attn_qkv", "queries, keys and values", "hidden"),
    layer("attn.Wo", "attn_output", "hidden", "queries"),
    norm("mlp_norm", "ffn_norm"),
    layer("mlp.Wi", "ffn_up", "twice inner", "hidden"),
    layer("mlp.Wo", "ffn_down", "hidden", "inner"),
)

_BERT = Architecture(
    "bert",
    ("bert", "BertModel"),
    (*_embeddings("bert."), *_IN_BERT),
    _OF_BERT,
    {"hidden_act": "gelu"},
    _bert,
    ropes=(),
    is_square=True,
    scores=(
        layer("bert.pooler.dense", DENSE.removesuffix(".weight"), "hidden", "hidden", "always"),
        layer("classifier", SCORES.removesuffix(".weight"), "labels", "hidden", "always"),
    ),
    gives_shares=False,
    body="bert.",
    layers="bert.encoder.layer.",
    constants=_SEES_ALL,
    needless=("pooler.", "embeddings.position_ids"),
)


ENCODERS: tuple[Architecture, ...] = (
    _BERT,
    replace(_BERT, model=("roberta", "RobertaModel"), scores=()),
    replace(_BERT, model=("xlm-roberta", "XLMRobertaModel"), scores=()),
    replace(_BERT, model=("camembert", "CamembertModel"), scores=()),
    replace(
        _BERT,
        model=("distilbert", "DistilBertModel"),
        parts=(*_embeddings("distilbert.", types=False), *_IN_DISTILBERT),
        settings=(),
        scores=(),
        body="distilbert.",
        layers="distilbert.transformer.layer.",
        constants={**_SEES_ALL, _EPSILON: 1e-12, TOKEN_TYPES: 1},
    ),
    Architecture(
        "nomic-bert",
        ("nomic_bert", "NomicBertModel"),
        (*_embeddings("", positions=False), *_IN_NOMIC),
        (*_OF_BERT, Setting("rope.freq_base", "rope_parameters.rope_theta", float, 10_000.0)),
        {"hidden_act": "silu"},
        is_square=True,
        body="",
        layers="layers.",
        constants=_SEES_ALL,
        needless=("embeddings.position_ids",),
    ),
    Architecture(
        "modern-bert",
        ("modernbert", "ModernBertModel"),
        (
            *outside(
                layer("embeddings.tok_embeddings", "token_embd", "vocabulary", "hidden"),
                norm("embeddings.norm", "token_embd_norm"),
                norm("final_norm", "output_norm"),
            ),
            *_IN_MODERNBERT,
        ),
        (
            Setting(_EPSILON, "norm_eps", float),
            Setting("rope.freq_base", "rope_parameters.full_attention.rope_theta", float, 10_000.0),
            Setting("rope.freq_base_swa", "rope_parameters.sliding_attention.rope_theta", float, 10_000.0),
            Setting("attention.sliding_window", "local_attention", int),
        ),
        {"hidden_activation": "gelu", "attention_bias": False, "mlp_bias": False, "norm_bias": False},
        _modernbert,
        rope="rope_parameters.full_attention",
        implied=_implied_by_modernbert,
        is_square=True,
        body="",
        layers="layers.",
        constants={**_SEES_ALL, "attention.sliding_window_pattern": _PERIOD},
    ),
)
