"""What is asked of a tokenizer that was accepted."""

from __future__ import annotations

from typing import Any

__all__ = ["use_tokenizer"]

_TEXTS = (
    "",
    "a",
    "Hello  world\n",
    "Grüße 🙂 e\u0301\u0000\u2581 12345",
    "<|endoftext|>a[UNK]<s>b</s>",
    "x" * 2000,
    " " * 2000 + "x",
)


def use_tokenizer(tokenizer: Any) -> None:
    """Encodes and decodes texts, and asks for everything that a run asks for."""
    assert tokenizer.vocab_size >= 0 and tokenizer.fingerprint
    _ = (
        tokenizer.capabilities,
        tokenizer.special_tokens,
        tokenizer.added_tokens,
        tokenizer.chat_template,
        tokenizer.adds_bos,
    )
    for role in ("bos", "eos", "pad", "unk"):
        id = tokenizer.role_token(role)
        assert id is None or isinstance(id, int)
    found = []
    for text in _TEXTS:
        encoding = tokenizer.encode_offsets(text, "all")
        found.append(encoding.ids)
        assert len(encoding.ids) == len(encoding.offsets)
        assert isinstance(tokenizer.decode(encoding.ids), str)
        stream = tokenizer.stream_decoder()
        "".join([*map(stream.push, encoding.ids), stream.finish()])
    tokenizer.encode_batch(list(_TEXTS))
    tokenizer.decode_bytes(found[1])
    tokenizer.decode(found[2], skip_specials=True)
    tokenizer.normalize("Grüße")
    for id in (0, tokenizer.vocab_size - 1, tokenizer.vocab_size):
        try:
            tokenizer.token_bytes(id)
        except IndexError:
            continue
