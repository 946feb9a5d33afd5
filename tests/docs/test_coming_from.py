"""The page for those who come from another program shows what the conversion writes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from graftkit.host.host import PluginHost
from graftkit.recipe.bind import bind
from graftkit.recipe.conversion.convert import convert
from graftkit.recipe.document import parse_value
from graftkit.recipe.load import load_recipe

PAGE = (Path(__file__).parents[2] / "docs" / "coming-from.md").read_text(encoding="utf-8")
DATA_SETS = {"pairs": {"file_name": "pairs.json", "ranking": True}}


@pytest.mark.parametrize("program", ["Axolotl", "LLaMA-Factory", "TRL and PEFT", "mlx-lm", "ms-swift"])
def test_what_it_shows_is_what_the_conversion_writes(program: str) -> None:
    (section,) = re.findall(rf"^## {program}\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE)
    theirs, ours = (_parsed(block) for block in re.findall(r"```yaml\n(.*?)```", section, re.DOTALL))
    found = convert(theirs, DATA_SETS)
    assert found.recipe == ours and found.program in program and not found.left
    bind(load_recipe(ours), PluginHost())


def _parsed(block: str) -> dict[str, Any]:
    found: dict[str, Any] = parse_value(block, "a block")
    return found
