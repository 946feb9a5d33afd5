"""How long a sequence may be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from graftkit.interfaces.architecture import skipped_positions, text_settings
from graftkit.interfaces.config_numbers import CONTEXTS

__all__ = ["context_length"]


def context_length(config: Mapping[str, Any]) -> int | None:
    """Returns how many tokens a sequence may have, or None where the configuration does not say.

    What config.json leaves out is the default of the architecture's own configuration: GPT-2's table of learned
    positions ends at 1,024 whether its file says so or not.
    """
    own = text_settings(config)
    skipped = skipped_positions(own)
    for name in CONTEXTS:
        if isinstance(own.get(name), int) and own[name] > skipped:
            return int(own[name]) - skipped
    from transformers import CONFIG_MAPPING

    kind = own.get("model_type")
    default = getattr(CONFIG_MAPPING[kind](), "max_position_embeddings", None) if kind in CONFIG_MAPPING else None
    return default if isinstance(default, int) and default > 0 else None
