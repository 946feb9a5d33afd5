"""Gives a BPE tokenizer the bytes that it lacks, after which no text is lost."""

from __future__ import annotations

from graftkit.tokenization.byte_alphabet import BYTE_PIECES, byte_alphabet
from graftkit.tokenization.splitting import isolated_characters

from graftkit_tokenizers.extend.draft import Draft

__all__ = ["add_missing_bytes"]


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
    fallback = BYTE_PIECES if draft.model.get("byte_fallback") else ()
    wanted = byte_alphabet() if byte_level else fallback
    missing = [piece for piece in wanted if piece not in draft.model["vocab"]]
    for piece in missing:
        draft.add_piece(piece, ())
    return not missing or (byte_level and _stop_isolating(draft, set(missing)))


def _stop_isolating(draft: Draft, characters: set[str]) -> bool:
    """Takes the Split away that is there because these characters were no pieces; tells whether there was one."""
    part = draft.spec.get("pre_tokenizer") or {}
    parts = part.get("pretokenizers", [])
    others = [part for part in parts if isolated_characters(part) != characters]
    if len(others) == len(parts):
        return False
    draft.spec["pre_tokenizer"] = {**part, "pretokenizers": others}
    return True
