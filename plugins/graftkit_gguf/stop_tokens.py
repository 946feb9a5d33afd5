"""The tokens that end an answer: how many of them a GGUF file has room for, and which llama.cpp knows by their text."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from graftkit import Tokenizer

__all__ = ["StoredStops", "stop_notices", "stop_tokens_of", "stored_stops"]

_KEYS = ("tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id")
"""Where tokens that end an answer stand besides the end-of-sequence token."""

_KNOWN = frozenset(
    {
        *("<|eot_id|>", "<|eom_id|>", "<|im_end|>", "<|endoftext|>", "<|end_of_text|>", "<end_of_turn>", "<turn|>"),
        *("<|return|>", "<|call|>", "<|calls|>", "<|flush|>", "</s>", "<EOT>", "_<EOT>", "[EOT]", "[EOS]", "<eos>"),
        *("<end_of_utterance>", "<｜end▁of▁sentence｜>", "[e~["),
    }
)
"""Tokens at which llama.cpp ends by their texts, tried with its own loader; the tests try each."""
_END, _NOT_AN_END_BESIDE = "<|end|>", frozenset({"<|return|>", "<|call|>", "<|calls|>", "<|flush|>"})


@dataclass(frozen=True, slots=True)
class StoredStops:
    """Where the tokens that end an answer stand.

    Attributes:
        metadata: The keys of those that have one, beside the end-of-sequence token.
        without_room: Those that llama.cpp does not end at, since the file has no place for them.
    """

    metadata: Mapping[str, int]
    without_room: Sequence[int]


def stop_tokens_of(generation: Mapping[str, Any]) -> list[int]:
    """Returns the tokens that end an answer, of a generation_config.json."""
    stop = generation.get("eos_token_id")
    return list(stop) if isinstance(stop, list) else [] if stop is None else [stop]


def stored_stops(stop: Sequence[int], eos: int | None, texts: Mapping[int, str]) -> StoredStops:
    """Returns where tokens that end an answer stand in a file.

    llama.cpp ends at the end-of-sequence token, at two more that the metadata names, and at those that it knows by
    their texts: these are named last.

    Args:
        stop: The tokens.
        eos: The end-of-sequence token, or None.
        texts: The text of each token.
    """
    known = _known(texts.values())
    others = sorted((id for id in dict.fromkeys(stop) if id != eos), key=lambda id: texts.get(id, "") in known)
    without = [id for id in others[len(_KEYS) :] if texts.get(id, "") not in known]
    return StoredStops(dict(zip(_KEYS, others, strict=False)), without)


def _known(texts: Collection[str]) -> frozenset[str]:
    return _KNOWN if _NOT_AN_END_BESIDE.intersection(texts) else _KNOWN | {_END}


def stop_notices(tokenizer: Tokenizer, stop: Sequence[int]) -> list[str]:
    """Says at which tokens llama.cpp does not end an answer, though the model does.

    Args:
        tokenizer: The model's tokenizer.
        stop: The tokens that end an answer.
    """
    special = {id: token for token, id in tokenizer.special_tokens.items()}
    texts = {id: special.get(id) or tokenizer.decode([id]) for id in {*special, *stop}}
    lost = stored_stops(stop, tokenizer.role_token("eos"), texts).without_room
    if not lost:
        return []
    shown = ", ".join(f"{texts[id]!r} ({id})" for id in lost[:8]) + (", ..." if len(lost) > 8 else "")
    return [
        f"a GGUF file has room for three tokens that end an answer, and llama.cpp does not end at {shown}: Ollama "
        "does, by its Modelfile; give llama.cpp's server their texts as `stop`"
    ]
