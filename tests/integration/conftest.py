"""A small recipe on a tiny model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

RecipeMaker = Callable[..., dict[str, Any]]


@pytest.fixture
def make_recipe(tiny_model: Path, chat_rows: Path) -> RecipeMaker:
    """Makes a recipe that runs in a second; sections given replace its own."""

    def make(**sections: Any) -> dict[str, Any]:
        return {
            "model": str(tiny_model),
            "data": {"train": str(chat_rows), "holdout": 0.1, "max_length": 64},
            "adapter": {"use": "lora", "rank": 4},
            "training": {"steps": 6, "tokens_per_step": 256, "learning_rate": 1e-2, "device": "cpu"},
            **sections,
        }

    return make
