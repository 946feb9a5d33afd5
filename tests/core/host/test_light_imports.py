"""What must stay quick loads nothing heavy."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = {"torch", "transformers", "bitsandbytes", "tokenizers", "starlette", "uvicorn"}


def loaded(statement: str, *arguments: str) -> set[str]:
    """Returns the top-level modules that a fresh process has loaded after a statement."""
    code = (
        f"import json, sys\ntry:\n    {statement}\nexcept SystemExit as stop:\n    assert not stop.code, stop.code\n"
        "print('\\n' + json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize(
    "statement",
    [
        "import graftkit",
        "from graftkit import PluginHost, hookimpl, Provider, Recipe, load_recipe, plan, run",
        "from graftkit import PluginHost; assert PluginHost(strict=True).registry.providers()",
        "from graftkit.cli.main import main; main(['--help'])",
        "from graftkit.cli.main import main; main(['serve', '--help'])",
        "from graftkit.cli.main import main; main(['plugins'])",
        "from graftkit.cli.main import main; main(['plugins', '--json'])",
        "from graftkit.cli.main import main; main(['schema'])",
    ],
)
def test_it_loads_nothing_heavy(statement: str) -> None:
    assert not loaded(statement) & HEAVY


def test_planning_loads_neither_torch_nor_transformers(tiny_model: Path, chat_records: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"model: {tiny_model}\ndata: {{train: {chat_records}}}\nadapter: qlora\nexport: [peft, merged]\n")
    assert not loaded("from graftkit.cli.main import main; main(['plan', '--quick', sys.argv[1]])", str(recipe)) & {
        "torch",
        "transformers",
        "bitsandbytes",
    }
