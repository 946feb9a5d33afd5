"""Gives a BPE tokenizer the bytes that it lacks, after which no text is lost."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from graftkit.tokenization.tokenizer_json import BYTE_PIECES

from graftkit_tokenizers.extend.draft import Draft
from graftkit_tokenizers.tokenizer_json.token_bytes import byte_alphabet

__all__ = ["add_missing_bytes", "isolated_characters"]

_CLASS = re.compile(r"\[((?:\\x\{[0-9a-f]+\})+)\]")


def add_missing_bytes(draft: Draft, *, byte_level: bool) -> bool:
    """Adds a piece for each byte that has none, and takes away what kept their places apart.

    No merge leads to or from a new byte, so texts without it are cut as before.

    Args:
        draft: A tokenizer; one that is no BPE lacks none.
        byte_level: Whether it writes bytes as characters of GPT-2's alphabet, or falls back on pieces such as <0x0A>.

    Returns:
        Whether texts with those bytes, too, are cut where they were: what stood around a byte that is dropped may have
        been joined over it.
    """
    if draft.family != "BPE":
        return True
    if byte_level:
        wanted = sorted(byte_alphabet(), key=byte_alphabet().__getitem__)
    else:
        wanted = list(BYTE_PIECES) if draft.model.get("byte_fallback") else []
    missing = [piece for piece in wanted if piece not in draft.model["vocab"]]
    for piece in missing:
        draft.add_piece(piece, ())
    return not missing or (byte_level and _stop_isolating(draft, set(missing)))


def isolated_characters(part: Mapping[str, Any]) -> set[str]:
    r"""Returns the characters that a pre-tokenizer sets apart, if that is all it does.

    Example:
        >>> part = {"type": "Split", "pattern": {"Regex": r"[\x{61}\x{62}]"}, "behavior": "Isolated"}
        >>> sorted(isolated_characters(part))
        ['a', 'b']
    """
    if part.get("type") != "Split" or part.get("behavior") != "Isolated" or part.get("invert"):
        return set()
    match = _CLASS.fullmatch(part.get("pattern", {}).get("Regex", ""))
    return {chr(int(code, 16)) for code in re.findall(r"[0-9a-f]+(?=\})", match[1])} if match else set()


def _stop_isolating(draft: Draft, characters: set[str]) -> bool:
    """Takes the Split away that is there because these characters were no pieces; tells whether there was one."""
    part = draft.spec.get("pre_tokenizer") or {}
    parts = part.get("pretokenizers", [])
    others = [part for part in parts if isolated_characters(part) != characters]
    if len(others) == len(parts):
        return False
    draft.spec["pre_tokenizer"] = {**part, "pretokenizers": others}
    return True
