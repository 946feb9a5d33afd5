"""A small recipe on a tiny model."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from forked_children import children_forked
from stopping_signals import STOPPING

FRESH = subprocess.Popen


RecipeMaker = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module", autouse=True)
def forked_children() -> Iterator[None]:
    """Proofs and commands are forks of a process that has imported torch; see `fresh_children` for those that start."""
    with children_forked():
        yield


@pytest.fixture(autouse=True)
def fresh_children(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a test is marked `fresh_children`, each process starts as a user's does."""
    if request.node.get_closest_marker("fresh_children"):
        monkeypatch.setattr(subprocess, "Popen", FRESH)


@pytest.fixture
def make_recipe(tiny_model: Path, chat_records: Path) -> RecipeMaker:
    """Makes a recipe that runs in a second; sections given replace its own."""

    def make(**sections: Any) -> dict[str, Any]:
        return {
            "model": str(tiny_model),
            "data": {"train": str(chat_records), "holdout": 0.1, "max_length": 64},
            "adapter": {"use": "lora", "rank": 4},
            "training": {"steps": 6, "tokens_per_step": 256, "learning_rate": 1e-2, "device": "cpu"},
            **sections,
        }

    return make


@pytest.fixture
def none_ignored() -> Iterator[None]:
    """A process that was started in the background, or by nohup, ignores some, and so would the command, on purpose."""
    ignored = [number for number in STOPPING if signal.getsignal(number) == signal.SIG_IGN]
    for number in ignored:
        signal.signal(number, signal.SIG_DFL)
    yield
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)
