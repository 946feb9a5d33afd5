"""Finds what a tokenizer loses: characters, whose ids are decoded to something else."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache

from graftkit.articles import with_article
from graftkit.host.guard import is_watched, wrong_result
from graftkit.host.results import kind_named
from graftkit.interfaces.tokenizer import ROLES, Tokenizer, TokenizerCapabilities

__all__ = ["check_promises", "describe_losses", "lost_characters"]

_TRIED = (
    "hello, world",
    "  Two  spaces,\nand a line.\t",
    "Größe: 12.50 €, naïve 日本語 🙂",
    "def f(x):\n    return x[1:]\n",
)
"""Texts of several kinds, by which what a tokenizer says of itself is tried."""

_FINGERPRINT = re.compile(r"[\w.:-]{1,200}", re.ASCII)
"""What a fingerprint looks like, where files are named by it and compared: no less than a hash does."""

_MOST_SPECIALS = 64
"""How many special tokens are tried."""


def check_promises(tokenizer: Tokenizer) -> None:
    """Tries on a few texts what every tokenizer promises, and `lossless_unicode` where it is declared.

    That no text becomes a special token is tried of those that other plugins make.

    Args:
        tokenizer: The tokenizer.

    Raises:
        PluginCallError: It does not say what it promises, or has no fingerprint, or another one each time; it gives
            other ids the second time, or many texts other ids than one, or ids that it does not have, or reads a
            special token out of a text; or it loses text and says that it loses none.
    """
    for name, kind in (("capabilities", TokenizerCapabilities), ("fingerprint", str)):
        found = getattr(tokenizer, name, None)
        if not isinstance(found, kind):
            raise wrong_result(tokenizer, name, f"gave {kind_named(found)}, not {with_article(kind.__name__)}")
    fingerprint = tokenizer.fingerprint
    if not _FINGERPRINT.fullmatch(fingerprint):
        raise wrong_result(tokenizer, "fingerprint", f"gave {fingerprint!r:.80}, where a sha256 in hex is due")
    if tokenizer.fingerprint != fingerprint:
        raise wrong_result(tokenizer, "fingerprint", "gave another one the second time")
    single = [list(tokenizer.encode(text)) for text in _TRIED]
    if single != [list(tokenizer.encode(text)) for text in _TRIED]:
        raise wrong_result(tokenizer, "encode", "gave other ids the second time")
    if single != [list(ids) for ids in tokenizer.encode_batch(list(_TRIED))]:
        raise wrong_result(tokenizer, "encode_batch", "gave other ids than encode() of each text")
    for text, ids in zip(_TRIED, single, strict=True):
        if any(not 0 <= id < tokenizer.vocab_size for id in ids):
            raise wrong_result(tokenizer, "encode", f"gave the id {max(ids)}, of {tokenizer.vocab_size} ids")
        if tokenizer.capabilities.lossless_unicode and tokenizer.decode(ids) != text:
            told = f"gave {tokenizer.decode(ids)!r:.80} for the ids of {text!r}, and says that it loses no text"
            raise wrong_result(tokenizer, "decode", told)
    if is_watched(tokenizer):
        _check_specials(tokenizer)


def _check_specials(tokenizer: Tokenizer) -> None:
    """Makes sure that roles have ids, and that texts which spell special tokens become none: a record may spell any."""
    for role in ROLES:
        id = tokenizer.role_token(role)
        if id is not None and id >= tokenizer.vocab_size:
            told = f"gave the id {id} as {role}, of {tokenizer.vocab_size} ids"
            raise wrong_result(tokenizer, "role_token", told)
    specials = dict(tokenizer.special_tokens)
    control = {*specials.values()} - {tokenizer.role_token("unk")}
    texts = [f"a{name}b" for name in list(specials)[:_MOST_SPECIALS]]
    for method, found in (("encode", [*map(tokenizer.encode, texts)]), ("encode_batch", tokenizer.encode_batch(texts))):
        for text, ids in zip(texts, found, strict=True):
            leaked = control & {*ids}
            if leaked:
                told = f"gave the special id {min(leaked)} for the text {text!r:.80}, in which it was to read none"
                raise wrong_result(tokenizer, method, told)


@cache
def _probes() -> tuple[str, ...]:
    """Returns all of ASCII, and further characters until every byte of UTF-8 is in one of them."""
    found, seen = [chr(code) for code in range(128)], set(range(128))
    for code in range(128, 0x110000, 61):
        if not 0xD800 <= code < 0xE000:
            new = set(chr(code).encode()) - seen
            seen |= new
            found += [chr(code)] if new else []
    return tuple(found)


def lost_characters(tokenizer: Tokenizer) -> list[str]:
    """Returns those of about 200 characters, which have every byte of UTF-8, that are lost between two letters.

    A tokenizer that declares `lossless_unicode` is not tested.
    """
    if tokenizer.capabilities.lossless_unicode:
        return []
    batch = tokenizer.encode_batch([f"a{probe}b" for probe in _probes()])
    return [probe for probe, ids in zip(_probes(), batch, strict=True) if f"a{probe}b" not in tokenizer.decode(ids)]


def describe_losses(lost: Sequence[str]) -> str:
    """Returns the lost characters in words, for a notice.

    Example:
        >>> describe_losses(["a", chr(4)])
        "2 of 207 probed characters, such as 'a', U+0004"
    """
    shown = [f"'{c}'" if c.isprintable() else f"U+{ord(c):04X}" for c in lost[:3]]
    return f"{len(lost)} of {len(_probes())} probed characters, such as {', '.join(shown)}"
