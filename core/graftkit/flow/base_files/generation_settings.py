"""What a base model's files say besides weights and configuration, as exports hand it on; imports without torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from graftkit.flow.base_files.foreign_code import FOREIGN_CODE
from graftkit.interfaces.architecture import is_multimodal
from graftkit.interfaces.model_source import BaseModelFiles, GenerationSettings, ProcessorSettings
from graftkit.interfaces.tokenizer import Tokenizer
from graftkit.interfaces.vocabulary import VocabularyChange

__all__ = ["generation_config", "processors_of", "stop_tokens"]

_IDS = ("_token_id", "_token_ids", "_tokens")
"""How the fields that hold token ids end."""

_OF_CODE = FOREIGN_CODE | {"trust_remote_code"}
"""Fields that name code or let it be run, which is none of an export's."""


def stop_tokens(
    files: BaseModelFiles, change: VocabularyChange | None, tokenizer: Tokenizer, ends: Iterable[int]
) -> list[int]:
    """Returns the ids at which a generation stops, ascending.

    Args:
        files: The base model, whose own stop tokens count unless ids moved.
        change: What became of its vocabulary.
        tokenizer: The tokenizer in use, whose `eos` token counts.
        ends: Special tokens that end an assistant's turn in the training data.
    """
    base = _still_valid(files, change).get("eos_token_id")
    found = [*ends, tokenizer.role_token("eos"), *(base if isinstance(base, list) else [base])]
    return sorted({id for id in found if isinstance(id, int)})


def generation_config(
    files: BaseModelFiles, change: VocabularyChange | None, tokenizer: Tokenizer, stop: Sequence[int]
) -> Mapping[str, Any]:
    """Returns the generation_config.json of what was trained.

    Args:
        files: The base model.
        change: What became of its vocabulary. Where ids moved, `bos` and `pad` are the tokenizer's, and other fields
            with ids are left out.
        tokenizer: The tokenizer in use.
        stop: The ids at which a generation stops.
    """
    found = _still_valid(files, change)
    if change is not None and change.moves_ids:
        roles = {f"{role}_token_id": tokenizer.role_token(role) for role in ("bos", "pad")}
        found |= {key: id for key, id in roles.items() if id is not None}
    return {**found, "eos_token_id": list(stop)} if stop else found


def processors_of(files: BaseModelFiles) -> Mapping[str, Mapping[str, Any]]:
    """Returns how images and sound become a multimodal model's inputs: its files by their names; else nothing."""
    if not is_multimodal(files.config) or not isinstance(files, ProcessorSettings):
        return {}
    return files.processors


def _still_valid(files: BaseModelFiles, change: VocabularyChange | None) -> dict[str, Any]:
    """Returns the base model's settings, without those that name code, and ids where those mean other tokens now."""
    found = files.generation_config if isinstance(files, GenerationSettings) else {}
    moved = change is not None and change.moves_ids
    return {key: value for key, value in found.items() if key not in _OF_CODE and not (moved and key.endswith(_IDS))}
