"""Adds the bytes that a BPE vocabulary lacks, so that every text can be encoded."""

from __future__ import annotations

from graftkit.tokenization.byte_alphabet import BYTE_PIECES, byte_alphabet
from graftkit.tokenization.splitting import isolated_characters

from graftkit_tokenizers.extend.draft import Draft

__all__ = ["add_missing_bytes"]


def add_missing_bytes(draft: Draft, *, byte_level: bool) -> bool:
    """Adds a piece for each missing byte, and removes the pre-tokenizer that isolated those bytes.

    No merge has a new byte, so texts without one are encoded as before.

    Args:
        draft: The tokenizer; only BPE models are changed.
        byte_level: Whether bytes are written in GPT-2's alphabet; else pieces such as <0x0A> are added where the model
            has byte fallback.

    Returns:
        Whether texts with those bytes are cut at the same places as before. Without a pre-tokenizer that isolates
        them, the base drops such a byte and may merge what is left and right of it.
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
    """Removes the Split that isolates these characters; tells whether there was one."""
    part = draft.spec.get("pre_tokenizer") or {}
    parts = part.get("pretokenizers", [])
    others = [part for part in parts if isolated_characters(part) != characters]
    if len(others) == len(parts):
        return False
    draft.spec["pre_tokenizer"] = {**part, "pretokenizers": others}
    return True
