"""Small architectures that differ in what their continuation may save."""

from __future__ import annotations

from typing import Any

from graftkit.testing.architectures import ARCHITECTURES

SMALL = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 320,
}
SHAPES: dict[str, dict[str, Any]] = {
    "window": {**SMALL, "model_type": "mistral", "sliding_window": 16, "num_key_value_heads": 2},
    "convolution": {**SMALL, "model_type": "lfm2", "num_key_value_heads": 2, "layer_types": ["conv", "full_attention"]},
    "learned positions": {"model_type": "gpt2", "n_embd": 64, "n_head": 4, "n_layer": 2, "vocab_size": 320},
    "position biases": {"model_type": "bloom", "hidden_size": 64, "n_layer": 2, "n_head": 4, "vocab_size": 320},
    "state space": {"model_type": "mamba", "hidden_size": 64, "num_hidden_layers": 2, "vocab_size": 320},
    "distances counted over padding": {"model_type": "mpt", "d_model": 64, "n_heads": 4, "n_layers": 2},
    "states in its layers": {**ARCHITECTURES["recurrent_gemma"], "vocab_size": 320},
    "no cache": {"model_type": "openai-gpt", "n_embd": 64, "n_head": 4, "n_layer": 2, "vocab_size": 320},
    "frequencies of long sequences": {
        **SMALL,
        "model_type": "phi3",
        "pad_token_id": 0,
        "num_key_value_heads": 2,
        "original_max_position_embeddings": 16,
        "rope_parameters": {
            "rope_type": "longrope",
            "rope_theta": 10000.0,
            "short_factor": [1.0] * 8,
            "long_factor": [3.0 + number for number in range(8)],
            "original_max_position_embeddings": 16,
        },
    },
    "frequencies of every length": {
        **SMALL,
        "model_type": "llama",
        "num_key_value_heads": 2,
        "max_position_embeddings": 16,
        "rope_parameters": {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10000.0},
    },
}
