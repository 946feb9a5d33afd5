"""The JSON records of trained and extended tokenizers."""

from __future__ import annotations

from typing import Any

from graftkit._version import __version__
from graftkit.interfaces.tokenizer import Tokenizer
from graftkit.interfaces.vocabulary import ExtensionPlan, ExtensionSpec, NewToken

__all__ = ["extension_record", "tokenizer_facts"]


def tokenizer_facts(tokenizer: Tokenizer) -> dict[str, Any]:
    """Returns a tokenizer's size, fingerprint and losslessness, as JSON."""
    declared = tokenizer.capabilities
    return {
        "graftkit": __version__,
        "vocab_size": tokenizer.vocab_size,
        "fingerprint": tokenizer.fingerprint,
        "lossless": declared.lossless_unicode,
    }


def extension_record(base: Tokenizer, plan: ExtensionPlan, spec: ExtensionSpec) -> dict[str, Any]:
    """Returns an extension as JSON: what was asked for, and each new token's id, text, base ids and uses.

    Args:
        base: The tokenizer that was extended.
        plan: What became of it.
        spec: What was asked for.
    """
    return {
        **tokenizer_facts(plan.tokenizer),
        "base": {"fingerprint": base.fingerprint, "vocab_size": base.vocab_size},
        "asked": {
            "tokens": spec.tokens,
            "min_frequency": spec.min_frequency,
            "max_length": spec.max_length,
            "missing_bytes": spec.missing_bytes,
            "words": list(spec.words),
        },
        "coarsens": plan.coarsens,
        "base_tokens": plan.base_tokens,
        "tokens_after": plan.tokens_after,
        "tokens": [_new_token(token) for token in plan.tokens],
    }


def _new_token(token: NewToken) -> dict[str, Any]:
    """Returns one token; bytes that are no UTF-8 are written in hex, too."""
    text = token.data.decode("utf-8", errors="replace")
    whole = {} if text.encode() == token.data else {"bytes": token.data.hex()}
    return {"id": token.id, "text": text, **whole, "parts": list(token.parts), "uses": token.uses}
