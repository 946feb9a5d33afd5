"""The twin that other programs are tried on."""

from __future__ import annotations

import pytest
import torch
from graftkit.model.twin import published_twin
from graftkit.testing.architectures import ARCHITECTURES
from graftkit.testing.tiny import LEFT_OUT


@pytest.mark.parametrize("kind", ["llama", "gemma3", "qwen2_5_vl"])
def test_a_twin_has_each_tensor_of_its_language_model_once_and_none_of_a_tower(kind: str) -> None:
    twin = published_twin({key: value for key, value in ARCHITECTURES[kind].items() if value is not LEFT_OUT})
    expected = {tensor.data_ptr() for tensor in twin.network.state_dict().values() if not tensor.is_meta}
    assert sorted(tensor.data_ptr() for tensor in twin.own.values()) == sorted(expected)
    assert all(torch.equal(twin.network.state_dict()[name], tensor) for name, tensor in twin.own.items())
    assert not any(tensor.is_meta for tensor in twin.tensors.values()) and len(twin.tensors) == len(expected)
