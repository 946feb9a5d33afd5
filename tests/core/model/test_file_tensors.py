"""What a base model's files give is looked at where it is read, and an error names who gave it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from graftkit.errors import PluginCallError
from graftkit.interfaces.model_source import TensorInfo
from graftkit.model.file_tensors import read_tensor, read_tensors

WEIGHT = torch.ones(2, 3)
TENSORS = {"a": TensorInfo((2, 3), "BF16"), "ids": TensorInfo((4,), "I64")}


def files(pairs: Any) -> Any:
    return SimpleNamespace(tensors=TENSORS, read=lambda: pairs, tensor=lambda name: dict(pairs)[name])


def test_tensors_are_given_as_the_files_say() -> None:
    pairs = [("a", WEIGHT), ("ids", torch.arange(4))]
    assert [name for name, _ in read_tensors(files(pairs))] == ["a", "ids"]
    assert read_tensor(files(pairs), "a") is WEIGHT


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (None, "gave None, not an iterator"),
        (["a"], "gave a str, not a name and a tensor"),
        ([(1, WEIGHT)], "gave a tuple, not a name and a tensor"),
        ([("a", WEIGHT), ("a", WEIGHT)], "gave the tensor 'a' again"),
        ([("b", WEIGHT)], "gave 'b', which is none of its tensors"),
        ([("a", WEIGHT.numpy())], "gave a ndarray as the tensor 'a'"),
        ([("a", WEIGHT.T)], r"of the shape \[3, 2\] as 'a', which has \[2, 3\]"),
        ([("a", WEIGHT.long())], "of torch.int64 as 'a', which is of BF16"),
        ([("a", WEIGHT.to(torch.float8_e4m3fn))], "of torch.float8_e4m3fn as 'a', not one of float32"),
        ([("a", WEIGHT.to("meta"))], "on the device meta"),
        ([("a", WEIGHT.to_sparse())], "in the layout torch.sparse_coo, not as a dense one"),
    ],
)
def test_other_tensors_are_told(pairs: Any, message: str) -> None:
    with pytest.raises(PluginCallError, match=rf"read\(\) .*{message}"):
        list(read_tensors(files(pairs)))
