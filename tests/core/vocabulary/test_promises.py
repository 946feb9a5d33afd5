"""What a tokenizer promises is tried on a few texts before anything is encoded with it."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from types import SimpleNamespace
from typing import Any

import pytest
from graftkit.errors import PluginCallError
from graftkit.interfaces.tokenizer import TokenizerCapabilities
from graftkit.vocabulary.losses import check_promises


def tokenizer(**odd: Any) -> Any:
    """Returns a tokenizer of bytes, but for some of its members."""

    def encode(text: str) -> list[int]:
        return list(text.encode())

    own: dict[str, Any] = {
        "vocab_size": 256,
        "capabilities": TokenizerCapabilities(True, True, True, False, False, True),
        "fingerprint": "f",
        "encode": encode,
        "encode_batch": lambda texts: list(map(encode, texts)),
        "decode": lambda ids: bytes(ids).decode(),
    }
    return SimpleNamespace(**{**own, **odd})


def counting() -> Callable[[str], list[int]]:
    numbers = count()
    return lambda text: [next(numbers)]


def test_a_tokenizer_that_keeps_its_promises_is_taken() -> None:
    check_promises(tokenizer())
    losing = TokenizerCapabilities(False, False, True, False, False, True)
    check_promises(tokenizer(capabilities=losing, decode=lambda ids: ""))


@pytest.mark.parametrize(
    ("odd", "message"),
    [
        ({"encode": counting()}, "encode.* gave other ids the second time"),
        ({"encode_batch": lambda texts: [[1] for _ in texts]}, "encode_batch.* gave other ids than encode"),
        ({"fingerprint": None}, "fingerprint.* gave None, not a str"),
        ({"capabilities": None}, "capabilities.* gave None, not a TokenizerCapabilities"),
        ({"vocab_size": 100}, "encode.* of 100 ids"),
        ({"decode": lambda ids: ""}, "decode.* says that it loses no text"),
    ],
)
def test_a_tokenizer_that_does_not_is_named(odd: Any, message: str) -> None:
    with pytest.raises(PluginCallError, match=message):
        check_promises(tokenizer(**odd))
