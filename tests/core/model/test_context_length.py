"""How many tokens a model takes, under every name that configurations have for it."""

from __future__ import annotations

from typing import Any

import pytest
from graftkit.model.context import context_length


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"model_type": "llama", "max_position_embeddings": 512}, 512),
        ({"model_type": "gpt2", "n_positions": 128}, 128),
        ({"model_type": "gpt2"}, 1024),
        ({"model_type": "opt"}, 2048),
        ({"model_type": "bloom"}, None),
        ({"model_type": "gemma3", "text_config": {"model_type": "gemma3_text", "max_position_embeddings": 77}}, 77),
        ({"model_type": "nothing-known"}, None),
    ],
)
def test_the_context_is_found_whatever_it_is_called(config: dict[str, Any], expected: int | None) -> None:
    assert context_length(config) == expected
