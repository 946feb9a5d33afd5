"""The architectures that are written as GGUF: llama.cpp's names for their settings and weights.

Metadata keys are those of `docs/gguf.md` in the ggml project, names of tensors those of llama.cpp's loader. Whether
llama.cpp computes the same as transformers is what the proof says.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from graftkit.errors import ModelError

if TYPE_CHECKING:
    import torch

__all__ = ["ARCHITECTURES", "Architecture", "architecture_of"]

_OUTER = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
}
_LAYER = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_ROPES = ("default", "linear")


@dataclass(frozen=True, slots=True)
class Architecture:
    """One of llama.cpp's architectures.

    Attributes:
        name: The value of `general.architecture`.
        rotates_pairs: Whether its rotary embedding rotates neighbouring dimensions, where transformers rotates halves:
            the rows of q and k then stand in another order in the file.
    """

    name: str
    rotates_pairs: bool = False

    def metadata(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the keys that llama.cpp reads, from those of a `config.json`.

        Raises:
            ModelError: The model has a part that its architecture in llama.cpp lacks.
        """
        _refuse(config)
        heads = config["num_attention_heads"]
        head_dim = config.get("head_dim") or config["hidden_size"] // heads
        rope = config["rope_parameters"]
        settings = {
            "context_length": config["max_position_embeddings"],
            "embedding_length": config["hidden_size"],
            "block_count": config["num_hidden_layers"],
            "feed_forward_length": config["intermediate_size"],
            "attention.head_count": heads,
            "attention.head_count_kv": config.get("num_key_value_heads") or heads,
            "attention.key_length": head_dim,
            "attention.value_length": head_dim,
            "attention.layer_norm_rms_epsilon": float(config["rms_norm_eps"]),
            "rope.freq_base": float(rope["rope_theta"]),
            "rope.dimension_count": head_dim,
            "vocab_size": config["vocab_size"],
        }
        if rope.get("rope_type") == "linear":
            settings |= {"rope.scaling.type": "linear", "rope.scaling.factor": float(rope["factor"])}
        return {"general.architecture": self.name, **{f"{self.name}.{key}": value for key, value in settings.items()}}

    def tensor(self, name: str, values: torch.Tensor, config: Mapping[str, Any]) -> tuple[str, torch.Tensor]:
        """Returns a weight's name and value in the file.

        Args:
            name: Its name in transformers.
            values: The weight, `[out, in]` or `[size]`.
            config: The keys of the model's `config.json`.

        Raises:
            ModelError: Such a model has no weight of this name.
        """
        module, _, part = name.rpartition(".")
        if module in _OUTER:
            return f"{_OUTER[module]}.{part}", values
        before, _, layer = module.removeprefix("model.layers.").partition(".")
        if not before.isdigit() or layer not in _LAYER or part not in ("weight", "bias"):
            raise ModelError(f"the weight '{name}' has no name in a GGUF file of the architecture {self.name}")
        heads = {"self_attn.q_proj": "num_attention_heads", "self_attn.k_proj": "num_key_value_heads"}.get(layer)
        if heads and self.rotates_pairs:
            values = _paired_rows(values, config.get(heads) or config["num_attention_heads"])
        return f"blk.{before}.{_LAYER[layer]}.{part}", values


ARCHITECTURES: Mapping[str, Architecture] = {
    "llama": Architecture("llama", rotates_pairs=True),
    "mistral": Architecture("llama", rotates_pairs=True),
    "qwen2": Architecture("qwen2"),
    "qwen3": Architecture("qwen3"),
}
"""transformers' `model_type` -> the architecture."""


def architecture_of(config: Mapping[str, Any]) -> Architecture:
    """Returns the architecture of a model.

    Raises:
        ModelError: There is none for it here.
    """
    found = ARCHITECTURES.get(str(config.get("model_type")))
    if found is None:
        raise ModelError(
            f"the architecture '{config.get('model_type')}' can't be written as GGUF",
            hint=f"Those that can are {', '.join(ARCHITECTURES)}.",
        )
    return found


def _refuse(config: Mapping[str, Any]) -> None:
    """Refuses a model with a part that has no metadata here.

    Raises:
        ModelError: It has such a part.
    """
    rope = config["rope_parameters"].get("rope_type", "default")
    if rope not in _ROPES:
        raise ModelError(f"a rope of the type '{rope}' can't be written as GGUF")
    window, context = config.get("sliding_window"), config["max_position_embeddings"]
    used = config.get("use_sliding_window", True)
    if window and used and window < context:
        raise ModelError(f"a sliding window of {window} tokens can't be written as GGUF for this architecture")
    if config.get("hidden_act", "silu") != "silu":
        raise ModelError(f"the activation '{config['hidden_act']}' can't be written as GGUF for this architecture")


def _paired_rows(values: torch.Tensor, heads: int) -> torch.Tensor:
    """Reorders the rows of q or k from a head's two halves to its neighbouring pairs."""
    pairs = values.reshape(heads, 2, values.shape[0] // heads // 2, *values.shape[1:])
    return pairs.swapaxes(1, 2).reshape(values.shape)
