"""What a tokenizer promises is tried on a few texts before anything is encoded with it."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from types import SimpleNamespace
from typing import Any, cast

import pytest
from graftkit.errors import PluginCallError
from graftkit.host.records import PluginRecord
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


class Watched(SimpleNamespace):
    """What another plugin has made."""

    _graftkit_plugin = PluginRecord("p", "acme", "1", "p")


@pytest.mark.parametrize("method", ["encode", "encode_batch"])
def test_a_tokenizer_reads_no_special_token_out_of_a_text(method: str) -> None:
    def leaking(text: str) -> list[int]:
        return [0] if "<x>" in text else list(text.encode())

    specials = {"special_tokens": {"<x>": 0, "<u>": 1}, "role_token": {"unk": 1}.get}
    check_promises(cast(Any, Watched(**vars(tokenizer(**specials)))))
    beyond = Watched(**vars(tokenizer(**{**specials, "role_token": {"eos": 256}.get})))
    with pytest.raises(PluginCallError, match=r"role_token\(\) .* gave the id 256 as eos, of 256 ids"):
        check_promises(cast(Any, beyond))
    odd: Any = {"encode": leaking, "encode_batch": lambda texts: [*map(leaking, texts)]}[method]
    with pytest.raises(PluginCallError, match=rf"{method}\(\) .* gave the special id 0 for the text 'a<x>b'"):
        check_promises(cast(Any, Watched(**vars(tokenizer(**specials, **{method: odd})))))


class Renamed(SimpleNamespace):
    """A tokenizer whose fingerprint is another one each time."""

    @property
    def fingerprint(self) -> str:
        return f"f{next(self.numbers)}"


def test_a_fingerprint_is_the_same_each_time() -> None:
    own = {name: value for name, value in vars(tokenizer()).items() if name != "fingerprint"}
    renamed: Any = Renamed(**own, numbers=count())
    with pytest.raises(PluginCallError, match="fingerprint.* gave another one the second time"):
        check_promises(renamed)


@pytest.mark.parametrize(
    ("odd", "message"),
    [
        ({"encode": counting()}, "encode.* gave other ids the second time"),
        ({"encode_batch": lambda texts: [[1] for _ in texts]}, "encode_batch.* gave other ids than encode"),
        ({"fingerprint": None}, "fingerprint.* gave None, not a str"),
        ({"fingerprint": ""}, "fingerprint.* gave '', where a sha256 in hex is due"),
        ({"fingerprint": "../\ud800"}, "fingerprint.* gave .*, where a sha256 in hex is due"),
        ({"capabilities": None}, "capabilities.* gave None, not a TokenizerCapabilities"),
        ({"vocab_size": 100}, "encode.* of 100 ids"),
        ({"decode": lambda ids: ""}, "decode.* says that it loses no text"),
    ],
)
def test_a_tokenizer_that_does_not_is_named(odd: Any, message: str) -> None:
    with pytest.raises(PluginCallError, match=message):
        check_promises(tokenizer(**odd))
